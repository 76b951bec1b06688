//! Sweeping: rows that stay hidden, and watermarks that hide nothing more, are deleted.
//!
//! Neither brings an item back. A row goes only while it is hidden, and whatever it outdid is older and
//! hidden too. A watermark goes only where another one, which stays, hides as much.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::model::Key;
use crate::store::recent::{self, MAX_KEYS};
use crate::store::{Store, StoreError, dismissal, with_retries};

/// How often everything is swept: what is dismissed one by one is swept at once, so that little is left.
const SWEEP_EVERY: Duration = Duration::from_secs(3600);
/// After a published run was dismissed from every list: often several are.
const SWEEP_AFTER: Duration = Duration::from_secs(1);
/// Rows that are looked at together, and a pause between, so that a large table is no load.
const ROWS: u32 = 10_000;
const PAUSE: Duration = Duration::from_millis(20);

/// Sweeps from time to time, and soon after it was asked to. Ends with the service.
pub async fn run(store: Store, asked: Arc<Notify>) {
    loop {
        if tokio::time::timeout(SWEEP_EVERY, asked.notified())
            .await
            .is_ok()
        {
            tokio::time::sleep(SWEEP_AFTER).await;
        }
        match everything(&store).await {
            Ok(rows) => tracing::debug!(rows, "swept what stays hidden"),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(
                    error,
                    "could not sweep what stays hidden; trying again later"
                );
            }
        }
    }
}

/// Deletes every row that is hidden; returns how many.
///
/// # Errors
/// [`StoreError`]; what was deleted until then stays deleted.
pub async fn everything(store: &Store) -> Result<u64, StoreError> {
    with_retries(|| dismissal::prune(store)).await?;
    if !dismissal::any(store).await? {
        return Ok(0);
    }
    let (mut swept, mut after) = (0, None::<Key>);
    loop {
        let rows = with_retries(|| recent::rows_after(store, None, after.as_ref(), ROWS)).await?;
        let keys: Vec<Key> = rows.into_iter().map(|(key, _)| key).collect();
        let Some(last) = keys.last() else {
            return Ok(swept);
        };
        after = Some(last.clone());
        for chunk in keys.chunks(MAX_KEYS) {
            swept += with_retries(|| dismissal::sweep(store, chunk.iter())).await?;
        }
        tokio::time::sleep(PAUSE).await;
    }
}
