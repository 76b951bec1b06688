//! Step 3 of the drain: what it saw in the history becomes rows and new notes.

use std::collections::HashMap;

use super::decide::{Change, LookAgain, is_unsupported};
use crate::check::look::Uses;
use crate::model::{Key, Newest};
use crate::record::Fold;
use crate::store::recent::{self, MAX_KEYS, Swap};
use crate::store::{Conn, Store, StoreError, Tx, note, with_retries};

/// What a drain looked at, and what it saw.
pub(super) struct Looked {
    /// Runs that were noted,
    pub(super) runs: Vec<String>,
    /// and what they say.
    pub(super) said: Uses,
    /// Rows that were noted, as they were before the history was read,
    pub(super) seen: HashMap<Key, Newest>,
    /// and what each of them should be; without those that could not be computed.
    pub(super) best: HashMap<Key, Option<Newest>>,
}

impl Looked {
    /// Writes what follows of it, lets the notes `ids` go, and returns the rows that were raised.
    ///
    /// `holding` is the transaction that locks these notes, where there is one: what fits into one
    /// statement is written and let go in it.
    ///
    /// # Errors
    /// [`StoreError`]; the notes stay.
    pub(super) async fn write(
        self,
        store: &Store,
        holding: Option<Tx>,
        ids: &[i64],
    ) -> Result<Vec<Key>, StoreError> {
        let mut fold = Fold::default();
        self.said
            .uses()
            .for_each(|(key, newest)| fold.raise(key, newest));
        if self.best.is_empty() && fold.len() <= MAX_KEYS {
            return self.write_at_once(store, holding, ids, fold).await;
        }
        for (key, newest) in with_retries(|| self.settle(store)).await? {
            fold.raise(&key, &newest);
        }
        let mut raised = Vec::new();
        for chunk in fold.into_sorted().chunks(MAX_KEYS) {
            raised.extend(with_retries(|| raise(store, chunk)).await?);
        }
        let_go(store, holding, ids).await?;
        Ok(raised)
    }

    async fn write_at_once(
        &self,
        store: &Store,
        mut holding: Option<Tx>,
        ids: &[i64],
        fold: Fold,
    ) -> Result<Vec<Key>, StoreError> {
        let again = match &mut holding {
            Some(tx) => self.unsupported(tx.conn()).await?,
            None => self.unsupported(store.acquire().await?.conn()).await?,
        };
        let uses = fold.into_sorted();
        if let Some(mut tx) = holding {
            let written = async {
                let raised = raise_and_note(&mut tx, &uses, &again).await?;
                note::let_go(tx.conn(), ids).await?;
                tx.commit().await?;
                Ok::<_, StoreError>(raised)
            };
            match written.await {
                // Its locks are gone with it, and others may do the same now, which only costs.
                Err(StoreError::Conflict(_)) => {}
                written => return written,
            }
        }
        if uses.is_empty() && again.is_empty() {
            return let_go(store, None, ids).await.map(|()| Vec::new());
        }
        let written = with_retries(async || {
            let mut tx = store.begin().await?;
            let raised = raise_and_note(&mut tx, &uses, &again).await?;
            tx.commit().await?;
            Ok(raised)
        });
        let raised = written.await?;
        // Apart: whoever has these notes locked may be waiting for the rows.
        let_go(store, None, ids).await?;
        Ok(raised)
    }

    /// Rows that name one of the runs and are not what it says.
    async fn unsupported(&self, conn: Conn<'_>) -> Result<Vec<Key>, StoreError> {
        if self.runs.is_empty() {
            return Ok(Vec::new());
        }
        let rows = recent::rows_of_runs(conn, self.runs.iter().map(String::as_str)).await?;
        let unsupported = rows.into_iter().filter(|(key, newest)| {
            let run = newest.run.as_deref().unwrap_or_default();
            is_unsupported(&(key, newest), self.said.of(run))
        });
        Ok(unsupported.map(|(key, _)| key).collect())
    }

    /// Lowers and removes rows that were computed again, and notes what must be looked at again, in
    /// one transaction and one pass over the rows. Returns what is to be raised.
    ///
    /// A row that rose since it was `seen` may know a use that the history did not have yet: it is
    /// noted again instead of going down for a moment.
    async fn settle(&self, store: &Store) -> Result<Vec<(Key, Newest)>, StoreError> {
        let mut tx = store.begin().await?;
        let mut again = self.unsupported(tx.conn()).await?;
        let (mut raise, mut lower, mut remove) = (Vec::new(), Vec::new(), Vec::new());
        let mut keys: Vec<&Key> = self.best.keys().collect();
        keys.sort_unstable();
        let rows = match keys.is_empty() {
            true => Vec::new(),
            false => recent::lock_rows(tx.conn(), keys.iter().copied()).await?,
        };
        let mut rows: HashMap<Key, Newest> = rows.into_iter().collect();
        for key in keys {
            let (row, best) = (rows.remove(key), self.best.get(key).cloned().flatten());
            let change = Change::of(row.as_ref(), best.as_ref());
            if change.note() == LookAgain::Row {
                again.push(key.clone());
                if row.as_ref() != self.seen.get(key) {
                    continue;
                }
            }
            match (change, row, best) {
                (Change::Raise, _, Some(best)) => raise.push((key.clone(), best)),
                (Change::Lower, Some(seen), Some(becomes)) => lower.push(Swap {
                    key: key.clone(),
                    seen,
                    becomes,
                }),
                (Change::Remove, Some(row), _) => remove.push((key.clone(), row)),
                _ => {}
            }
        }
        if !lower.is_empty() {
            recent::lower(tx.conn(), &lower).await?;
        }
        if !remove.is_empty() {
            recent::remove(tx.conn(), &remove).await?;
        }
        note::keys(tx.conn(), &again).await?;
        tx.commit().await?;
        Ok(raise)
    }
}

async fn raise(store: &Store, uses: &[(Key, Newest)]) -> Result<Vec<Key>, StoreError> {
    let mut tx = store.begin().await?;
    let raised = note::raise(&mut tx, uses).await?;
    tx.commit().await?;
    Ok(raised)
}

async fn raise_and_note(
    tx: &mut Tx,
    uses: &[(Key, Newest)],
    again: &[Key],
) -> Result<Vec<Key>, StoreError> {
    note::keys(tx.conn(), again).await?;
    match uses.is_empty() {
        true => Ok(Vec::new()),
        false => note::raise(tx, uses).await,
    }
}

/// Lets notes go whose work is committed.
async fn let_go(store: &Store, holding: Option<Tx>, ids: &[i64]) -> Result<(), StoreError> {
    match holding {
        Some(mut tx) => {
            note::let_go(tx.conn(), ids).await?;
            tx.commit().await
        }
        None if ids.is_empty() => Ok(()),
        None => with_retries(async || note::let_go(store.acquire().await?.conn(), ids).await).await,
    }
}
