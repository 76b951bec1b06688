//! Step 3 of the drain: what was seen in the history becomes rows and new notes.

use std::collections::HashMap;

use super::apply::Apply;
use super::decide::{Change, LookAgain, is_unsupported};
use crate::check::look::Uses;
use crate::model::{Changes, Key, Newest};
use crate::record::Fold;
use crate::store::recent::{self, MAX_KEYS, RecentRow, Swap};
use crate::store::{StoreError, Tx, note, sweep, with_retries};

/// Notes that were taken.
#[derive(Default)]
pub(crate) struct Held {
    /// The transaction that locks them, where there is one.
    pub(super) tx: Option<Tx>,
    pub(super) ids: Vec<i64>,
}

/// What was looked at, and what was seen.
pub(super) struct Looked {
    /// Runs,
    pub(super) runs: Vec<String>,
    /// and what they say.
    pub(super) said: Uses,
    /// Rows, as they were before the history was read,
    pub(super) seen: HashMap<Key, Newest>,
    /// and what each of them should be; without those that could not be computed.
    pub(super) best: HashMap<Key, Option<Newest>>,
}

/// What was written.
#[derive(Default)]
pub(super) struct Written {
    /// What became of the rows that were looked at.
    pub(super) changes: Changes,
    /// Rows of workspaces' lists that rose, by whatever.
    pub(super) raised_lists: u64,
}

/// What became of the rows of some keys.
#[derive(Default)]
struct Settled {
    /// They went down, or went.
    changes: Changes,
    /// To be raised; and whether there was a row.
    raise: Vec<(Key, Newest, bool)>,
}

impl Apply<'_> {
    /// Writes what follows, and lets the notes go that led to it.
    pub(super) async fn write(&self, looked: Looked, notes: Held) -> Result<Written, StoreError> {
        let mut fold = Fold::default();
        looked
            .said
            .uses()
            .for_each(|(key, newest)| fold.raise(key, newest));
        if looked.best.is_empty() && fold.len() <= MAX_KEYS && looked.runs.len() <= MAX_KEYS {
            return self.write_at_once(&looked, fold.into_sorted(), notes).await;
        }
        let settled = self.settle(&looked).await?;
        let mut computed = HashMap::new();
        for (key, newest, there) in &settled.raise {
            fold.raise(key, newest);
            computed.insert(key, *there);
        }
        let mut written = Written {
            changes: settled.changes,
            raised_lists: 0,
        };
        for chunk in fold.into_sorted().chunks(MAX_KEYS) {
            let raised = with_retries(|| self.raise(chunk)).await?;
            for key in &raised {
                written.raised_lists += u64::from(key.is_workspace_list());
                match computed.get(key) {
                    Some(true) => written.changes.raised += 1,
                    Some(false) => written.changes.added += 1,
                    None => {}
                }
            }
        }
        self.let_go(notes).await?;
        Ok(written)
    }

    /// A few runs, as nearly every look has them: one transaction, that of the notes where there is one.
    async fn write_at_once(
        &self,
        looked: &Looked,
        uses: Vec<(Key, Newest)>,
        mut notes: Held,
    ) -> Result<Written, StoreError> {
        if let Some(mut tx) = notes.tx.take() {
            let written = async {
                let raised = raise_and_note(&mut tx, looked, &uses).await?;
                note::let_go(tx.conn(), &notes.ids).await?;
                tx.commit().await?;
                Ok::<_, StoreError>(raised)
            };
            match written.await {
                // Its locks are gone with it, and others may do the same now, which only costs.
                Err(error) if error.is_conflict() => {}
                written => return written.map(Written::raised),
            }
        }
        let raised = with_retries(async || {
            let mut tx = self.begin().await?;
            let raised = raise_and_note(&mut tx, looked, &uses).await?;
            tx.commit().await?;
            Ok(raised)
        });
        let raised = raised.await?;
        // Apart: whoever has these notes locked may be waiting for the rows.
        self.let_go(notes).await?;
        Ok(Written::raised(raised))
    }

    /// Lowers and removes rows that were computed again, and notes what must be looked at again, in
    /// the same transaction, in one pass over the rows. Returns what is to be raised too.
    ///
    /// A row that rose since it was `seen` may know a use that the history did not have yet: it is
    /// noted again instead of going down for a moment.
    async fn settle(&self, looked: &Looked) -> Result<Settled, StoreError> {
        let mut keys: Vec<&Key> = looked.best.keys().collect();
        keys.sort_unstable();
        let mut settled = Settled::default();
        let mut runs = looked.runs.as_slice();
        // Short transactions, because the hook waits for their locks.
        let mut chunks = keys.chunks(MAX_KEYS);
        loop {
            let chunk = chunks.next().unwrap_or_default();
            if chunk.is_empty() && runs.is_empty() {
                return Ok(settled);
            }
            let more = with_retries(|| self.settle_once(looked, runs, chunk)).await?;
            settled.changes.add(more.changes);
            settled.raise.extend(more.raise);
            runs = &[];
        }
    }

    async fn settle_once(
        &self,
        looked: &Looked,
        runs: &[String],
        keys: &[&Key],
    ) -> Result<Settled, StoreError> {
        let mut tx = self.begin().await?;
        let mut again = Vec::new();
        for runs in runs.chunks(MAX_KEYS) {
            let rows = recent::rows_of_runs(tx.conn(), runs.iter().map(String::as_str)).await?;
            again.extend(unsupported(rows, runs, &looked.said));
        }
        let rows = match keys.is_empty() {
            true => Vec::new(),
            false => recent::lock_rows(tx.conn(), keys.iter().copied()).await?,
        };
        let mut rows: HashMap<Key, Newest> = rows.into_iter().collect();
        let mut settled = Settled::default();
        let (mut lower, mut remove) = (Vec::new(), Vec::new());
        for &key in keys {
            let (row, best) = (rows.remove(key), looked.best.get(key).cloned().flatten());
            let change = Change::of(row.as_ref(), best.as_ref());
            if change.note() == LookAgain::Row {
                again.push(key.clone());
                if row.as_ref() != looked.seen.get(key) {
                    continue;
                }
            }
            match (change, row, best) {
                (Change::Raise, row, Some(best)) => {
                    settled.raise.push((key.clone(), best, row.is_some()));
                }
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
            recent::lower(&mut tx, &lower).await?;
            // What is dismissed down there goes, so that no list fills up with it.
            sweep::sweep(tx.conn(), lower.iter().map(|swap| &swap.key)).await?;
        }
        if !remove.is_empty() {
            recent::remove(&mut tx, &remove).await?;
        }
        note::keys(tx.conn(), &again).await?;
        tx.commit().await?;
        settled.changes.lowered = lower.len() as u64;
        settled.changes.removed = remove.len() as u64;
        Ok(settled)
    }

    async fn raise(&self, uses: &[(Key, Newest)]) -> Result<Vec<Key>, StoreError> {
        let mut tx = self.begin().await?;
        let raised = note::raise(&mut tx, uses).await?;
        tx.commit().await?;
        Ok(raised)
    }

    async fn begin(&self) -> Result<Tx, StoreError> {
        let mut tx = self.store.begin().await?;
        if let Some(fence) = self.fence {
            fence.check(&mut tx).await?;
        }
        Ok(tx)
    }

    /// Lets notes go whose work is committed.
    pub(super) async fn let_go(&self, notes: Held) -> Result<(), StoreError> {
        if let Some(mut tx) = notes.tx {
            note::let_go(tx.conn(), &notes.ids).await?;
            return tx.commit().await;
        }
        if notes.ids.is_empty() {
            return Ok(());
        }
        with_retries(async || {
            let mut tx = self.store.begin().await?;
            note::let_go(tx.conn(), &notes.ids).await?;
            tx.commit().await
        })
        .await
    }
}

