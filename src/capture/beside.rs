//! Rows that are computed beside what is fresh: one takes as long as its key has runs, or without a fitting
//! index as the history is long.

use std::cmp::Reverse;
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

/// A quick batch that reads for longer than this makes way for others: most take some milliseconds, and rows that are
/// computed together cost less.
const SLOW: Duration = Duration::from_millis(100);
/// The same of a large batch, most of which take less than a second.
const STUCK: Duration = Duration::from_secs(2);
/// Rows of a quick batch, at the most: so many take some tens of milliseconds, and what comes meanwhile waits.
const FEW: usize = 200;
/// So many rows that are noted at once go together, as a request of the hook may leave them, and stay as fresh as they
/// are where there is no place for them.
pub(super) const SMALL: usize = 2_000;
/// Rows that are known to be heavy, at the most; then it is learnt anew which are.
const MOST_HEAVY: usize = 10_000;

/// Of each, one batch at the most is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// A few rows that, as far as is known, do not take long.
    Quick,
    /// Many of them, such as a large statement leaves.
    Large,
    /// Those that take long.
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
        self.batches.values().any(|batch| {
            batch.lane != Lane::Slow && batch.began.elapsed() <= SLOW
                || batch.is_being_written_at_once()
        })
    }

    /// Whether what is left by the looks before is left for another while, because many rows of that are being computed.
    pub(super) fn has_enough(&self) -> bool {
        let large = self.batch(Lane::Large);
        large.is_some_and(|batch| batch.began.elapsed() <= STUCK)
    }

    /// Has a batch that turned out to be slow be one, where none is.
    pub(super) fn make_way(&mut self) {
        let is_slow = |batch: &&mut Computed| {
            let most = if batch.lane == Lane::Quick {
                SLOW
            } else {
                STUCK
            };
            batch.began.elapsed() > most
        };
        if self.is_free(Lane::Slow)
            && let Some(batch) = self.batches.values_mut().find(is_slow)
        {
            batch.lane = Lane::Slow;
        }
    }

    /// The lanes of these rows, of which those up to the note `seen` were seen before. The newest ones do not wait for
    /// many others; and all of one row go together, because they are computed of the same runs.
    pub(super) fn lanes(
        &self,
        mut rows: Vec<(i64, Note)>,
        seen: i64,
    ) -> [(Lane, Vec<(i64, Note)>); 3] {
        let is_heavy = |note: &Note| row(note).is_some_and(|row| self.heavy.contains(&row));
        let slow = rows.extract_if(.., |(_, note)| is_heavy(note)).collect();
        rows.sort_unstable_by_key(|(id, _)| Reverse(*id));
        let few = rows.len().min(FEW);
        let is_one = rows.len() <= SMALL && rows.iter().all(|(id, _)| *id > seen);
        let large = match (self.is_free(Lane::Quick), self.is_free(Lane::Large)) {
            (false, true) => std::mem::take(&mut rows),
            (_, false) => rows.split_off(few),
            _ if rows.len() == few => Vec::new(),
            _ if is_one => std::mem::take(&mut rows),
            _ => {
                let newest = rows[..few].iter().take_while(|(id, _)| *id > seen).count();
                let mut large = rows.split_off(newest);
                let theirs: HashSet<_> = large.iter().filter_map(|(_, note)| row(note)).collect();
                let is_theirs = |note: &Note| row(note).is_some_and(|row| theirs.contains(&row));
                large.extend(rows.extract_if(.., |(_, note)| is_theirs(note)));
                large
            }
        };
        [
            (Lane::Quick, rows),
            (Lane::Large, large),
            (Lane::Slow, slow),
        ]
    }

    /// Learns which rows take long.
    pub(super) fn are_heavy(&mut self, rows: &[Key]) {
        if self.heavy.len() + rows.len() > MOST_HEAVY {
            self.heavy.clear();
        }
        self.heavy.extend(rows.iter().cloned());
    }

    /// In which lane what this note says is being done.
    pub(super) fn computes(&self, id: i64, note: &Note) -> Option<Lane> {
        let row = self.is_at_work().then(|| row(note)).flatten();
        let is_of = |batch: &&Computed| {
            batch.ids.contains(&id) || row.as_ref().is_some_and(|row| batch.rows.contains(row))
        };
        self.batches.values().find(is_of).map(|batch| batch.lane)
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
        let rows = notes.iter().filter_map(|(_, note)| row(note));
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

/// The row of the workspace's list that this note is of; those of users are computed of the same runs.
fn row(note: &Note) -> Option<Key> {
    match note {
        Note::Key(key) => Some(key.of_everyone()),
        Note::Run(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Notes of these rows, by their ids.
    fn notes(of: impl IntoIterator<Item = (i64, String)>) -> Vec<(i64, Note)> {
        let note = |(id, row): (i64, String)| (id, Note::Key(Key::new(&row, "", "p")));
        of.into_iter().map(note).collect()
    }

    fn many(ids: std::ops::RangeInclusive<i64>) -> Vec<(i64, Note)> {
        notes(ids.map(|id| (id, format!("w{id}"))))
    }

    /// The ids that go into each lane.
    fn ids(lanes: [(Lane, Vec<(i64, Note)>); 3]) -> [Vec<i64>; 3] {
        lanes.map(|(_, notes)| {
            let mut ids: Vec<_> = notes.into_iter().map(|(id, _)| id).collect();
            ids.sort_unstable();
            ids
        })
    }

    /// Begins a batch that never ends.
    fn begin(beside: &mut Beside, lane: Lane) {
        beside.begin(lane, many(1..=1), |_, _| std::future::pending());
    }

    const FEW: i64 = super::FEW as i64;

    #[test]
    fn a_few_rows_go_together_and_those_that_are_known_to_be_heavy_apart() {
        let mut beside = Beside::default();
        beside.are_heavy(&[Key::new("w2", "", "p")]);
        assert_eq!(
            ids(beside.lanes(many(1..=3), 0)),
            [vec![1, 3], vec![], vec![2]]
        );
    }

    #[test]
    fn of_many_rows_the_newest_do_not_wait_for_those_that_were_seen_before() {
        let beside = Beside::default();
        let all = ids(beside.lanes(many(1..=1_000), 990));
        assert_eq!(all, [(991..=1_000).collect(), (1..=990).collect(), vec![]]);
        let [quick, large, _] = ids(beside.lanes(many(1..=3_000), 0));
        assert_eq!(quick, Vec::from_iter(3_001 - FEW..=3_000));
        assert_eq!(large, Vec::from_iter(1..=3_000 - FEW));
        let [quick, large, _] = ids(beside.lanes(many(1..=1_000), 0));
        assert_eq!((quick.len(), large.len()), (0, 1_000), "noted at once");
    }

    #[test]
    fn the_notes_of_one_row_go_together() {
        let mut all = many(1..=1_000);
        all.extend(notes([(1_001, "w7".into()), (1_002, "w1001".into())]));
        let [quick, large, _] = ids(Beside::default().lanes(all, 1_000));
        assert_eq!(quick, [1_002]);
        assert_eq!(large.last(), Some(&1_001));
    }

    #[tokio::test]
    async fn what_finds_no_place_is_left_and_no_place_is_left_unused() {
        let mut beside = Beside::default();
        begin(&mut beside, Lane::Quick);
        let few = ids(beside.lanes(many(1..=3), 0));
        assert_eq!(few, [vec![], vec![1, 2, 3], vec![]]);
        let mut beside = Beside::default();
        begin(&mut beside, Lane::Large);
        let [quick, large, _] = ids(beside.lanes(many(1..=1_000), 1_000));
        assert_eq!((quick.len(), large.len()), (super::FEW, 1_000 - super::FEW));
    }
}
