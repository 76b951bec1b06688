//! Folding: of many uses of one key, only the greatest matters.

use std::collections::HashMap;

use crate::model::{Key, Newest, Time, Usage};

/// What an entry costs beside the bytes of its texts: two boxed texts, a time, the table's slack.
const ENTRY_BYTES: usize = 112;

/// Uses folded by key, in memory that the caller bounds by [`Fold::bytes`].
#[derive(Debug, Default)]
pub struct Fold {
    newest: HashMap<Key, Newest>,
    bytes: usize,
    packed: String,
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
            Some(newest) => raise(newest, usage.last_used_at, usage.run),
            None => {
                let newest = Newest {
                    last_used_at: usage.last_used_at,
                    run: usage.run.map(Into::into),
                };
                self.insert(Key::from_packed(&self.packed), newest);
            }
        }
    }

    /// Takes in what one use makes of one row.
    pub fn raise(&mut self, key: &Key, theirs: &Newest) {
        match self.newest.get_mut(key) {
            Some(newest) => raise(newest, theirs.last_used_at, theirs.run.as_deref()),
            None => self.insert(key.clone(), theirs.clone()),
        }
    }

    /// Whether it holds a use of this key.
    pub fn contains(&self, key: &Key) -> bool {
        self.newest.contains_key(key)
    }

    fn insert(&mut self, key: Key, newest: Newest) {
        self.bytes += ENTRY_BYTES + key.heap_bytes() + newest.run.as_deref().map_or(0, str::len);
        self.newest.insert(key, newest);
    }

    /// Takes in what another fold holds.
    pub fn merge(&mut self, other: Self) {
        for (key, theirs) in other.newest {
            match self.newest.get_mut(&key) {
                Some(newest) => raise(newest, theirs.last_used_at, theirs.run.as_deref()),
                None => self.insert(key, theirs),
            }
        }
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
        let mut sorted: Vec<_> = self.newest.into_iter().collect();
        sorted.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        sorted
    }
}

fn raise(newest: &mut Newest, last_used_at: Time, run: Option<&str>) {
    if newest.is_before(last_used_at, run) {
        newest.last_used_at = last_used_at;
        newest.run = run.map(Into::into);
    }
}