impl Written {
    fn raised(keys: Vec<Key>) -> Self {
        let lists = keys.iter().filter(|key| key.is_workspace_list());
        Self {
            changes: Changes::default(),
            raised_lists: lists.count() as u64,
        }
    }
}

/// Of the rows that name one of these runs, those that are not what it says, in the order of the runs.
fn unsupported(mut rows: Vec<RecentRow>, runs: &[String], said: &Uses) -> Vec<Key> {
    let place: HashMap<&str, usize> = (0..)
        .zip(runs)
        .map(|(at, run)| (run.as_str(), at))
        .collect();
    rows.sort_by_key(|(_, newest)| {
        place
            .get(newest.run.as_deref().unwrap_or_default())
            .copied()
    });
    let unsupported = rows.into_iter().filter(|(key, newest)| {
        let run = newest.run.as_deref().unwrap_or_default();
        is_unsupported(&(key, newest), said.of(run))
    });
    unsupported.map(|(key, _)| key).collect()
}

async fn raise_and_note(
    tx: &mut Tx,
    looked: &Looked,
    uses: &[(Key, Newest)],
) -> Result<Vec<Key>, StoreError> {
    if looked.runs.is_empty() {
        return note::raise(tx, uses).await;
    }
    let rows = recent::rows_of_runs(tx.conn(), looked.runs.iter().map(String::as_str)).await?;
    // Of two looks at a use, the second finds what the first one wrote.
    let known: HashMap<Key, Newest> = rows.iter().cloned().collect();
    let news = uses
        .iter()
        .filter(|(key, newest)| known.get(key) < Some(newest));
    let news: Vec<(Key, Newest)> = news.cloned().collect();
    let again = unsupported(rows, &looked.runs, &looked.said);
    note::keys(tx.conn(), &again).await?;
    note::raise(tx, &news).await
}
