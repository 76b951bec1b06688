//! What failed is left alone for a moment, so that not every request waits for it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long.
const LEAVE_ALONE: Duration = Duration::from_secs(1);

/// Until when something is left alone.
#[derive(Debug)]
pub(super) struct Rest {
    started: Instant,
    /// Milliseconds behind the start.
    until: AtomicU64,
}

impl Rest {
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            until: AtomicU64::new(0),
        }
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether it may be asked.
    pub(super) fn is_over(&self) -> bool {
        self.millis() >= self.until.load(Ordering::Relaxed)
    }

    /// It failed now.
    pub(super) fn begin(&self) {
        let until = self.millis() + LEAVE_ALONE.as_millis() as u64;
        self.until.store(until, Ordering::Relaxed);
    }
}
