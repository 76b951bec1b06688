//! Makes the table what the history says of some runs and rows: steps 2 and 3 of the drain.

use std::collections::HashMap;

use super::decide::{Change, LookAgain, is_unsupported};
use crate::check::CheckError;
use crate::check::look::{self, Uses};
use crate::history::{History, HistoryError};
use crate::model::{Changes, Key, Newest};
use crate::record::Fold;
use crate::store::job::Fence;
use crate::store::note::{self, Note};
use crate::store::recent::{self, MAX_KEYS, Swap};
use crate::store::{Store, StoreError, Tx, sweep, with_retries};
use crate::telemetry::{Metrics, metrics::Source};

/// What has to be looked at, each once, sorted.
#[derive(Default)]
pub(crate) struct Noted {
    runs: Vec<String>,
    keys: Vec<Key>,
}

impl Noted {
    /// What notes name, and further runs.
    pub(super) fn of(runs: Vec<String>, notes: Vec<(i64, Note)>) -> Self {
        let mut noted = Self {
            runs,
            keys: Vec::new(),
        };
        for (_, note) in notes {
            match note {
                Note::Run(run) => noted.runs.push(run.into()),
                Note::Key(key) => noted.keys.push(key),
            }
        }
        noted.runs.sort_unstable();
        noted.runs.dedup();
        noted.keys.sort_unstable();
        noted.keys.dedup();
        noted
    }

    /// Rows, by their keys in order.
    pub(crate) fn rows(keys: Vec<Key>) -> Self {
        Self {
            runs: Vec::new(),
            keys,
        }
    }
}

