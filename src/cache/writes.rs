//! Writes, as session tokens name them, and the generations behind which loads see each.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::generation::sees;

/// Processes whose news are remembered; the oldest goes. There are as many as replicas and commands of a
/// minute or two.
const MAX_ORIGINS: usize = 256;
/// Writes that were presented and are remembered: sessions of a minute or two after their writer ended.
const MAX_PRESENTED: usize = 4_096;
/// Writes of this process of which the generation is known: those of the last seconds, at full speed.
const WRITTEN: usize = 1 << 14;

/// A write as a session token names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Write {
    /// A position in the database's log behind its commit.
    pub position: u64,
    /// The process that wrote.
    pub origin: u64,
    /// Its number among the writes of that process.
    pub sequence: u64,
}

/// What another process told, and when.
#[derive(Debug, Clone, Copy)]
struct Heard {
    sequence: u64,
    /// The generation behind it.
    generation: u64,
}

/// What is known of writes.
#[derive(Debug)]
pub(super) struct Writes {
    heard: Mutex<HashMap<u64, Heard>>,
    /// The generations behind this process's last writes, by their numbers.
    written: Box<[AtomicU64]>,
    /// Writes of others that were presented by their tokens, origin and sequence, and the generation then.
    presented: Mutex<HashMap<(u64, u64), u64>>,
}

impl Default for Writes {
    fn default() -> Self {
        Self {
            heard: Mutex::default(),
            written: (0..WRITTEN).map(|_| AtomicU64::new(0)).collect(),
            presented: Mutex::default(),
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What they guard is whole between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Writes {
    /// This process wrote, and forgot what it changed before this generation.
    pub(super) fn written(&self, sequence: u64, generation: u64) {
        self.written_at(sequence)
            .store(generation, Ordering::SeqCst);
    }

    fn written_at(&self, sequence: u64) -> &AtomicU64 {
        &self.written[sequence as usize % WRITTEN]
    }

    /// Whether a load sees a write of this process, of which the newest has this number, and all that was
    /// committed before; one that is too long ago is taken for a later one.
    pub(super) fn is_own_seen(&self, began: u64, write: &Write, newest: u64) -> bool {
        let oldest = (newest + 1).saturating_sub(WRITTEN as u64);
        let at = self.written_at(write.sequence.max(oldest));
        write.sequence <= newest && sees(began, at.load(Ordering::SeqCst))
    }

    /// Whether a load sees a write of another process: it was heard of, or presented, before.
    pub(super) fn is_anothers_seen(&self, began: u64, write: &Write) -> bool {
        let is_heard = lock(&self.heard)
            .get(&write.origin)
            .is_some_and(|heard| heard.sequence >= write.sequence && sees(began, heard.generation));
        is_heard || {
            let presented = lock(&self.presented);
            let generation = presented.get(&(write.origin, write.sequence));
            generation.is_some_and(|generation| sees(began, *generation))
        }
    }

    /// Another process told of its writes up to this one, at the generation of now.
    pub(super) fn heard(&self, origin: u64, sequence: u64, now: impl FnOnce() -> u64) {
        let mut heard = lock(&self.heard);
        if heard.len() >= MAX_ORIGINS && !heard.contains_key(&origin) {
            let oldest = heard.iter().min_by_key(|(_, heard)| heard.generation);
            if let Some(oldest) = oldest.map(|(origin, _)| *origin) {
                heard.remove(&oldest);
            }
        }
        let told = heard.entry(origin).or_insert(Heard {
            sequence: 0,
            generation: 0,
        });
        if sequence > told.sequence {
            *told = Heard {
                sequence,
                generation: now(),
            };
        }
    }

    /// A write of another process was presented; what begins `from` here sees it.
    pub(super) fn presented(&self, write: &Write, from: impl FnOnce() -> u64) {
        let mut presented = lock(&self.presented);
        if presented.len() >= MAX_PRESENTED {
            presented.clear();
        }
        let write = (write.origin, write.sequence);
        presented.entry(write).or_insert_with(from);
    }

    pub(super) fn unhear(&self) {
        lock(&self.heard).clear();
        lock(&self.presented).clear();
    }
}

#[cfg(test)]
mod tests {
    use super::super::invalidation::{Changed, Changes, Reason};
    use super::super::news::News;
    use super::*;
    use crate::model::Id;

    fn id(text: &str) -> Id {
        Id::new(text).unwrap()
    }

    #[test]
    fn a_write_that_was_presented_is_seen_by_what_begins_behind_and_no_other_write_is() {
        let changes = Changes::default();
        let write = |sequence| Write {
            position: u64::MAX,
            origin: changes.origin + 1,
            sequence,
        };
        let before = changes.generations.now();
        changes.presented(&write(7));
        changes.presented(&write(7));
        let behind = changes.generations.now();
        let sees = |began, sequence| changes.sees(began, &write(sequence));
        assert!(!sees(before, 7), "it may have been read before the write");
        assert!(sees(behind, 7));
        assert!(
            !sees(behind, 8) && !sees(behind, 6),
            "made-up tokens say nothing of others"
        );
        changes.unhear();
        assert!(!sees(behind, 7), "of another database");
    }

    #[test]
    fn a_load_sees_another_processs_write_only_when_it_began_behind_the_news_of_it() {
        let (a, b) = (Changes::default(), Changes::default());
        let sequence = a.commit(&Changed::List(id("5"), None), Reason::Write);
        let write = Write {
            position: 7,
            origin: a.origin,
            sequence,
        };
        let early = b.generations.now();
        assert!(!b.sees(early, &write), "nothing was heard");
        b.hear(a.origin, 7, &a.take_news().unwrap());
        assert!(!b.sees(early, &write), "it began before");
        assert!(b.sees(b.generations.now(), &write));
        let next = Write {
            sequence: a.commit(&Changed::Everything, Reason::Admin),
            ..write
        };
        assert!(!b.sees(b.generations.now(), &next), "not heard yet");
        b.hear(a.origin + 1, 8, &News::default());
        assert!(!b.sees(b.generations.now(), &next), "news of another one");
        b.unhear();
        assert!(!b.sees(b.generations.now(), &write));
    }

    #[test]
    fn a_load_sees_an_own_write_and_what_others_did_before_only_when_it_began_behind_it() {
        let changes = Changes::default();
        let own = |sequence| Write {
            position: u64::MAX,
            origin: changes.origin,
            sequence,
        };
        let early = changes.generations.now();
        // What another process wrote before, to whatever list, may not be heard of yet.
        let first = changes.commit(&Changed::List(id("5"), None), Reason::Write);
        let between = changes.generations.now();
        let second = changes.commit(&Changed::List(id("6"), None), Reason::Write);
        let behind = changes.generations.now();
        assert!(!changes.sees(early, &own(first)) && changes.sees(between, &own(first)));
        assert!(!changes.sees(between, &own(second)) && changes.sees(behind, &own(second)));
        assert!(!changes.sees(behind, &own(second + 1)), "made up");
        changes.pass();
        let passed = changes.sequence();
        assert!(!changes.sees(behind, &own(passed)));
        assert!(changes.sees(changes.generations.now(), &own(passed)));
        for _ in 0..WRITTEN {
            changes.pass();
        }
        assert!(
            !changes.sees(behind, &own(first)),
            "too long ago to be told from a later one"
        );
        assert!(changes.sees(changes.generations.now(), &own(first)));
    }
}
