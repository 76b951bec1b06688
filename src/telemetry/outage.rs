//! An outage fails every request; the log says why, not each time.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::chain;
use crate::store::StoreError;

/// The same cause is said again after this, so that what is read of a log has it.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// Why the database was last said to be out of reach, and when.
#[derive(Debug, Default)]
pub(crate) struct Outage(Mutex<Option<(String, Instant)>>);

impl Outage {
    /// Whether a failure is to be said: each that is not one of many of an outage. A statement that took too
    /// long is its own affair.
    pub(crate) fn is_news(&self, error: &StoreError) -> bool {
        if !matches!(error, StoreError::Unavailable(_)) || error.is_statement_timeout() {
            return true;
        }
        let cause = chain(error);
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = said.as_ref();
        if known.is_some_and(|(said, at)| *said == cause && at.elapsed() < SAY_AGAIN) {
            return false;
        }
        *said = Some((cause, Instant::now()));
        true
    }
}
