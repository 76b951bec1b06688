//! Makes the table what the history says of some runs and rows: step 2 of the drain, with [`super::write`]
//! behind it.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::timeout;

use super::reading::Read;
use super::write::{Held, Looked};
use crate::check::CheckError;
use crate::history::{History, HistoryError};
use crate::model::{Changes, Key};
use crate::store::Store;
use crate::store::job::Fence;
use crate::store::note::Note;
use crate::telemetry::{Metrics, metrics::Source};

/// Notes are held, so that no other drain does the same meanwhile, while what they name is read; for so long at the
/// most. A transaction that stays open holds back vacuum, and PostgreSQL ends one that rests for 30 s; whoever does
/// the same only costs.
pub(super) const HOLD: Duration = Duration::from_secs(5);

/// What has to be looked at, each once.
#[derive(Default)]
pub(crate) struct Noted {
    pub(super) runs: Vec<String>,
    pub(super) keys: Vec<Key>,
}

impl Noted {
    /// What notes name, and behind it further runs, in their order.
    pub(super) fn of(runs: Vec<String>, notes: Vec<(i64, Note)>) -> Self {
        let mut noted = Self::default();
        for (_, note) in notes {
            match note {
                Note::Run(run) => noted.runs.push(run.into()),
                Note::Key(key) => noted.keys.push(key),
            }
        }
        noted.runs.sort_unstable();
        noted.runs.dedup();
        let further: HashSet<&str> = runs.iter().map(String::as_str).collect();
        noted.runs.retain(|run| !further.contains(run.as_str()));
        noted.runs.extend(runs);
        noted.keys.sort_unstable();
        noted.keys.dedup();
        noted
    }

    /// How many runs and rows.
    pub(super) fn len(&self) -> usize {
        self.runs.len() + self.keys.len()
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
    /// Proved first in every transaction that changes a row, where it is a job's work; that leaves alone what is set
    /// aside.
    pub(crate) fence: Option<&'a Fence>,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Applied {
    /// What became of the noted rows.
    pub(crate) changes: Changes,
    /// Whether something that was set aside is taken again: a run of it can be mapped, or more are known to fail.
    pub(super) tries_again: bool,
    /// The rows of workspaces' lists that are heavy, and those of users with them.
    pub(super) heavy: Vec<Key>,
    /// Why some rows could not be looked up in time; their notes stay.
    pub(super) late: Option<HistoryError>,
}

impl Apply<'_> {
    /// Looks at what is noted and writes what follows. The notes that led here go with it, or as soon as
    /// all of it is committed.
    ///
    /// # Errors
    /// [`CheckError`]; some of it may be written, and the notes stay.
    pub(crate) async fn noted(
        &self,
        mut noted: Noted,
        mut notes: Held,
    ) -> Result<Applied, CheckError> {
        let read = {
            let mut reading = pin!(self.read(&mut noted));
            match timeout(HOLD, &mut reading).await {
                Ok(read) => read,
                Err(_) => {
                    notes.tx = None;
                    reading.await
                }
            }
        };
        let mut read = read?;
        match read.best.why.take() {
            Some(late) => Err(late.into()),
            None => self.follow(noted, read, notes).await,
        }
    }

    /// The same of what these notes of rows say, which nobody has locked. Tells when the history is read. Where some
    /// rows could not be looked up in time, their notes stay and the others go.
    ///
    /// # Errors
    /// As [`Self::noted`].
    pub(super) async fn rows(
        &self,
        notes: Vec<(i64, Note)>,
        is_read: &AtomicBool,
    ) -> Result<Applied, CheckError> {
        let all: Vec<_> = notes.iter().map(|(id, note)| (*id, note.clone())).collect();
        let mut noted = Noted::of(Vec::new(), all);
        let read = self.read(&mut noted).await?;
        is_read.store(true, Ordering::Relaxed);
        let is_late = |note: &Note| matches!(note, Note::Key(key) if read.best.late.contains(key));
        let done = notes.iter().filter(|(_, note)| !is_late(note));
        let ids = done.map(|(id, _)| *id).collect();
        self.follow(noted, read, Held { tx: None, ids }).await
    }

    /// Writes what follows from what was read, and lets the notes go.
    ///
    /// # Errors
    /// As [`Self::noted`].
    async fn follow(&self, noted: Noted, read: Read, notes: Held) -> Result<Applied, CheckError> {
        let Read {
            seen,
            said,
            best,
            tries_again,
        } = read;
        let (runs, uses) = (noted.runs.len() as u64, said.len() as u64);
        let looked = Looked {
            runs: noted.runs,
            said,
            seen,
            best: best.newest,
        };
        let written = self.write(looked, notes).await?;
        if let Some((metrics, source)) = self.metrics {
            let applied = written.raised_lists;
            metrics.count_runs(source, "applied", applied);
            metrics.count_runs(source, "superseded", uses.saturating_sub(applied));
            metrics.count_runs(source, "skipped", runs.saturating_sub(uses));
        }
        Ok(Applied {
            changes: written.changes,
            tries_again,
            heavy: best.heavy,
            late: best.why,
        })
    }
}
