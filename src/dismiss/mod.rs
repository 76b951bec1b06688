//! Dismissal: what a user removed stays removed, until it is used again.

pub mod sweep;
mod sweeps;

use std::time::Duration;

use crate::history::{History, HistoryError};
use crate::model::{Key, Newest, Time};
use crate::store::dismissal::{self, Dismissed};
use crate::store::sweep::sweep_item;
use crate::store::{Store, StoreError, with_retries};

pub use sweeps::{Room, Sweeps};

/// A statement takes milliseconds; a database that says nothing for so long is gone.
const TIMEOUT: Duration = Duration::from_secs(10);
/// What is hidden is dismissed, swept or not: nobody waits for long for the sweep of it.
const SWEEP_TIMEOUT: Duration = Duration::from_secs(1);

/// Hides what was used until `now`, and what the list holds, also where that is dated later. A published
/// run that was deleted is hidden in every list, also from uses that the hook may still take: those up to
/// `skew` ahead. Where lists are read from the history, `ahead` is what that has besides.
///
/// # Errors
/// [`StoreError`]; the same may be asked again, doing so changes nothing twice.
pub async fn dismiss(
    store: &Store,
    what: &Dismissed,
    now: Time,
    skew: Duration,
    ahead: &[(Key, Newest)],
) -> Result<(), StoreError> {
    let until = match what {
        Dismissed::Everywhere(_) => now.saturating_add(skew),
        _ => now,
    };
    let dismiss = with_retries(|| dismissal::dismiss(store, what, until, ahead));
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

/// What a history says of a list, or of one item of it, that is dated later than `now`. A published run is
/// not looked for in every list.
///
/// # Errors
/// [`HistoryError`].
pub(crate) async fn ahead(
    history: &History,
    what: &Dismissed,
    now: Time,
) -> Result<Vec<(Key, Newest)>, HistoryError> {
    let (scope, item) = match what {
        Dismissed::List(scope) => (scope, None),
        Dismissed::Item(scope, item) => (scope, Some(item)),
        Dismissed::Everywhere(_) => return Ok(Vec::new()),
    };
    let mut uses = history.newest(&[scope]).await?;
    uses.retain(|(key, newest)| {
        let is_it = item.is_none_or(|item| key.parts().2 == item.as_str());
        is_it && newest.last_used_at > now
    });
    uses.sort_unstable();
    Ok(uses)
}
