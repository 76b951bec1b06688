//! Whether the database is out of reach, so that not every reader has to find out by waiting for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::store::Store;

/// What the last read of the database came to.
#[derive(Debug, Clone, Default)]
pub(super) struct Away(Arc<State>);

#[derive(Debug, Default)]
struct State {
    is_away: AtomicBool,
    is_asked: AtomicBool,
}

impl Away {
    /// Whether it was out of reach, and nothing was heard of it since.
    pub(super) fn is_so(&self) -> bool {
        self.0.is_away.load(Ordering::Relaxed)
    }

    /// A read ended so.
    pub(super) fn set(&self, is_away: bool) {
        // Mostly it is so already, and a line that all cores share stays as it is.
        if self.is_so() != is_away {
            self.0.is_away.store(is_away, Ordering::Relaxed);
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
            let answered = store.ping().await.is_ok();
            away.set(!answered);
            away.0.is_asked.store(false, Ordering::Release);
        });
    }
}
