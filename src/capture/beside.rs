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

/// While rows that were noted before are read for longer than this, those that are noted since are computed beside
/// them: most look-ups take some milliseconds, and rows that are computed together cost less.
const SLOW: Duration = Duration::from_millis(100);

/// Which notes rows are computed of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// All that wait, in their order.
    InOrder,
    /// Those that nobody saw yet.
    Fresh,
}

/// The rows that are being computed: one batch of each lane at the most. Given up when dropped; their notes stay.
#[derive(Debug, Default)]
pub(super) struct Beside {
    tasks: JoinSet<Result<Applied, CheckError>>,
    batches: HashMap<Id, Computed>,
}

/// What one of them computes.
#[derive(Debug)]
struct Computed {
    lane: Lane,
    ids: HashSet<i64>,
    keys: HashSet<Key>,
    began: Instant,
    /// What is written leads to notes of its own: those are taken together, when all of it is.
    is_read: Arc<AtomicBool>,
}

impl Beside {
    pub(super) fn is_at_work(&self) -> bool {
        !self.tasks.is_empty()
    }

    /// Whose notes can be taken now.
    pub(super) fn free(&self) -> Option<Lane> {
        let of = |lane| self.batches.values().find(|batch| batch.lane == lane);
        match (of(Lane::InOrder), of(Lane::Fresh)) {
            (None, _) => Some(Lane::InOrder),
            (Some(batch), None)
                if batch.began.elapsed() > SLOW && !batch.is_read.load(Ordering::Relaxed) =>
            {
                Some(Lane::Fresh)
            }
            _ => None,
        }
    }

    /// Whether what this note says is being done.
    pub(super) fn computes(&self, id: i64, note: &Note) -> bool {
        self.batches.values().any(|batch| {
            batch.ids.contains(&id) || matches!(note, Note::Key(key) if batch.keys.contains(key))
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
        let keys = notes.iter().filter_map(|(_, note)| match note {
            Note::Key(key) => Some(key.clone()),
            Note::Run(_) => None,
        });
        let batch = Computed {
            lane,
            ids: notes.iter().map(|(id, _)| *id).collect(),
            keys: keys.collect(),
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
