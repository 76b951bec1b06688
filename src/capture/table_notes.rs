//! Taking the notes of the table.

use std::time::Instant;

use super::batch::Batch;
use super::beside::{Beside, Lane};
use super::position::Position;
use crate::store::note::{self, Note, Take};
use crate::store::{Store, StoreError, Tx};

/// Notes that are taken together, oldest first: each look at the history has a cost of its own,
/// and so many keep back what is fresh in the outbox for about a hundred milliseconds.
const NOTES: u32 = 4_000;
/// And of those that came since, so many of runs and so many of rows, newest first: the rows of a statement over millions
/// of runs do not keep back the one row of another. More than a batch of rows leaves as it is written, so that these
/// hide none that came before them.
const NEWEST: u32 = 6_000;

/// The notes of a table, for one drain.
#[derive(Debug)]
pub(super) struct TableNotes {
    store: Store,
    position: Position,
    /// Whether there must be some, because rows were written.
    expected: bool,
    /// Whether some were passed over, because their rows are being computed, or others.
    passed_over: bool,
    /// Behind this note, the last look found what nobody saw before.
    seen: i64,
    /// Behind this note, some of that were passed over: they are as fresh as what nobody saw.
    fresh: Option<i64>,
}

impl TableNotes {
    pub(super) fn of(store: Store) -> Self {
        Self {
            store,
            position: Position::new(),
            expected: false,
            passed_over: false,
            seen: 0,
            fresh: None,
        }
    }

    /// Hears that rows were written.
    pub(super) fn expect(&mut self) {
        self.expected = true;
    }

    /// Begins anew with the next taking.
    pub(super) fn restart(&mut self) {
        self.position.restart();
    }

    /// Hears that some of those that were taken are left where they are, because others are being computed; and whether
    /// they stay fresh: they wait for a place among the few, and not for the many.
    pub(super) fn pass_over(&mut self, fresh: bool) {
        self.passed_over = true;
        if fresh {
            self.fresh.get_or_insert(self.seen);
        }
    }

    /// Hears that some rows are no longer being computed.
    pub(super) fn rows_are_computed(&mut self) {
        if std::mem::take(&mut self.passed_over) {
            self.restart();
        }
    }

    /// What was taken is fresh behind this note.
    pub(super) fn seen(&self) -> i64 {
        self.seen
    }

    /// Takes some, none of what is being computed, and says whether there are but few; with the transaction that
    /// locks them, where there is one. While rows are computed, those that nobody saw yet, and now and then all, one
    /// look after the other: those that are being computed stay, and must not hide the others.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) async fn take(
        &mut self,
        batch: &Batch,
        beside: &Beside,
    ) -> Result<(Option<Tx>, Vec<(i64, Note)>, bool), StoreError> {
        let now = Instant::now();
        let from = match beside.is_at_work() {
            true if beside.has_enough() => None,
            true => self.position.next_left(now),
            false => Some(self.position.next(now)),
        };
        self.seen = self.position.newest();
        // There is a place for them now.
        if beside.is_free(Lane::Quick)
            && let Some(fresh) = self.fresh.take()
        {
            self.seen = fresh;
        }
        let (holding, mut notes) = match from {
            Some(behind) => {
                self.take_in_order(behind, batch, !beside.is_at_work())
                    .await?
            }
            None => {
                let notes = note::unseen(&self.store, self.seen, NEWEST).await?;
                let of_runs = notes
                    .iter()
                    .filter(|(_, note)| matches!(note, Note::Run(_)));
                let of_runs = of_runs.count();
                let most = of_runs.max(notes.len() - of_runs);
                let all = most < NEWEST as usize;
                self.position.saw(notes.iter().map(|(id, _)| *id), all);
                (None, notes)
            }
        };
        let taken = notes.len();
        let mut fresh = false;
        notes.retain(|(id, note)| {
            let lane = beside.computes(*id, note);
            fresh |= lane == Some(Lane::Quick) && *id > self.seen;
            lane.is_none()
        });
        if notes.len() < taken {
            self.pass_over(fresh);
        }
        let few = from.is_some() && taken < batch.notes(NOTES) as usize;
        Ok((holding.filter(|_| !notes.is_empty()), notes, few))
    }

    /// In PostgreSQL the notes are locked, so that no other drain does the same work meanwhile; in
    /// SQLite that would lock out every writer, and where there is but one connection, ourselves. Where
    /// none are expected, a transaction for them would be three requests instead of one; and where rows are being
    /// computed (`may_hold` is false), it would keep their notes from going.
    async fn take_in_order(
        &mut self,
        behind: i64,
        batch: &Batch,
        may_hold: bool,
    ) -> Result<(Option<Tx>, Vec<(i64, Note)>), StoreError> {
        let take = Take {
            behind,
            newest: self.seen,
            old: batch.notes(NOTES),
            new_runs: batch.notes(NEWEST),
            new_rows: NEWEST,
        };
        let expected = may_hold && std::mem::take(&mut self.expected);
        let (holding, notes) = match &self.store {
            Store::Postgres(pool, _) if expected && pool.options().get_max_connections() > 1 => {
                let mut tx = self.store.begin().await?;
                let notes = note::take(tx.conn(), take).await?;
                (Some(tx), notes)
            }
            _ => (None, note::look(&self.store, take).await?),
        };
        let ids = || notes.iter().map(|(id, _)| *id);
        let old = || ids().filter(|id| *id <= take.newest);
        let more = match old().max() {
            // What is behind that was taken for fresh.
            None if behind > take.newest => Some(behind),
            last => last.filter(|_| old().count() >= take.old as usize),
        };
        self.position.read(ids(), more, Instant::now());
        Ok((holding, notes))
    }
}
