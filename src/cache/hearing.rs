//! What is heard of other processes, and how far a replica must be to have it.

use super::generation::{Forgotten, scope_slot};
use super::invalidation::{Changed, Changes, Reason};
use super::news::News;
use super::replayed::Replayed;
use crate::store::Position;

impl Changes {
    /// From now on remembers how far a replica must be to have each list as it is.
    pub fn track_replicas(&self) {
        self.replayed.get_or_init(Replayed::default);
    }

    /// Whether this process knows of a replica.
    pub(crate) fn tracks_replicas(&self) -> bool {
        self.replayed.get().is_some()
    }

    /// Which database it is, as far as is known, and no position in it: behind every one.
    pub(crate) fn place(&self) -> Option<Position> {
        let (database, timeline) = self.primary.place()?;
        Some(Position {
            database,
            timeline,
            at: u64::MAX,
        })
    }

    /// From now on changes are heard; of what was written before this position nothing is known.
    pub(crate) fn begin_hearing(&self, position: u64) {
        if let Some(replayed) = self.replayed.get() {
            replayed.begin(position);
        }
        self.forget(&Changed::Everything, Reason::Listener);
    }

    /// These news were told, at a position behind them.
    pub(crate) fn told(&self, news: &News, position: u64) {
        if let Some(replayed) = self.replayed.get() {
            replayed.told(news, position);
        }
    }

    /// Whether a replica that had replayed so much has a list as it is, as far as is known here.
    pub fn is_replayed(&self, workspace: &str, uid: &str, position: u64) -> bool {
        let replayed = self.replayed.get();
        replayed.is_some_and(|replayed| replayed.has(scope_slot(workspace, uid), position))
    }

    /// Another process told something that cannot be read: one with another protocol, or anybody.
    pub(crate) fn hear_of_the_unknown(&self) {
        // First, as in a commit.
        if let Some(replayed) = self.replayed.get() {
            replayed.heard_something();
        }
        self.hear_of_something();
    }

    /// The furthest position that anything is known to be at, where it is held against replicas.
    pub(crate) fn furthest(&self) -> u64 {
        self.replayed.get().map_or(0, Replayed::furthest)
    }

    /// That position is none of the primary's.
    pub(crate) fn hear_of_nonsense(&self) {
        if let Some(replayed) = self.replayed.get() {
            replayed.heard_nonsense();
        }
    }

    /// Whatever was heard of so far was written before this position.
    pub(crate) fn all_heard_is_before(&self, position: u64) {
        if let Some(replayed) = self.replayed.get() {
            replayed.known(position);
        }
    }

    /// Forgets everything, because another process changed something.
    pub(crate) fn hear_of_something(&self) {
        // Dismissals may be among it.
        self.generations.hide(Forgotten::Everything);
        self.forget(&Changed::Everything, Reason::OtherProcess);
    }

    /// Forgets what another process told.
    pub fn hear(&self, origin: u64, position: u64, news: &News) {
        // First, as in a commit.
        if let Some(replayed) = self.replayed.get() {
            replayed.heard(news, position);
        }
        if news.everything {
            self.hear_of_something();
        }
        for slot in news
            .dismissed
            .iter()
            .map(|slot| Forgotten::ScopeSlot(*slot))
        {
            self.generations.hide(slot);
        }
        for slot in news.every_slot() {
            self.generations.forget(Forgotten::ScopeSlot(*slot));
        }
        let lists = news.every_slot().count() as u64;
        if lists > 0 {
            self.count(Reason::OtherProcess, lists);
            tracing::debug!(reason = Reason::OtherProcess.name(), lists, "forgotten");
        }
        for workspace in &news.workspaces {
            let workspace = workspace.clone();
            self.forget(&Changed::Workspace(workspace), Reason::OtherProcess);
        }
        for run in &news.published_runs {
            let run = run.clone();
            self.forget(&Changed::PublishedRun(run), Reason::OtherProcess);
        }
        let sequence = news.sequence;
        self.writes
            .heard(origin, sequence, || self.generations.now());
    }

    /// Nothing that was heard counts any more: another database answers, or its log began anew.
    pub fn unhear(&self) {
        self.writes.unhear();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::model::Id;

    fn id(text: &str) -> Id {
        Id::new(text).unwrap()
    }

    #[test]
    fn whoever_begins_behind_a_forgetting_finds_that_no_replica_is_far_enough() {
        let (changes, forgotten) = (Arc::new(Changes::default()), Arc::new(AtomicU64::new(0)));
        changes.track_replicas();
        // Where a replica is that lags: always just before what is being forgotten.
        let replica = Arc::new(AtomicU64::new(1));
        let has = |changes: &Changes, at: &AtomicU64| {
            changes.is_replayed("w", "", at.load(Ordering::SeqCst))
        };
        let (weak, at, count) = (
            Arc::downgrade(&changes),
            Arc::clone(&replica),
            Arc::clone(&forgotten),
        );
        changes.on_forget(move |what| {
            assert!(!has(&weak.upgrade().unwrap(), &at), "{what:?}");
            count.fetch_add(1, Ordering::SeqCst);
        });
        let next = || replica.load(Ordering::SeqCst) + 1;
        let catches_up = || {
            replica.fetch_add(1, Ordering::SeqCst);
            assert!(has(&changes, &replica));
        };
        for changed in [
            Changed::Workspace(id("w")),
            Changed::PublishedRun(id("p")),
            Changed::Everything,
        ] {
            changes.commit(&changed, Reason::Write);
            changes.told(&changes.take_news().unwrap(), next());
            catches_up();
            let another = Changes::default();
            another.commit(&changed, Reason::Write);
            changes.hear(another.origin, next(), &another.take_news().unwrap());
            catches_up();
            changes.begin_hearing(next());
            catches_up();
        }
        assert_eq!(forgotten.load(Ordering::SeqCst), 9);
    }

    #[test]
    fn what_another_process_changed_may_be_a_dismissal_and_is_not_shown_again() {
        let changes = Changes::default();
        let began = changes.generations.now();
        let is_hidden = || {
            changes
                .generations
                .is_hidden(began, ("w", ""), std::iter::empty())
        };
        assert!(!is_hidden());
        changes.hear_of_something();
        assert!(is_hidden() && !changes.generations.is_current(began, "w", ""));
    }
}
