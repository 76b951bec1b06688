//! Makes the table what the history says of some runs and rows: step 2 of the drain, with [`super::write`]
//! behind it.

use std::collections::HashMap;

use super::write::{Held, Looked};
use crate::check::CheckError;
use crate::check::look::{self, Uses};
use crate::history::{History, HistoryError};
use crate::model::{Changes, Key, Newest};
use crate::store::job::Fence;
use crate::store::note::{self, Note};
use crate::store::recent::{self, MAX_KEYS};
use crate::store::{Store, StoreError, with_retries};
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

impl Apply<'_> {
    /// Looks at what is noted and writes what follows; returns what became of the noted rows. The notes
    /// that led here go with it, or as soon as all of it is committed.
    ///
    /// # Errors
    /// [`CheckError`]; some of it may be written, and the notes stay.
    pub(crate) async fn noted(&self, noted: Noted, notes: Held) -> Result<Changes, CheckError> {
        let seen = self.rows_of(&noted.keys).await?;
        let said = self.map(&noted.runs).await?;
        let best = self.best(&noted.keys).await?;
        let (runs, uses) = (noted.runs.len() as u64, said.len() as u64);
        let looked = Looked {
            runs: noted.runs,
            said,
            seen,
            best,
        };
        let written = self.write(looked, notes).await?;
        if let Some((metrics, source)) = self.metrics {
            let applied = written.raised_lists;
            metrics.count_runs(source, "applied", applied);
            metrics.count_runs(source, "superseded", uses.saturating_sub(applied));
            metrics.count_runs(source, "skipped", runs.saturating_sub(uses));
        }
        Ok(written.changes)
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
}
