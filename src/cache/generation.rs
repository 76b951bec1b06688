//! Generations: what was forgotten, and when.
//!
//! Every load of a list notes the generation at which it began, before it asks the database. Forgetting
//! takes the next generation and writes it down for what is forgotten, after the commit that asks for
//! it. A list is current while nothing that concerns it was forgotten since its load began. Each of the
//! four forms is one store into an array, and nothing is searched or walked.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use super::slot;

/// Slots of scopes: two that share one only cost each other a load. 2 MiB.
pub(super) const SCOPES: usize = 1 << 18;
/// Slots of workspaces, and of published runs. 128 KiB each.
const OTHERS: usize = 1 << 14;

/// What is forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forgotten<'a> {
    /// One list: of a workspace, and of a user unless that is empty.
    Scope(&'a str, &'a str),
    /// One list, by its [`scope_slot`], as another process tells it.
    ScopeSlot(u32),
    /// Every list of a workspace.
    Workspace(&'a str),
    /// Every list that holds a published run.
    PublishedRun(&'a str),
    /// Everything.
    Everything,
}

/// Generations of everything that can be forgotten.
#[derive(Debug)]
pub struct Generations {
    now: AtomicU64,
    everything: AtomicU64,
    workspaces: Box<[AtomicU64]>,
    scopes: Box<[AtomicU64]>,
    published_runs: Box<[AtomicU64]>,
    /// Lists of which something was dismissed; two that share a slot only cost each other an answer while the
    /// database is away.
    hidden: Box<[AtomicU64]>,
    hidden_everything: AtomicU64,
    /// The newest of `published_runs`: a list that began later need not ask for each of its items.
    newest_published_run: AtomicU64,
}

/// Where the generation of a list is kept. The same in every process, so that it can be told.
pub fn scope_slot(workspace: &str, uid: &str) -> u32 {
    slot(&[workspace, uid], SCOPES)
}

impl Default for Generations {
    fn default() -> Self {
        let slots = |count| (0..count).map(|_| AtomicU64::new(0)).collect();
        Self {
            now: AtomicU64::new(0),
            everything: AtomicU64::new(0),
            workspaces: slots(OTHERS),
            scopes: slots(SCOPES),
            published_runs: slots(OTHERS),
            hidden: slots(OTHERS),
            hidden_everything: AtomicU64::new(0),
            newest_published_run: AtomicU64::new(0),
        }
    }
}

impl Generations {
    /// The generation of now; a load reads it before it asks the database.
    pub fn now(&self) -> u64 {
        self.now.load(SeqCst)
    }

    /// Begins a generation without forgetting anything, and returns it: what begins from now on is told from
    /// what began before.
    pub fn advance(&self) -> u64 {
        self.now.fetch_add(1, SeqCst) + 1
    }

    /// Forgets, after the commit of what changed.
    pub fn forget(&self, what: Forgotten<'_>) {
        let generation = self.now.fetch_add(1, SeqCst) + 1;
        let slot = match what {
            Forgotten::Scope(workspace, uid) => at(&self.scopes, scope_slot(workspace, uid)),
            Forgotten::ScopeSlot(slot) => at(&self.scopes, slot),
            Forgotten::Workspace(workspace) => {
                at(&self.workspaces, slot(&[workspace], self.workspaces.len()))
            }
            Forgotten::PublishedRun(published_run) => at(
                &self.published_runs,
                slot(&[published_run], self.published_runs.len()),
            ),
            Forgotten::Everything => &self.everything,
        };
        slot.fetch_max(generation, SeqCst);
        if let Forgotten::PublishedRun(_) = what {
            self.newest_published_run.fetch_max(generation, SeqCst);
        }
    }

    /// Hides what was forgotten: not even while the database is away is it shown again. Workspaces and
    /// published runs are always hidden.
    pub fn hide(&self, what: Forgotten<'_>) {
        let generation = self.now.fetch_add(1, SeqCst) + 1;
        let slot = match what {
            Forgotten::Scope(workspace, uid) => at(&self.hidden, scope_slot(workspace, uid)),
            Forgotten::ScopeSlot(slot) => at(&self.hidden, slot),
            Forgotten::Everything => &self.hidden_everything,
            Forgotten::Workspace(_) | Forgotten::PublishedRun(_) => return,
        };
        slot.fetch_max(generation, SeqCst);
    }

    /// Whether a list whose load began at `began`, of these published runs, is not to be shown again.
    pub fn is_hidden<'a>(
        &self,
        began: u64,
        (workspace, uid): (&str, &str),
        published_runs: impl Iterator<Item = &'a str>,
    ) -> bool {
        let hidden = [
            &self.hidden_everything,
            at(&self.workspaces, slot(&[workspace], self.workspaces.len())),
            at(&self.hidden, scope_slot(workspace, uid)),
        ];
        let mut hidden = hidden.into_iter().map(|hidden| hidden.load(SeqCst));
        !hidden.all(|hidden| sees(began, hidden)) || !self.are_current(began, published_runs)
    }

    /// Whether a list whose load began at `began` is current, as far as its scope goes.
    pub fn is_current(&self, began: u64, workspace: &str, uid: &str) -> bool {
        let workspaces = at(&self.workspaces, slot(&[workspace], self.workspaces.len()));
        let forgotten = [
            &self.everything,
            workspaces,
            at(&self.scopes, scope_slot(workspace, uid)),
        ];
        forgotten
            .into_iter()
            .all(|forgotten| sees(began, forgotten.load(SeqCst)))
    }

    /// Whether no published run at all was forgotten since a load began.
    pub fn no_published_run_since(&self, began: u64) -> bool {
        sees(began, self.newest_published_run.load(SeqCst))
    }

    /// Whether none of these published runs, of a list whose load began at `began`, was forgotten.
    pub fn are_current<'a>(
        &self,
        began: u64,
        mut published_runs: impl Iterator<Item = &'a str>,
    ) -> bool {
        if self.no_published_run_since(began) {
            return true;
        }
        published_runs.all(|published_run| {
            let slot = slot(&[published_run], self.published_runs.len());
            sees(began, at(&self.published_runs, slot).load(SeqCst))
        })
    }
}

