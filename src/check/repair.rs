//! Repair: rows that differ are computed again from the history.

use std::collections::HashMap;

use super::{CheckError, look};
use crate::history::History;
use crate::model::{Key, Newest};
use crate::store::recent::{self, MAX_KEYS, RecentRow, Swap};
use crate::store::{Store, StoreError, with_retries};

/// Rounds over rows that go on changing under the repair; what is left then is reported by the next
/// verify.
const ROUNDS: usize = 5;

/// Makes the rows of these keys what the history says.
///
/// Each write is a fact only if nothing changed meanwhile: a row is lowered or removed only while it
/// is as it was seen, and every key that was written is computed once more after the commit, so that
/// a use which arrived in between, and was outdone by the row that was about to go, is not lost.
pub(super) async fn repair(
    store: &Store,
    history: &History,
    mut keys: Vec<Key>,
) -> Result<(), CheckError> {
    for _ in 0..ROUNDS {
        keys.sort_unstable();
        keys.dedup();
        if keys.is_empty() {
            return Ok(());
        }
        // First the rows, then the history: what was recorded before the rows were read is in the
        // history by now, and what is recorded later changes its row, which is then left alone.
        let mut rows = HashMap::new();
        for chunk in keys.chunks(MAX_KEYS) {
            rows.extend(with_retries(|| recent::rows_of_keys(store, chunk.iter())).await?);
        }
        let mut best = look::at_keys(history, keys.iter()).await?;
        let mut written = Vec::new();
        for chunk in keys.chunks(MAX_KEYS) {
            let changes = Changes::between(chunk, |key| (best.remove(key), rows.remove(key)));
            changes.write(store).await?;
            written.extend(changes.keys());
        }
        keys = written;
    }
    Ok(())
}

#[derive(Default)]
struct Changes {
    raise: Vec<(Key, Newest)>,
    lower: Vec<Swap>,
    remove: Vec<RecentRow>,
}

impl Changes {
    fn between(
        keys: &[Key],
        mut best_and_row: impl FnMut(&Key) -> (Option<Newest>, Option<Newest>),
    ) -> Self {
        let mut changes = Self::default();
        for key in keys {
            match best_and_row(key) {
                (Some(best), Some(row)) if best < row => {
                    changes.lower.push(Swap {
                        key: key.clone(),
                        seen: row,
                        becomes: best,
                    });
                }
                (Some(best), Some(row)) if best == row => {}
                (Some(best), _) => changes.raise.push((key.clone(), best)),
                (None, Some(row)) => changes.remove.push((key.clone(), row)),
                (None, None) => {}
            }
        }
        changes
    }

    async fn write(&self, store: &Store) -> Result<(), StoreError> {
        if !self.raise.is_empty() {
            raise(store, &self.raise).await?;
        }
        if !self.lower.is_empty() {
            with_retries(|| recent::lower(store, &self.lower)).await?;
        }
        if !self.remove.is_empty() {
            with_retries(|| recent::remove(store, &self.remove)).await?;
        }
        Ok(())
    }

    fn keys(&self) -> impl Iterator<Item = Key> {
        let raised = self.raise.iter().map(|(key, _)| key);
        let lowered = self.lower.iter().map(|swap| &swap.key);
        raised
            .chain(lowered)
            .chain(self.remove.iter().map(|(key, _)| key))
            .cloned()
    }
}

/// Raises rows to these uses, sorted by key, at most [`MAX_KEYS`].
async fn raise(store: &Store, uses: &[(Key, Newest)]) -> Result<(), StoreError> {
    let raise = || async { recent::raise(store.acquire().await?.conn(), uses).await };
    with_retries(raise).await.map(drop)
}
