//! Others at work in the history's database. A mapping query locks the tables that it reads one after the
//! other, and waits for one of them while an application changes it, with the locks on those before.

use std::time::{Duration, Instant};

use super::HistoryError;
use crate::store::sqlstate::{self, DEADLOCK_DETECTED, LOCK_NOT_AVAILABLE, SERIALIZATION_FAILURE};

/// How long a statement waits for a lock at a time: less than the second after which PostgreSQL looks for deadlocks,
/// also where it waits for several one after the other, so that it is not an application's transaction that has to
/// give way.
pub(crate) const LOCK_TIMEOUT: Duration = Duration::from_millis(250);
/// Sets that for a transaction, or less where PostgreSQL looks for deadlocks sooner than behind a second.
pub(super) fn set_lock_timeout() -> String {
    format!(
        "select set_config('lock_timeout', greatest(1, least(1, extract(epoch from
           current_setting('deadlock_timeout')::interval)) * {})::int::text, true)",
        LOCK_TIMEOUT.as_millis()
    )
}

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

    /// Whether to try again, behind a [`pause`], what failed like this.
    pub(super) fn tries_again(&self, error: &HistoryError) -> bool {
        let is_of_others = matches!(error, HistoryError::Database(error) if is_conflict(error));
        is_of_others && Instant::now() < self.until
    }
}

/// Asks, and asks again what others kept from being read, for as long as it lasts.
pub(super) async fn patiently<T, F>(
    lasts: Duration,
    mut ask: impl FnMut() -> F,
) -> Result<T, HistoryError>
where
    F: Future<Output = Result<T, HistoryError>>,
{
    let patience = Patience::of(lasts);
    loop {
        match ask().await {
            Err(error) if patience.tries_again(&error) => pause().await,
            answer => return answer,
        }
    }
}

/// Lets others go first.
pub(super) async fn pause() {
    tokio::time::sleep(BETWEEN_TRIES).await;
}