/// Looks at the history, and writes what it says.
#[derive(Clone, Copy)]
pub(crate) struct Apply<'a> {
    pub(crate) store: &'a Store,
    pub(crate) history: &'a History,
    /// Where it is counted, and as whose work.
    pub(crate) metrics: Option<(&'a Metrics, Source)>,
    /// Proved first in every transaction that changes a row, where it is a job's work.
    pub(crate) fence: Option<&'a Fence>,
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
    /// Looks at what is noted; returns what became of the noted rows. Whoever holds notes of it may let
    /// them go then.
    ///
    /// # Errors
    /// [`CheckError`]; some of it may be written.
    pub(crate) async fn noted(&self, noted: Noted) -> Result<Changes, CheckError> {
        let seen = self.rows_of(&noted.keys).await?;
        let said = self.map(&noted.runs).await?;
        let best = self.best(&noted.keys).await?;
        let mut fold = Fold::default();
        said.uses()
            .for_each(|(key, newest)| fold.raise(key, newest));
        let settled = self.settle(&noted, &seen, &said, best).await?;
        let mut computed = HashMap::new();
        for (key, newest, there) in &settled.raise {
            fold.raise(key, newest);
            computed.insert(key, *there);
        }
        let (mut changes, mut applied) = (settled.changes, 0);
        for chunk in fold.into_sorted().chunks(MAX_KEYS) {
            let raised = with_retries(|| self.raise(chunk)).await?;
            for key in &raised {
                applied += u64::from(key.is_workspace_list());
                match computed.get(key) {
                    Some(true) => changes.raised += 1,
                    Some(false) => changes.added += 1,
                    None => {}
                }
            }
        }
        if let Some((metrics, source)) = self.metrics {
            let (runs, uses) = (noted.runs.len() as u64, said.len() as u64);
            metrics.count_runs(source, "applied", applied);
            metrics.count_runs(source, "superseded", uses.saturating_sub(applied));
            metrics.count_runs(source, "skipped", runs.saturating_sub(uses));
        }
        Ok(changes)
    }

    /// The rows of these keys, before the history is read.
    async fn rows_of(&self, keys: &[Key]) -> Result<HashMap<Key, Newest>, StoreError> {
        let mut rows = HashMap::new();
        for chunk in keys.chunks(MAX_KEYS) {
            rows.extend(with_retries(|| recent::rows_of_keys(self.store, chunk.iter())).await?);
        }
        Ok(rows)
    }

    /// What these runs say now. Those whose mapping fails are set aside, and say nothing.
    async fn map(&self, runs: &[String]) -> Result<Uses, CheckError> {
        let mut said = Uses::default();
        let mut parts = vec![runs];
        while let Some(part) = parts.pop() {
            match look::at(self.history, part).await {
                Ok(uses) => said.extend(uses),
                Err(error) if !error.is_of_the_data() => return Err(error.into()),
                Err(error) => match part {
                    [run] => {
                        self.set_aside(Note::Run(run.as_str().into()), &error)
                            .await?
                    }
                    _ => {
                        let (half, rest) = part.split_at(part.len() / 2);
                        parts.extend([half, rest].into_iter().filter(|part| !part.is_empty()));
                    }
                },
            }
        }
        Ok(said)
    }

    /// The greatest use of each of these keys now; `None` for a key whose computing fails, which is
    /// set aside.
    async fn best(&self, keys: &[Key]) -> Result<HashMap<Key, Option<Newest>>, CheckError> {
        let mut best = HashMap::new();
        let mut parts = vec![keys];
        while let Some(part) = parts.pop() {
            match look::at_keys(self.history, part.iter()).await {
                Ok(mut found) => {
                    best.extend(part.iter().map(|key| (key.clone(), found.remove(key))));
                }
                Err(error) if !error.is_of_the_data() => return Err(error.into()),
                Err(error) => match part {
                    [key] => self.set_aside(Note::Key(key.clone()), &error).await?,
                    _ => {
                        let (half, rest) = part.split_at(part.len() / 2);
                        parts.extend([half, rest].into_iter().filter(|part| !part.is_empty()));
                    }
                },
            }
        }
        Ok(best)
    }

    async fn set_aside(&self, note: Note, error: &HistoryError) -> Result<(), StoreError> {
        tracing::warn!(
            error = error as &dyn std::error::Error,
            "a run cannot be mapped; it is set aside (recents capture status counts them)"
        );
        if let Some((metrics, source)) = self.metrics {
            metrics.count_runs(source, "rejected", 1);
        }
        let text = match std::error::Error::source(error) {
            Some(source) => source.to_string(),
            None => error.to_string(),
        };
        with_retries(|| note::set_aside(self.store, &note, &text)).await
    }

    /// Lowers and removes rows that were computed again, and notes what must be looked at again, in
    /// the same transaction, in one pass over the rows. Returns what is to be raised too.
    ///
    /// A row that rose since it was `seen` may know a use that the history did not have yet: it is
    /// noted again instead of going down for a moment.
    async fn settle(
        &self,
        noted: &Noted,
        seen: &HashMap<Key, Newest>,
        said: &Uses,
        best: HashMap<Key, Option<Newest>>,
    ) -> Result<Settled, StoreError> {
        let mut keys: Vec<&Key> = best.keys().collect();
        keys.sort_unstable();
        let mut settled = Settled::default();
        let mut runs = noted.runs.as_slice();
        // Short transactions, because the hook waits for their locks.
        let mut chunks = keys.chunks(MAX_KEYS);
        loop {
            let chunk = chunks.next().unwrap_or_default();
            if chunk.is_empty() && runs.is_empty() {
                return Ok(settled);
            }
            let more = with_retries(|| self.settle_once(runs, chunk, seen, said, &best)).await?;
            settled.changes.add(more.changes);
            settled.raise.extend(more.raise);
            runs = &[];
        }
    }

    async fn settle_once(
        &self,
        runs: &[String],
        keys: &[&Key],
        seen: &HashMap<Key, Newest>,
        said: &Uses,
        best: &HashMap<Key, Option<Newest>>,
    ) -> Result<Settled, StoreError> {
        let mut tx = self.begin().await?;
        let mut again = Vec::new();
        for runs in runs.chunks(MAX_KEYS) {
            let runs = runs.iter().map(String::as_str);
            for (key, newest) in recent::rows_of_runs(tx.conn(), runs).await? {
                let run = newest.run.as_deref().unwrap_or_default();
                if is_unsupported(&(&key, &newest), said.of(run)) {
                    again.push(key);
                }
            }
        }
        let rows = match keys.is_empty() {
            true => Vec::new(),
            false => recent::lock_rows(tx.conn(), keys.iter().copied()).await?,
        };
        let mut rows: HashMap<Key, Newest> = rows.into_iter().collect();
        let mut settled = Settled::default();
        let (mut lower, mut remove) = (Vec::new(), Vec::new());
        for &key in keys {
            let (row, best) = (rows.remove(key), best.get(key).cloned().flatten());
            let change = Change::of(row.as_ref(), best.as_ref());
            if change.note() == LookAgain::Row {
                again.push(key.clone());
                if row.as_ref() != seen.get(key) {
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
}
