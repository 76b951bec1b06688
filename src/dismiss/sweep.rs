//! Sweeping: rows that stay hidden are deleted, and watermarks that hide nothing more.

use std::time::Duration;

use crate::model::{Key, Scope};
use crate::store::recent::MAX_KEYS;
use crate::store::sweep::{self, Part};
use crate::store::{Store, StoreError, dismissal, with_retries};

/// Rows that are looked at together, and a pause between, so that a large table is no load. Of one list,
/// which is seldom long, fewer.
const ROWS: u32 = 10_000;
const ROWS_OF_LIST: u32 = 500;
const PAUSE: Duration = Duration::from_millis(20);

/// Deletes every row that is hidden; returns how many.
///
/// # Errors
/// [`StoreError`]; what was deleted until then stays deleted.
pub async fn everything(store: &Store) -> Result<u64, StoreError> {
    if !dismissal::any(store).await? {
        return Ok(0);
    }
    let (mut swept, mut next) = (0, Some(Key::new("", "", "")));
    while let Some(after) = next {
        let part = with_retries(|| sweep::hidden_after(store, &after, ROWS)).await?;
        swept += keys(store, &part.keys).await?;
        next = part.last;
        tokio::time::sleep(PAUSE).await;
    }
    Ok(swept)
}

/// Deletes the rows of a list that are hidden; returns how many.
///
/// # Errors
/// As [`everything`].
pub async fn list(store: &Store, scope: &Scope) -> Result<u64, StoreError> {
    let is_of_list = |key: &Key| {
        let (workspace, uid, _) = key.parts();
        (workspace, uid) == (scope.workspace.as_str(), scope.uid_column())
    };
    let before_all = Key::new(scope.workspace.as_str(), scope.uid_column(), "");
    let (mut swept, mut next) = (0, Some(before_all));
    while let Some(after) = next {
        let part = with_retries(|| sweep::hidden_after(store, &after, ROWS_OF_LIST)).await?;
        let Part {
            keys: mut hidden,
            last,
        } = part;
        hidden.retain(is_of_list);
        swept += keys(store, &hidden).await?;
        next = last.filter(is_of_list);
    }
    Ok(swept)
}

/// Deletes those rows of these keys, which are sorted, that are hidden; returns how many.
///
/// # Errors
/// As [`everything`].
pub(super) async fn keys(store: &Store, keys: &[Key]) -> Result<u64, StoreError> {
    let mut swept = 0;
    for chunk in keys.chunks(MAX_KEYS) {
        swept +=
            with_retries(async || sweep::sweep(store.acquire().await?.conn(), chunk.iter()).await)
                .await?;
    }
    Ok(swept)
}

/// Deletes watermarks that hide nothing that another one does not; returns how many.
///
/// # Errors
/// As [`everything`].
pub async fn watermarks(store: &Store) -> Result<u64, StoreError> {
    let (mut pruned, mut next) = (0, Some(Key::new("", "", "")));
    while let Some(after) = next {
        let part = with_retries(|| sweep::needless_after(store, &after, ROWS)).await?;
        for chunk in part.keys.chunks(MAX_KEYS) {
            pruned += with_retries(async || {
                sweep::prune(store.acquire().await?.conn(), chunk.iter()).await
            })
            .await?;
        }
        next = part.last;
        tokio::time::sleep(PAUSE).await;
    }
    Ok(pruned)
}
