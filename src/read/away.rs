//! Whether the database is out of reach, so that not every reader has to find out by waiting for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::cache::Changes;
use crate::store::Store;

/// What the last read of the database came to.
#[derive(Debug, Clone, Default)]
pub(super) struct Away(Arc<State>);

#[derive(Debug, Default)]
struct State {
    is_away: AtomicBool,
    /// The number of this process's newest write then.
    written: AtomicU64,
    is_asked: AtomicBool,
}

impl Away {
    /// Whether it was out of reach, and nothing was heard of it since: neither an answer nor that this process
    /// wrote something.
    pub(super) fn is_so(&self, changes: &Changes) -> bool {
        self.0.is_away.load(Ordering::Relaxed)
            && self.0.written.load(Ordering::Relaxed) == changes.sequence()
    }

    /// A read found it out of reach.
    pub(super) fn gone(&self, changes: &Changes) {
        self.0.written.store(changes.sequence(), Ordering::Relaxed);
        self.0.is_away.store(true, Ordering::Relaxed);
    }

    /// It answered.
    pub(super) fn back(&self) {
        // Mostly it did before, and a line that all cores share stays as it is.
        if self.0.is_away.load(Ordering::Relaxed) {
            self.0.is_away.store(false, Ordering::Relaxed);
        }
    }

    /// Has somebody ask the database whether it is back; one at a time, who waits for as long as any
    /// reader would.
    pub(super) fn ask(&self, store: &Store) {
        if self.0.is_asked.swap(true, Ordering::AcqRel) {
            return;
        }
        let (away, store) = (self.clone(), store.clone());
        tokio::spawn(async move {
            if store.ping().await.is_ok() {
                away.back();
            }
            away.0.is_asked.store(false, Ordering::Release);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{Changed, Reason};

    #[test]
    fn a_write_of_this_process_says_that_it_is_back() {
        let (away, changes) = (Away::default(), Changes::default());
        assert!(!away.is_so(&changes));
        away.gone(&changes);
        assert!(away.is_so(&changes));
        changes.commit(&Changed::Everything, Reason::Write);
        assert!(!away.is_so(&changes));
        away.gone(&changes);
        assert!(away.is_so(&changes));
        away.back();
        assert!(!away.is_so(&changes));
    }
}
