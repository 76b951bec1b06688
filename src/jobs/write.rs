//! Writing uses under a job.

use std::collections::HashMap;

use crate::model::{Changes, Key, Newest};
use crate::record::Fold;
use crate::store::job::Fence;
use crate::store::note;
use crate::store::recent::{self, MAX_KEYS};
use crate::store::{Store, StoreError, with_retries};

/// Where uses are written.
#[derive(Clone, Copy)]
pub(super) struct To<'a> {
    pub(super) store: &'a Store,
    /// Whether a note goes with every row that changes.
    pub(super) noting: bool,
}

/// Raises rows to these uses; returns what changed, of which `of_workspaces` are rows of the workspaces'
/// own lists. What was raised so far is told behind each of them.
///
/// Each transaction is fenced, and short, because the hook waits for its locks.
pub(super) async fn raise(
    to: To<'_>,
    fence: &Fence,
    uses: Fold,
    mut tell: impl FnMut(&Raised),
) -> Result<Raised, StoreError> {
    let mut raised = Raised::default();
    for chunk in uses.into_sorted().chunks(MAX_KEYS) {
        let more = with_retries(|| raise_chunk(to, fence, chunk)).await?;
        raised.changes.add(more.changes);
        raised.of_workspaces += more.of_workspaces;
        tell(&raised);
    }
    Ok(raised)
}

/// What was raised.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Raised {
    pub(super) changes: Changes,
    /// Of them, rows of the workspaces' own lists.
    pub(super) of_workspaces: u64,
}

async fn raise_chunk(
    to: To<'_>,
    fence: &Fence,
    uses: &[(Key, Newest)],
) -> Result<Raised, StoreError> {
    let rows = recent::rows_of_keys(to.store, uses.iter().map(|(key, _)| key)).await?;
    let rows: HashMap<Key, Newest> = rows.into_iter().collect();
    let news: Vec<_> = uses
        .iter()
        .filter(|(key, newest)| rows.get(key) < Some(newest))
        .cloned()
        .collect();
    let mut raised = Raised::default();
    if news.is_empty() {
        return Ok(raised);
    }
    let mut tx = to.store.begin().await?;
    fence.check(&mut tx).await?;
    let keys = match to.noting {
        true => note::raise(&mut tx, &news).await?,
        false => recent::raise(&mut tx, &news).await?,
    };
    tx.commit().await?;
    for key in &keys {
        match rows.contains_key(key) {
            true => raised.changes.raised += 1,
            false => raised.changes.added += 1,
        }
        raised.of_workspaces += u64::from(key.is_workspace_list());
    }
    Ok(raised)
}
