//! The drain: takes notes, looks at the history again, and makes the table what it says.
//!
//! Any number of them work at the same time, without leases and in any order: PROTOCOL, in short, is
//! 1 take notes, 2 read the history, 3 write rows with new notes, 4 let the notes go.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::apply::{Applied, Apply, HOLD, Noted};
use super::batch::Batch;
use super::beside::{Beside, Lane, SMALL};
use super::everything::Everything;
use super::outbox::{self, Notes, Taken};
use super::position::Position;
use super::table_notes::TableNotes;
use super::write::Held;
use crate::check::CheckError;
use crate::history::History;
use crate::store::note::{self, Note};
use crate::store::{Store, StoreError, aside, identity};
use crate::telemetry::{Metrics, metrics::Source};

/// A step with nothing else to do waits so long for rows that are being computed.
const BESIDE: Duration = Duration::from_millis(25);
/// A drain of a command waits so long for notes that another one took.
const SETTLE_WITHIN: Duration = Duration::from_secs(10);
/// Notes lead to notes: a row that went down is looked at again, and rises, and its run is looked at.
const GENERATIONS: usize = 4;
/// How often it looks whether they are gone.
const SETTLE_EVERY: Duration = Duration::from_millis(100);

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// There was nothing to do.
    Idle,
    /// Notes were worked off; there may be more.
    Worked,
}

/// Drains the notes of one table and one history.
#[derive(Debug)]
pub struct Drain {
    store: Store,
    history: Arc<History>,
    metrics: Option<Arc<Metrics>>,
    /// The store's, once it was asked.
    identity: Option<Arc<str>>,
    outbox: Position,
    notes: TableNotes,
    /// Rows that are being computed.
    beside: Beside,
    /// Whether some were computed since the last step: what is fresh may lead to others, which are then among the next.
    computed: bool,
    /// While the rows of the whole table are being noted.
    everything: Option<Everything>,
    /// What is taken together.
    batch: Batch,
    /// What is set aside and tried again.
    retrying: Retrying,
}

/// A walk through what is set aside, to have it taken again.
#[derive(Debug, Default)]
struct Retrying {
    /// Whether another walk is to begin.
    is_due: bool,
    /// Behind this note,
    behind: i64,
    /// and so many at the most: what fails again is set aside again, behind all others.
    left: u64,
}

impl Drain {
    /// A drain at the start.
    pub fn new(store: Store, history: Arc<History>, metrics: Option<Arc<Metrics>>) -> Self {
        Self {
            notes: TableNotes::of(store.clone()),
            store,
            history,
            metrics,
            identity: None,
            outbox: Position::new(),
            beside: Beside::default(),
            computed: false,
            everything: None,
            batch: Batch::first(),
            retrying: Retrying::default(),
        }
    }

    /// Works off some notes: those of the history's outbox where `with_outbox`, and those of the
    /// table.
    ///
    /// # Errors
    /// [`CheckError`]; the notes stay.
    pub async fn step(&mut self, with_outbox: bool) -> Result<Step, CheckError> {
        let (step, few_notes) = self.work_off(with_outbox).await?;
        match few_notes && (self.note_more().await? || self.retry_more().await?) {
            true => Ok(Step::Worked),
            false => Ok(step),
        }
    }

    /// The same; and whether but few notes are left.
    async fn work_off(&mut self, with_outbox: bool) -> Result<(Step, bool), CheckError> {
        self.hear_of_rows(Duration::ZERO).await?;
        let mut outbox = None;
        let outbox_first = std::mem::take(&mut self.computed);
        if with_outbox && outbox_first {
            outbox = self.take_outbox().await?;
        }
        let (mut holding, notes, few_notes) =
            match outbox.is_none() && !self.beside.is_about_to_end() {
                true => self.notes.take(&self.batch, &self.beside).await?,
                false => (None, Vec::new(), false),
            };
        let (rows, notes): (Vec<_>, Vec<_>) = notes
            .into_iter()
            .partition(|(_, note)| matches!(note, Note::Key(_)));
        if !rows.is_empty() {
            // No transaction stays open meanwhile: two drains may do the same then, which only costs.
            holding = None;
            self.compute(rows);
        }
        if with_outbox && !outbox_first {
            outbox = self.take_outbox().await?;
        }
        if outbox.is_none() && notes.is_empty() {
            if !self.beside.is_at_work() {
                return Ok((Step::Idle, few_notes));
            }
            self.hear_of_rows(BESIDE).await?;
            return Ok((Step::Worked, few_notes));
        }
        let ids: Vec<i64> = notes.iter().map(|(id, _)| *id).collect();
        let runs = outbox
            .as_ref()
            .map_or(Vec::new(), |taken| taken.runs.clone());
        let noted = Noted::of(runs, notes);
        let looked_at = noted.len();
        let apply = Apply {
            store: &self.store,
            history: &self.history,
            metrics: self
                .metrics
                .as_deref()
                .map(|metrics| (metrics, Source::Capture)),
            fence: None,
        };
        let began = Instant::now();
        let applied = {
            let mut applying = pin!(apply.noted(noted, Held { tx: holding, ids }));
            match timeout(HOLD, &mut applying).await {
                Ok(applied) => applied,
                Err(_) => {
                    outbox.iter_mut().for_each(Taken::release);
                    applying.await
                }
            }
        };
        self.batch.took(looked_at, began.elapsed());
        self.heard(applied?);
        // What the notes led to is committed: now those of the outbox may go, too.
        if let Some(outbox) = outbox {
            outbox.let_go(&self.identity().await?).await?;
        }
        Ok((Step::Worked, few_notes))
    }

