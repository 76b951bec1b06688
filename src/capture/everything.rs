//! Every row has to be looked at again: the history was truncated.

use crate::model::Key;
use crate::store::recent;
use crate::store::{Store, StoreError, note, with_retries};

/// Rows that are noted together: some ten milliseconds, however large the table is. The next ones follow
/// when few notes are left to take, so that they do not pile up.
const ROWS: u32 = 4_000;

/// A walk through the table that notes its rows. One that is broken off begins anew: the notes that asked
/// for it stay until it is over.
#[derive(Debug)]
pub(super) struct Everything {
    /// Those notes, of the outbox. One that came later wants a walk of its own: rows that were noted before
    /// it may have been looked at before it.
    pub(super) ids: Vec<i64>,
    behind: Option<Key>,
}

impl Everything {
    /// At the start, behind the taking of these notes.
    pub(super) fn asked_by(ids: Vec<i64>) -> Self {
        Self { ids, behind: None }
    }

    /// Notes the next rows; returns whether all are noted. What is written meanwhile is noted by its writer.
    pub(super) async fn note_more(&mut self, store: &Store) -> Result<bool, StoreError> {
        let after = self.behind.as_ref();
        let rows = with_retries(|| recent::rows_after(store, None, after, ROWS)).await?;
        with_retries(async || {
            let mut tx = store.begin().await?;
            note::rows(&mut tx, rows.iter()).await?;
            tx.commit().await
        })
        .await?;
        let all = rows.len() < ROWS as usize;
        if let Some((last, _)) = rows.into_iter().next_back() {
            self.behind = Some(last);
        }
        Ok(all)
    }
}
