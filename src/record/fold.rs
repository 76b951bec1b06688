//! Folding: of many uses of one key, only the greatest matters.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::model::{Key, Newest, Time, Usage};

/// What an entry costs beside the bytes of its texts: two texts, a time, the table's slack.
const ENTRY_BYTES: usize = 128;

/// Uses folded by key, in memory that the caller bounds by [`Fold::bytes`].
#[derive(Debug, Default)]
pub struct Fold {
    users: Rows,
    /// The workspaces' own lists. A use that only raises its user's row waits there: the workspace's
    /// row hears of it in the end. A long history is looked up once a run, not twice.
    workspaces: Rows,
    bytes: usize,
    packed: String,
}

type Rows = HashMap<Key, Held, RandomState>;

/// A [`Newest`] whose text is overwritten in place: in a history that was written in the order of
/// time, every use outdoes the one before.
#[derive(Debug)]
struct Held {
    last_used_at: Time,
    /// Empty: none.
    run: String,
}

impl Held {
    fn new(last_used_at: Time, run: Option<&str>) -> Self {
        Self {
            last_used_at,
            run: run.unwrap_or_default().into(),
        }
    }

    fn raise(&mut self, last_used_at: Time, run: Option<&str>) {
        // No run is the lowest, and so is the empty text among texts.
        let run = run.unwrap_or_default();
        if (self.last_used_at, self.run.as_str()) < (last_used_at, run) {
            self.last_used_at = last_used_at;
            self.run.clear();
            self.run.push_str(run);
        }
    }

    fn run(&self) -> Option<&str> {
        Some(self.run.as_str()).filter(|run| !run.is_empty())
    }
}

impl Fold {
    /// Takes a use into the workspace's list and, with a user, into theirs.
    pub fn add(&mut self, usage: &Usage<'_>) {
        match usage.uid {
            None => drop(self.take(usage, "")),
            Some(uid) => {
                if self.take(usage, uid) {
                    self.take(usage, "");
                }
            }
        }
    }

    /// Whether the row is a new one.
    fn take(&mut self, usage: &Usage<'_>, uid: &str) -> bool {
        // Almost every use of a long history meets its key here already: look it up without
        // allocating anything.
        Key::pack_into(&mut self.packed, usage.workspace, uid, usage.published_run);
        let rows = if uid.is_empty() {
            &mut self.workspaces
        } else {
            &mut self.users
        };
        if let Some(held) = rows.get_mut(self.packed.as_str()) {
            held.raise(usage.last_used_at, usage.run);
            return false;
        }
        let held = Held::new(usage.last_used_at, usage.run);
        self.bytes += insert(rows, Key::from_packed(&self.packed), held);
        true
    }

    /// Takes in what one use makes of one row.
    pub fn raise(&mut self, key: &Key, newest: &Newest) {
        let rows = if key.is_workspace_list() {
            &mut self.workspaces
        } else {
            &mut self.users
        };
        let run = newest.run.as_deref();
        match rows.get_mut(key) {
            Some(held) => held.raise(newest.last_used_at, run),
            None => self.bytes += insert(rows, key.clone(), Held::new(newest.last_used_at, run)),
        }
    }

    /// Whether it holds a use of this key.
    pub fn contains(&self, key: &Key) -> bool {
        self.users.contains_key(key) || self.workspaces.contains_key(key)
    }

    /// About how many bytes it takes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many keys it holds.
    pub fn len(&self) -> usize {
        self.users.len() + self.workspaces.len()
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What it holds, sorted by key, as every writer locks rows.
    pub fn into_sorted(mut self) -> Vec<(Key, Newest)> {
        for (key, held) in &self.users {
            let (workspace, _, published_run) = key.parts();
            Key::pack_into(&mut self.packed, workspace, "", published_run);
            if let Some(of_workspace) = self.workspaces.get_mut(self.packed.as_str()) {
                of_workspace.raise(held.last_used_at, held.run());
            }
        }
        let newest = |held: Held| Newest {
            last_used_at: held.last_used_at,
            run: Some(held.run)
                .filter(|run| !run.is_empty())
                .map(String::into_boxed_str),
        };
        let mut sorted: Vec<_> = self
            .users
            .into_iter()
            .chain(self.workspaces)
            .map(|(key, held)| (key, newest(held)))
            .collect();
        sorted.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        sorted
    }
}

/// Adds a row; returns about how many bytes it takes.
fn insert(rows: &mut Rows, key: Key, held: Held) -> usize {
    let bytes = ENTRY_BYTES + key.heap_bytes() + held.run.len();
    rows.insert(key, held);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A use of one of few keys, so that most of them meet.
    fn usage(at: i64) -> Usage<'static> {
        Usage {
            workspace: ["w", "w2"][(at % 2) as usize],
            uid: [None, Some("u"), Some("u2")][(at / 2 % 3) as usize],
            published_run: ["p", "p2"][(at / 6 % 2) as usize],
            last_used_at: Time::from_micros(at * 7_919 % 1_000).unwrap(),
            run: [None, Some("r")][(at / 12 % 2) as usize],
        }
    }

    #[test]
    fn each_list_gets_its_greatest_use_in_whatever_order_the_uses_come() {
        let mut expected: std::collections::BTreeMap<Key, Newest> = Default::default();
        for usage in (0..600).map(usage) {
            for uid in [Some(""), usage.uid].into_iter().flatten() {
                let newest = Newest {
                    last_used_at: usage.last_used_at,
                    run: usage.run.map(Into::into),
                };
                let key = Key::new(usage.workspace, uid, usage.published_run);
                let held = expected.entry(key).or_insert(newest.clone());
                *held = newest.max(held.clone());
            }
        }
        let expected: Vec<_> = expected.into_iter().collect();
        // 7 and 600 have no common divisor: each stride is another order of the same uses.
        for stride in [1, 7, 599] {
            let mut fold = Fold::default();
            (0..600).for_each(|at| fold.add(&usage(at * stride % 600)));
            assert_eq!(fold.into_sorted(), expected, "stride {stride}");
        }
    }
}
