//! Others at work in the history's database. A mapping query locks the tables that it reads one after the
//! other, and waits for one of them while an application changes it, with the locks on those before.

use std::time::{Duration, Instant};

use super::HistoryError;
use crate::store::sqlstate::{self, DEADLOCK_DETECTED, LOCK_NOT_AVAILABLE, SERIALIZATION_FAILURE};

/// How long a statement waits for a lock at a time: less than the second after which PostgreSQL looks for
/// deadlocks, so that it is never an application's transaction that has to give way.
pub(crate) const LOCK_TIMEOUT: Duration = Duration::from_millis(500);
/// Whoever waits for our locks has had them by then.
const BETWEEN_TRIES: Duration = Duration::from_millis(100);

/// Whether others are why a statement failed, and not what it says.
pub(super) fn is_conflict(error: &sqlx::Error) -> bool {
    let codes = [DEADLOCK_DETECTED, LOCK_NOT_AVAILABLE, SERIALIZATION_FAILURE];
    codes.iter().any(|code| sqlstate::is(error, code))
}

/// Tries again what others kept from being read, for as long as it lasts.
#[derive(Debug)]
pub(super) struct Patience {
    until: Instant,
}

impl Patience {
    pub(super) fn of(lasts: Duration) -> Self {
        Self {
            until: Instant::now() + lasts,
        }
    }

    /// Whether to try again, a moment after it failed like this; no row may have been taken.
    pub(super) async fn tries_again(&self, error: &HistoryError) -> bool {
        match error {
            HistoryError::Database(error) if is_conflict(error) && Instant::now() < self.until => {
                tokio::time::sleep(BETWEEN_TRIES).await;
                true
            }
            _ => false,
        }
    }
}
