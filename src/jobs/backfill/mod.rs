//! The backfill: seeds the table from the history.

mod dry_run;
mod origin;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::counts::Counts;
use super::hold::hold;
use super::keep::{keep, why_lost};
use super::settle::settle;
use super::walk::{FOLD_BYTES, Sink, walk};
use super::{BACKFILL, JobError, analyze, write};
use crate::cache::{Changed, Reason};
use crate::history::{History, Stretch, Tally, Unmappable};
use crate::record::Fold;
use crate::store::job::{End, Job, Work};
use crate::store::{Store, with_retries};

pub use super::Outcome;
pub use dry_run::dry_run;
pub use origin::Origin;
pub(super) use origin::identity_of;

/// How to backfill.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Begin anew, whatever an earlier backfill did.
    pub restart: bool,
    /// Only tell what would change.
    pub dry_run: bool,
    /// The history that is configured, whatever is read: every row that changes is noted, and in the end
    /// looked at once more.
    pub history: Option<Arc<History>>,
}

/// What happens meanwhile.
pub type Event = super::Event<Report>;

/// What a backfill did.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Runs that were read, those of an earlier part included.
    pub tally: Tally,
    /// Runs read by this process.
    pub scanned_now: u64,
    /// Rows inserted or raised; of a dry run, those that would be.
    pub applied: u64,
    /// Whether some of those may have been counted more than once.
    pub at_most: bool,
    /// About how many runs there are.
    pub total: Option<u64>,
    /// Time of this process.
    pub elapsed: Duration,
    /// Runs that this process passed over.
    pub unmappable: Unmappable,
    /// Whether nothing is left to be read.
    pub all_read: bool,
}

/// Runs a backfill until it is done, fails, or `stop` turns true.
///
/// # Errors
/// [`JobError`]. What was written stays, and the same backfill goes on from there.
pub async fn run(
    store: &Store,
    origin: Origin,
    options: Options,
    mut stop: watch::Receiver<bool>,
    mut tell: impl FnMut(Event),
) -> Result<(Outcome, Report), JobError> {
    if options.dry_run {
        return dry_run(store, origin, FOLD_BYTES, stop, tell).await;
    }
    let source = origin.identity().await?;
    let work = Work {
        kind: BACKFILL,
        workspace: None,
        options: "{}",
        source: &source,
    };
    let range = async || Ok((origin.last_key().await?, origin.total().await?));
    let held = hold(store, work, !options.restart, range, &mut stop, &mut tell).await?;
    let job = match held {
        Ok(job) => job,
        Err(outcome) => return Ok((outcome, Report::default())),
    };
    let (fence, cursor) = (job.fence.clone(), job.cursor.clone());
    let counts = Counts::of(&job);
    let mut backfill = Backfill {
        to: write::To {
            store,
            noting: options.history.is_some(),
        },
        before: counts.tally.scanned,
        started: Instant::now(),
        counts,
        unmappable: Unmappable::default(),
        all_read: false,
        job,
        tell: &mut tell,
    };
    let mut stop_settling = stop.clone();
    let stop = async { drop(stop.wait_for(|stop| *stop).await) };
    let work = async {
        let range_end = backfill.job.range_end.clone();
        let end = origin.end();
        if let Some(stretches) = origin.stretches(cursor.clone(), range_end, &backfill.unmappable) {
            let walked = walk(stretches, cursor, stop, &mut backfill).await?;
            if walked != Outcome::Complete {
                return Ok(walked);
            }
        }
        backfill.has_read_all(end).await?;
        analyze(store).await;
        let Some(history) = &options.history else {
            return Ok(Outcome::Complete);
        };
        tokio::select! {
            settled = settle(store, history) => settled.map(|()| Outcome::Complete),
            _ = stop_settling.wait_for(|stop| *stop) => Ok(Outcome::Stopped),
        }
    };
    let done = keep(store, &fence, work).await;
    let report = backfill.report(&Stretch::default());
    let outcome = match done {
        Ok(Outcome::Complete) => {
            // Also for one that was killed between a commit and the news of it, behind which this one went on.
            store.committed(&Changed::Everything, Reason::Change);
            fence.let_go(store, End::Succeeded).await?;
            Outcome::Complete
        }
        Ok(outcome) => {
            // It may have been stopped between a commit and the news of it.
            store.committed(&Changed::Everything, Reason::Change);
            fence.let_go(store, End::Paused).await?;
            outcome
        }
        Err(error) if error.is_lost() => why_lost(store, &fence, BACKFILL).await?,
        Err(error) => {
            // Best effort: where this fails too, the lease runs out by itself.
            let _ = fence.let_go(store, End::Failed(&error.outward())).await;
            return Err(error);
        }
    };
    Ok((outcome, report))
}

/// A backfill that holds its job.
struct Backfill<'a, T> {
    to: write::To<'a>,
    job: Job,
    counts: Counts,
    unmappable: Unmappable,
    all_read: bool,
    /// Runs that were read by earlier workers.
    before: u64,
    started: Instant,
    tell: &'a mut T,
}

impl<T> Backfill<'_, T> {
    fn report(&self, pending: &Stretch) -> Report {
        let mut tally = self.counts.tally;
        tally.add(&pending.tally);
        Report {
            tally,
            scanned_now: tally.scanned - self.before,
            applied: self.counts.changes.in_all(),
            at_most: false,
            total: pending.total.or(self.job.total),
            elapsed: self.started.elapsed(),
            unmappable: self.unmappable.clone(),
            all_read: self.all_read,
        }
    }
}

impl<T: FnMut(Event)> Backfill<'_, T> {
    /// Writes down that there is nothing left to read, where that is not what the cursor says by itself.
    async fn has_read_all(&mut self, end: Option<&str>) -> Result<(), JobError> {
        self.all_read = true;
        if self.job.cursor.is_none() && end.is_some() {
            self.job.cursor = end.map(Into::into);
            self.save().await?;
        }
        self.hear(&Stretch::default()).await
    }
}

impl<T: FnMut(Event)> Sink for Backfill<'_, T> {
    async fn hear(&mut self, pending: &Stretch) -> Result<(), JobError> {
        let report = self.report(pending);
        (self.tell)(Event::Progress(report));
        Ok(())
    }

    /// The rows come first, in transactions of their own: a crash between them and the cursor only
    /// repeats what changes nothing.
    async fn take(&mut self, stretch: Stretch, uses: Fold) -> Result<(), JobError> {
        let mut report = self.report(&stretch);
        let (tell, before) = (&mut *self.tell, report.applied);
        let raised = write::raise(self.to, &self.job.fence, uses, |raised| {
            report.applied = before + raised.changes.in_all();
            report.elapsed = self.started.elapsed();
            tell(Event::Progress(report.clone()));
        });
        let raised = raised.await?;
        self.counts.tally.add(&stretch.tally);
        self.counts.changes.add(raised.changes);
        self.job.cursor = stretch.cursor;
        self.job.total = stretch.total.or(self.job.total);
        self.save().await
    }

    async fn save(&mut self) -> Result<(), JobError> {
        let now = self.counts.tally.scanned - self.before;
        self.counts.per_second = now as f64 / self.started.elapsed().as_secs_f64().max(0.001);
        self.job.scanned = self.counts.tally.scanned;
        self.job.counts = self.counts.text();
        let (store, job) = (self.to.store, &self.job);
        let saved = with_retries(async || {
            let mut tx = store.begin().await?;
            job.save(tx.conn()).await?;
            tx.commit().await
        });
        saved.await?;
        Ok(())
    }
}
