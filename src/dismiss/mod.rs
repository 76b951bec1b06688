//! Dismissal: what a user removed stays removed, until it is used again.

pub mod sweep;
mod sweeps;

use std::time::Duration;

use crate::model::{Key, Time};
use crate::store::dismissal::{self, Dismissed};
use crate::store::sweep::sweep_item;
use crate::store::{Store, StoreError, with_retries};

pub use sweeps::{Room, Sweeps};

/// A statement takes milliseconds; a database that says nothing for so long is gone.
const TIMEOUT: Duration = Duration::from_secs(10);
/// What is hidden is dismissed, swept or not: nobody waits for long for the sweep of it.
const SWEEP_TIMEOUT: Duration = Duration::from_secs(1);

/// Hides what was used until `now`, and what the list holds. A published run that was deleted is hidden
/// in every list, also from uses that the hook may still take: those up to `skew` ahead.
///
/// # Errors
/// [`StoreError`]; the same may be asked again, doing so changes nothing twice.
pub async fn dismiss(
    store: &Store,
    what: &Dismissed,
    now: Time,
    skew: Duration,
) -> Result<(), StoreError> {
    let until = match what {
        Dismissed::Everywhere(_) => now.saturating_add(skew),
        _ => now,
    };
    let dismiss = with_retries(|| dismissal::dismiss(store, what, until));
    let timed = tokio::time::timeout(TIMEOUT, dismiss).await;
    timed.unwrap_or(Err(StoreError::Unavailable(sqlx::Error::PoolTimedOut)))?;
    if let Dismissed::Item(scope, published_run) = what {
        let key = Key::of_item(scope, published_run);
        // What fails here is the next sweep's.
        let swept = tokio::time::timeout(SWEEP_TIMEOUT, sweep_item(store, &key)).await;
        tracing::debug!(?swept, "dismissed an item");
    }
    Ok(())
}
