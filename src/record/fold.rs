//! Folding: of many uses of one key, only the greatest matters.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::model::{Key, Newest, Time, Usage};

/// What an entry costs beside the bytes of its texts: two texts, a time, the table's slack.
const ENTRY_BYTES: usize = 128;

/// Uses folded by key, in memory that the caller bounds by [`Fold::bytes`].
#[derive(Debug, Default)]
pub struct Fold {
    newest: HashMap<Key, Held, RandomState>,
    bytes: usize,
    packed: String,
}

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
        self.take(usage, "");
        if let Some(uid) = usage.uid {
            self.take(usage, uid);
        }
    }

    fn take(&mut self, usage: &Usage<'_>, uid: &str) {
        // Almost every use of a long history meets its key here already: look it up without
        // allocating anything.
        Key::pack_into(&mut self.packed, usage.workspace, uid, usage.published_run);
        match self.newest.get_mut(self.packed.as_str()) {
            Some(held) => held.raise(usage.last_used_at, usage.run),
            None => {
                let held = Held::new(usage.last_used_at, usage.run);
                self.insert(Key::from_packed(&self.packed), held);
            }
        }
    }

    /// Takes in what one use makes of one row.
    pub fn raise(&mut self, key: &Key, newest: &Newest) {
        let run = newest.run.as_deref();
        match self.newest.get_mut(key) {
            Some(held) => held.raise(newest.last_used_at, run),
            None => self.insert(key.clone(), Held::new(newest.last_used_at, run)),
        }
    }

    fn insert(&mut self, key: Key, held: Held) {
        self.bytes += ENTRY_BYTES + key.heap_bytes() + held.run.len();
        self.newest.insert(key, held);
    }

    /// Takes in what another fold holds.
    pub fn merge(&mut self, mut other: Self) {
        if other.len() > self.len() {
            std::mem::swap(self, &mut other);
        }
        for (key, theirs) in other.newest {
            match self.newest.get_mut(&key) {
                Some(held) => held.raise(theirs.last_used_at, theirs.run()),
                None => self.insert(key, theirs),
            }
        }
    }

    /// Whether it holds a use of this key.
    pub fn contains(&self, key: &Key) -> bool {
        self.newest.contains_key(key)
    }

    /// About how many bytes it takes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many keys it holds.
    pub fn len(&self) -> usize {
        self.newest.len()
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.newest.is_empty()
    }

    /// What it holds, sorted by key, as every writer locks rows.
    pub fn into_sorted(self) -> Vec<(Key, Newest)> {
        let newest = |held: Held| Newest {
            last_used_at: held.last_used_at,
            run: Some(held.run)
                .filter(|run| !run.is_empty())
                .map(String::into_boxed_str),
        };
        let mut sorted: Vec<_> = self
            .newest
            .into_iter()
            .map(|(key, held)| (key, newest(held)))
            .collect();
        sorted.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        sorted
    }
}
