//! Rows that are computed beside what is fresh: one takes as long as its key has runs, or without a fitting
//! index as the history is long.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::{Id, JoinSet};
use tokio::time::timeout;

use super::apply::Applied;
use crate::check::CheckError;
use crate::history::HistoryError;
use crate::model::Key;
use crate::store::note::Note;
use crate::store::recent::MAX_KEYS;

/// A batch that reads for longer than this makes way for others: most take some milliseconds, and rows that are
/// computed together cost less.
const SLOW: Duration = Duration::from_millis(100);
/// Rows that are known to be heavy, at the most; then it is learnt anew which are.
const MOST_HEAVY: usize = 10_000;

/// Of each, one batch at the most is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// As far as is known, it does not take long.
    Quick,
    /// It takes long.
    Slow,
}

/// The rows that are being computed. Given up when dropped; their notes stay.
#[derive(Debug, Default)]
pub(super) struct Beside {
    tasks: JoinSet<Result<Applied, CheckError>>,
    batches: HashMap<Id, Computed>,
    /// Rows that take long, by the workspaces' lists.
    heavy: HashSet<Key>,
}

/// What a batch computes.
#[derive(Debug)]
struct Computed {
    lane: Lane,
    ids: HashSet<i64>,
    /// By the workspaces' lists: the rows of users are computed of the same runs.
    rows: HashSet<Key>,
    began: Instant,
    is_read: Arc<AtomicBool>,
}

impl Computed {
    /// What is written at once leads to notes that are taken together.
    fn is_being_written_at_once(&self) -> bool {
        self.ids.len() <= MAX_KEYS && self.is_read.load(Ordering::Relaxed)
    }
}

impl Beside {
    pub(super) fn is_at_work(&self) -> bool {
        !self.tasks.is_empty()
    }

    fn batch(&self, lane: Lane) -> Option<&Computed> {
        self.batches.values().find(|batch| batch.lane == lane)
    }

    /// Whether a batch of this lane can begin.
    pub(super) fn is_free(&self, lane: Lane) -> bool {
        self.batch(lane).is_none()
    }

    /// Whether notes are to be left where they are for now, because a batch is about to end.
    pub(super) fn is_about_to_end(&self) -> bool {
        let quick = self.batch(Lane::Quick);
        quick.is_some_and(|batch| batch.began.elapsed() <= SLOW)
            || self
                .batches
                .values()
                .any(Computed::is_being_written_at_once)
    }

    /// Has a quick batch that turned out to be slow be one, where none is.
    pub(super) fn make_way(&mut self) {
        if self.is_free(Lane::Slow) {
            self.batches
                .values_mut()
                .for_each(|batch| batch.lane = Lane::Slow);
        }
    }

    /// Learns which rows take long.
    pub(super) fn are_heavy(&mut self, rows: &[Key]) {
        if self.heavy.len() + rows.len() > MOST_HEAVY {
            self.heavy.clear();
        }
        self.heavy.extend(rows.iter().cloned());
    }

    /// In which lane this row is computed.
    pub(super) fn lane(&self, key: &Key) -> Lane {
        match self.heavy.contains(&key.of_everyone()) {
            true => Lane::Slow,
            false => Lane::Quick,
        }
    }

    /// Whether what this note says is being done.
    pub(super) fn computes(&self, id: i64, note: &Note) -> bool {
        let row = match note {
            Note::Key(key) if self.is_at_work() => Some(key.of_everyone()),
            _ => None,
        };
        self.batches.values().any(|batch| {
            batch.ids.contains(&id) || row.as_ref().is_some_and(|row| batch.rows.contains(row))
        })
    }

    /// Computes what these notes of rows say by `work`, which tells when the history is read.
    pub(super) fn begin<Work>(
        &mut self,
        lane: Lane,
        notes: Vec<(i64, Note)>,
        work: impl FnOnce(Vec<(i64, Note)>, Arc<AtomicBool>) -> Work,
    ) where
        Work: Future<Output = Result<Applied, CheckError>> + Send + 'static,
    {
        let is_read = Arc::default();
        let rows = notes.iter().filter_map(|(_, note)| match note {
            Note::Key(key) => Some(key.of_everyone()),
            Note::Run(_) => None,
        });
        let batch = Computed {
            lane,
            ids: notes.iter().map(|(id, _)| *id).collect(),
            rows: rows.collect(),
            began: Instant::now(),
            is_read: Arc::clone(&is_read),
        };
        let task = self.tasks.spawn(work(notes, is_read));
        self.batches.insert(task.id(), batch);
    }

    /// What came of one of them, where it ends within this time.
    pub(super) async fn ended(&mut self, within: Duration) -> Option<Result<Applied, CheckError>> {
        let ended = timeout(within, self.tasks.join_next_with_id());
        let (id, ended) = match ended.await.ok()?? {
            Ok((id, ended)) => (id, ended),
            Err(error) => (error.id(), Err(HistoryError::BrokenOff.into())),
        };
        self.batches.remove(&id);
        Some(ended)
    }
}
