//! Dismissal: what a user removed stays removed, until it is used again.

pub mod sweep;

use std::time::Duration;

use crate::model::{Key, Time};
use crate::store::dismissal::{self, Dismissed};
use crate::store::{Store, StoreError, with_retries};

/// A statement takes milliseconds; a database that says nothing for so long is gone.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Hides what was used until `now`, and what is there. A published run that was deleted is hidden in
/// every list, also from uses that the hook may still take: those up to `skew` ahead.
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
        let key = Key::new(
            scope.workspace.as_str(),
            scope.uid_column(),
            published_run.as_str(),
        );
        // It is hidden already: what fails here is the next sweep's.
        if let Err(error) = dismissal::sweep(store, std::iter::once(&key)).await {
            tracing::debug!(error = &error as &dyn std::error::Error, "not swept yet");
        }
    }
    Ok(())
}
