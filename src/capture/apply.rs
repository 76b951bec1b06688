//! Makes the table what the history says of some runs and rows: step 2 of the drain, with [`super::write`]
//! behind it.

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::timeout;

use super::write::{Held, Looked};
use crate::check::CheckError;
use crate::check::look::{self, Found, LeftOut, Uses};
use crate::history::{History, HistoryError, MOST_UNMAPPABLE, Passed, Unmappable, words};
use crate::model::{Changes, Key, Newest};
use crate::store::job::Fence;
use crate::store::note::{self, Note};
use crate::store::recent::{self, MAX_KEYS};
use crate::store::{Store, StoreError, with_retries};
use crate::telemetry::{Metrics, metrics::Source};

/// Notes are held, so that no other drain does the same meanwhile, while what they name is read; for so long at the
/// most. A transaction that stays open holds back vacuum, and PostgreSQL ends one that rests for 30 s; whoever does
/// the same only costs.
pub(super) const HOLD: Duration = Duration::from_secs(5);

/// What has to be looked at, each once.
#[derive(Default)]
pub(crate) struct Noted {
    runs: Vec<String>,
    keys: Vec<Key>,
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
    /// Proved first in every transaction that changes a row, where it is a job's work.
    pub(crate) fence: Option<&'a Fence>,
    /// Whether what was set aside of a run is forgotten when it can be mapped.
    pub(crate) forgets: bool,
}

/// What was read.
struct Read {
    /// The rows that were noted, as they were before,
    seen: HashMap<Key, Newest>,
    /// what the noted runs say,
    said: Uses,
    /// and what the rows should be.
    best: Best,
    tries_again: bool,
    set_aside: bool,
}

/// What rows should be.
#[derive(Default)]
struct Best {
    newest: HashMap<Key, Option<Newest>>,
    set_aside: bool,
    /// Look-ups of them take long.
    heavy: Vec<Key>,
    /// Rows that could not be looked up in time; the others were.
    late: HashSet<Key>,
    why: Option<HistoryError>,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Applied {
    /// What became of the noted rows.
    pub(crate) changes: Changes,
    /// Whether something was set aside.
    pub(super) set_aside: bool,
    /// Whether what was set aside is taken again, because a run of it can be mapped.
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
    pub(crate) async fn noted(&self, noted: Noted, mut notes: Held) -> Result<Applied, CheckError> {
        let read = {
            let mut reading = pin!(self.read(&noted));
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
        let noted = Noted::of(Vec::new(), all);
        let read = self.read(&noted).await?;
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
            set_aside,
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
            set_aside,
            tries_again,
            heavy: best.heavy,
            late: best.why,
        })
    }

    /// Looks at what is noted.
    ///
    /// # Errors
    /// [`CheckError`]; nothing is written.
    async fn read(&self, noted: &Noted) -> Result<Read, CheckError> {
        let seen = self.rows_of(&noted.keys).await?;
        let aside = self.aside(&noted.runs).await?;
        let (said, fails) = self.map(&noted.runs).await?;
        let tries_again = self.forget(aside, &fails).await?;
        let best = self.best(&noted.keys, &seen).await?;
        Ok(Read {
            set_aside: best.set_aside || !fails.is_empty(),
            seen,
            said,
            best,
            tries_again,
        })
    }

    /// The rows of these keys, before the history is read.
    async fn rows_of(&self, keys: &[Key]) -> Result<HashMap<Key, Newest>, StoreError> {
        let mut rows = HashMap::new();
        for chunk in keys.chunks(MAX_KEYS) {
            rows.extend(with_retries(|| recent::rows_of_keys(self.store, chunk.iter())).await?);
        }
        Ok(rows)
    }