fn at(slots: &[AtomicU64], slot: u32) -> &AtomicU64 {
    // What another process tells may be anything.
    &slots[slot as usize % slots.len()]
}

/// Whether a load that began at a generation sees what was committed before something was forgotten:
/// the one rule that keeps a load under way from bringing back what it was too early to see.
pub fn sees(began: u64, forgotten: u64) -> bool {
    began >= forgotten
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_voids_what_began_before_it_and_nothing_else() {
        let generations = Generations::default();
        let began = generations.now();
        let lists = [("5", ""), ("5", "u1"), ("6", "u1")];
        let current = |began| {
            let current =
                lists.map(|(workspace, uid)| generations.is_current(began, workspace, uid));
            let items = generations.are_current(began, ["88"].into_iter());
            (current, items)
        };
        for (what, expected) in [
            (Forgotten::Scope("5", "u1"), ([true, false, true], true)),
            (Forgotten::Workspace("5"), ([false, false, true], true)),
            (Forgotten::PublishedRun("88"), ([true; 3], false)),
            (Forgotten::Everything, ([false; 3], true)),
        ] {
            let generations_before = generations.now();
            assert_eq!(
                current(generations_before),
                ([true; 3], true),
                "before {what:?}"
            );
            generations.forget(what);
            assert_eq!(current(generations_before), expected, "{what:?}");
            assert_eq!(
                current(generations.now()),
                ([true; 3], true),
                "after {what:?}"
            );
        }
        assert_eq!(current(began), ([false; 3], false));
        let other = generations.are_current(began, ["89"].into_iter());
        assert!(other, "another published run");
    }
}