    /// Computes these rows beside what is fresh; those for which there is no place now, later.
    fn compute(&mut self, rows: Vec<(i64, Note)>) {
        self.beside.make_way();
        let seen = self.notes.seen();
        for (lane, rows) in self.beside.lanes(rows, seen) {
            match rows.is_empty() || self.beside.is_free(lane) {
                true if rows.is_empty() => {}
                true => self.begin(lane, rows),
                false => self
                    .notes
                    .pass_over(lane == Lane::Quick || rows.len() <= SMALL),
            }
        }
    }

    fn begin(&mut self, lane: Lane, rows: Vec<(i64, Note)>) {
        let (store, history) = (self.store.clone(), Arc::clone(&self.history));
        let metrics = self.metrics.clone();
        self.beside.begin(lane, rows, |rows, is_read| async move {
            let metrics = metrics.as_deref();
            let apply = Apply {
                store: &store,
                history: &history,
                metrics: metrics.map(|metrics| (metrics, Source::Capture)),
                fence: None,
            };
            apply.rows(rows, &is_read).await
        });
    }

    /// Hears what came of the rows that are being computed, where that is known within this time.
    async fn hear_of_rows(&mut self, within: Duration) -> Result<(), CheckError> {
        if let Some(applied) = self.beside.ended(within).await {
            self.computed = true;
            self.notes.rows_are_computed();
            let mut applied = applied?;
            let late = applied.late.take();
            self.heard(applied);
            if let Some(late) = late {
                // Their notes were seen.
                self.notes.restart();
                return Err(late.into());
            }
        }
        Ok(())
    }

    fn heard(&mut self, applied: Applied) {
        self.beside.are_heavy(&applied.heavy);
        if applied.tries_again {
            // Those notes are old ones.
            self.notes.restart();
        }
        // What was raised was noted.
        self.notes.expect();
    }

    /// Notes some more rows, where all of them have to be looked at; returns whether that is so.
    async fn note_more(&mut self) -> Result<bool, CheckError> {
        let Some(everything) = &mut self.everything else {
            return Ok(false);
        };
        self.notes.expect();
        if everything.note_more(&self.store).await? {
            let ids = everything.ids.clone();
            let identity = self.identity().await?;
            outbox::let_go(&self.history, &ids, &identity).await?;
            self.everything = None;
            // Another one may have asked for it meanwhile.
            self.outbox.restart();
        }
        Ok(true)
    }

    /// Has some more of what is set aside taken again; returns whether there was any.
    async fn retry_more(&mut self) -> Result<bool, CheckError> {
        let retrying = &mut self.retrying;
        if retrying.left == 0 {
            return Ok(false);
        }
        let ids = aside::retry(&self.store, retrying.behind).await?;
        retrying.left = match ids.iter().max() {
            Some(last) => {
                retrying.behind = *last;
                retrying.left.saturating_sub(ids.len() as u64)
            }
            None => 0,
        };
        self.notes.restart();
        Ok(!ids.is_empty())
    }

    /// Tries all that is set aside once more, as soon as it hears how much that is.
    pub(super) fn retry_all(&mut self) {
        self.retrying.is_due = true;
    }

    /// Hears how much is set aside.
    pub(super) fn saw_set_aside(&mut self, count: u64) {
        if std::mem::take(&mut self.retrying.is_due) {
            (self.retrying.behind, self.retrying.left) = (0, count);
        }
    }

    async fn take_outbox(&mut self) -> Result<Option<Taken>, CheckError> {
        let identity = self.identity().await?;
        let mut taken = outbox::take(
            &self.history,
            &mut self.outbox,
            &identity,
            self.batch.runs(),
        )
        .await?;
        if let Some(taken) = &mut taken
            && self.everything.is_none()
            && !taken.everything.is_empty()
        {
            let asked_by = std::mem::take(&mut taken.everything);
            self.everything = Some(Everything::asked_by(asked_by));
        }
        Ok(taken.filter(|taken| !taken.is_empty()))
    }

    /// The identity of the store, for which the notes of the outbox have to be.
    pub(super) async fn identity(&mut self) -> Result<Arc<str>, StoreError> {
        if let Some(identity) = &self.identity {
            return Ok(Arc::clone(identity));
        }
        let identity: Arc<str> = identity::of(&self.store).await?.into();
        self.identity = Some(Arc::clone(&identity));
        Ok(identity)
    }

    /// Whether more of the outbox waits than a step works off.
    pub(super) fn is_behind(&self) -> bool {
        self.outbox.is_behind()
    }

    /// Asks anew which store it is.
    pub(super) fn forget_identity(&mut self) {
        self.identity = None;
    }

    /// Whose the notes of the outbox are.
    pub(super) async fn whose_notes(&mut self, history: &History) -> Result<Notes, CheckError> {
        let identity = self.identity().await?;
        Ok(Notes::of(history, &identity).await?)
    }

    /// Works off the notes that stand now, then those that they led to, a few times over: what others
    /// note meanwhile is theirs. Notes that another drain took are waited for.
    ///
    /// # Errors
    /// [`CheckError`].
    pub async fn settle_all(&mut self) -> Result<(), CheckError> {
        for _ in 0..GENERATIONS {
            let Some((first, newest)) = note::ends(&self.store, 0).await? else {
                return Ok(());
            };
            let mut last = Instant::now();
            loop {
                if self.step(false).await? == Step::Worked {
                    last = Instant::now();
                }
                match note::ends(&self.store, first).await? {
                    Some((first, _)) if first <= newest => {}
                    _ => break,
                }
                if last.elapsed() > SETTLE_WITHIN {
                    return Ok(());
                }
                if last.elapsed() > SETTLE_EVERY {
                    self.notes.restart();
                    tokio::time::sleep(SETTLE_EVERY).await;
                }
            }
        }
        Ok(())
    }
}