    /// What these runs say now, and those whose mapping fails, or takes too long though one is looked at alone: they are
    /// set aside, and say nothing.
    async fn map<'r>(&self, runs: &'r [String]) -> Result<(Uses, HashSet<&'r str>), CheckError> {
        let (mut said, mut fails) = (Uses::default(), HashSet::new());
        let mut parts = vec![runs];
        while let Some(part) = parts.pop() {
            match look::at(self.history, part).await {
                Ok(uses) => said.extend(uses),
                // Fewer runs take less time; rows that are computed may read everything, however few they are.
                Err(HistoryError::TimedOut(_)) if part.len() > 1 => {
                    look::halve(&mut parts, part);
                }
                Err(error) if !error.is_of_the_data() && !self.is_late(&error) => {
                    return Err(error.into());
                }
                Err(error) => {
                    if let Some(run) = look::halve(&mut parts, part) {
                        let note = Note::Run(run.as_str().into());
                        self.set_aside(note, &error).await?;
                        fails.insert(run.as_str());
                    }
                }
            }
        }
        Ok((said, fails))
    }

    /// Whether a look-up took too long, and others must not wait for it; a job looks at fewer rows then instead.
    fn is_late(&self, error: &HistoryError) -> bool {
        matches!(error, HistoryError::TimedOut(_)) && self.fence.is_none()
    }

    /// The notes of these runs that were set aside: asked before the runs are looked at, because another
    /// look may fail later, and set one of them aside again.
    async fn aside(&self, runs: &[String]) -> Result<Vec<(i64, String)>, StoreError> {
        let mut aside = Vec::new();
        if self.forgets {
            for chunk in runs.chunks(MAX_KEYS) {
                aside.extend(with_retries(|| note::set_aside_of(self.store, chunk)).await?);
            }
        }
        Ok(aside)
    }

    /// Forgets those of them whose runs did not fail; returns whether there were any. Before anything is
    /// written: a crash in between only has the others looked at again.
    async fn forget(
        &self,
        aside: Vec<(i64, String)>,
        fails: &HashSet<&str>,
    ) -> Result<bool, StoreError> {
        let mapped = aside
            .iter()
            .filter(|(_, run)| !fails.contains(run.as_str()));
        let ids: Vec<i64> = mapped.map(|(id, _)| *id).collect();
        if ids.is_empty() {
            return Ok(false);
        }
        with_retries(|| note::forget_set_aside(self.store, &ids)).await?;
        Ok(true)
    }

    /// The greatest use of each of these keys now, without the runs whose mapping fails, which are set
    /// aside; and whether there were any. A row that names one of them, and would go down, is left out: it
    /// may be right. So is a key of which too many fail; it is set aside itself.
    ///
    /// Rows that take too long are looked for by halves, so that they keep no others back.
    async fn best(&self, keys: &[Key], seen: &HashMap<Key, Newest>) -> Result<Best, CheckError> {
        let mut best = Best::default();
        let mut keys = keys.to_vec();
        keys.sort_by_cached_key(Key::of_everyone);
        let mut parts = vec![keys.as_slice()];
        // Known to fail; asked for when something does.
        let mut known = None;
        while let Some(part) = parts.pop() {
            let looked = self.best_of(part, &mut known).await;
            best.set_aside |= known.as_ref().is_some_and(|known| !known.is_empty());
            match looked {
                Ok((mut found, fails)) => {
                    best.set_aside |= !fails.is_empty();
                    best.heavy.append(&mut found.heavy);
                    let names_one = |row: &Newest| {
                        let run = row.run.as_deref();
                        run.is_some_and(|run| fails.contains(run))
                    };
                    for key in part {
                        let (row, newest) = (seen.get(key), found.newest.remove(key));
                        if newest.as_ref() >= row || !row.is_some_and(names_one) {
                            best.newest.insert(key.clone(), newest);
                        }
                    }
                }
                Err(CheckError::History(error)) if error.is_of_the_data() => {
                    if let Some(key) = look::halve(&mut parts, part) {
                        self.set_aside(Note::Key(key.clone()), &error).await?;
                        best.set_aside = true;
                    }
                }
                Err(CheckError::History(error)) if self.is_late(&error) => {
                    tracing::warn!(rows = part.len(), "looking rows up took too long");
                    if let Some((some, others)) = by_rows(part) {
                        parts.extend([some, others]);
                    } else {
                        best.heavy.extend(part.first().map(Key::of_everyone));
                        best.late.extend(part.iter().cloned());
                        best.why = Some(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(best)
    }

    /// The greatest use of each of these keys now, and the runs that are left out because they fail.
    ///
    /// Those that were set aside are left out by one statement. Others are looked for, unless there are too many
    /// already: each takes some dozen statements, again with each half of the keys, and what is fresh waits.
    async fn best_of(
        &self,
        keys: &[Key],
        known: &mut Option<Vec<String>>,
    ) -> Result<(Found, HashSet<String>), CheckError> {
        let look = |left_out| look::at_keys(self.history, keys.iter(), left_out);
        let known = match known {
            Some(known) => known,
            None => match look(LeftOut::Known(&[])).await {
                Err(error) if error.is_of_the_data() => {
                    known.insert(with_retries(|| note::runs_aside(self.store)).await?)
                }
                looked => return Ok((looked?, HashSet::new())),
            },
        };
        // Without any, that has failed already.
        if !known.is_empty() {
            match look(LeftOut::Known(known)).await {
                Err(error) if error.is_of_the_data() && known.len() < MOST_UNMAPPABLE => {}
                looked => return Ok((looked?, known.iter().cloned().collect())),
            }
        }
        let unmappable = Unmappable::default();
        let found = look(LeftOut::Found(&unmappable)).await?;
        let fails = unmappable.all();
        for Passed { run, problem } in &fails {
            let note = Note::Run(run.as_str().into());
            self.keep_aside(&note, problem).await?;
        }
        Ok((found, fails.into_iter().map(|failed| failed.run).collect()))
    }

    async fn set_aside(&self, note: Note, error: &HistoryError) -> Result<(), StoreError> {
        let problem = words(error);
        tracing::warn!(
            error = problem,
            "a run cannot be mapped; it is set aside (recents capture status counts them)"
        );
        self.keep_aside(&note, &problem).await
    }

    async fn keep_aside(&self, note: &Note, problem: &str) -> Result<(), StoreError> {
        if let Some((metrics, source)) = self.metrics {
            metrics.count_runs(source, "rejected", 1);
        }
        with_retries(|| note::set_aside(self.store, note, problem)).await
    }
}

/// About half of these keys and the others, those of one published run in a workspace together: they are computed of
/// the same runs. `None` where there is but one.
fn by_rows(keys: &[Key]) -> Option<(&[Key], &[Key])> {
    let begins = |at: &usize| keys[*at].of_everyone() != keys[*at - 1].of_everyone();
    let middle = (keys.len() / 2).max(1);
    let behind = (middle..keys.len()).find(begins);
    let at = behind.or_else(|| (1..middle).rev().find(begins))?;
    Some(keys.split_at(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_the_same_runs_stay_together() {
        let keys = |of: &[(&str, &str)]| -> Vec<Key> {
            of.iter().map(|(w, uid)| Key::new(w, uid, "p")).collect()
        };
        let all = keys(&[("a", ""), ("a", "u"), ("a", "v"), ("b", "")]);
        assert_eq!(by_rows(&all), Some(all.split_at(3)));
        let all = keys(&[("a", ""), ("b", ""), ("b", "u"), ("b", "v"), ("b", "w")]);
        assert_eq!(by_rows(&all), Some(all.split_at(1)));
        assert_eq!(by_rows(&all[1..]), None);
        assert_eq!(by_rows(&all[..1]), None);
        assert_eq!(by_rows(&[]), None);
    }
}
