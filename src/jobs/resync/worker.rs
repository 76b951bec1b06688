//! Working at a re-sync's job.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::super::counts::Counts;
use super::super::keep::{keep, why_lost};
use super::super::settle::settle;
use super::super::{JobError, Outcome, RESYNC, analyze};
use super::cursor::Cursor;
use super::throttle::Throttle;
use super::{Mode, Options, Report, With};
use crate::history::{HistoryError, Tally, Unmappable};
use crate::store::job::{self, End, Job, PlanLine};
use crate::store::recent::{self, MAX_KEYS};
use crate::store::{Store, StoreError, with_retries};
use crate::telemetry::chain;

/// Tries without progress before the job fails, and the first pause between them; each next one is twice
/// as long: a database that restarts is back within them.
const TRIES: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Works at a job until it is done, fails, or `stop` turns true; then it ends as `stopped` says.
///
/// # Errors
/// [`JobError`]; the job says it too.
pub(crate) async fn work(
    with: &With,
    job: Job,
    stop: &mut watch::Receiver<bool>,
    stopped: End<'_>,
    tell: &mut impl FnMut(Report),
) -> Result<(Outcome, Report), JobError> {
    let fence = job.fence.clone();
    let mut worker = Worker::new(with, job, tell);
    let working = async {
        worker.until_done().await?;
        if with.settles && !worker.options.dry_run {
            settle(&with.store, &with.history).await?;
        }
        Ok(())
    };
    let working = keep(&with.store, &fence, working);
    let done = tokio::select! {
        biased;
        // What is not written down yet is read again by whoever goes on.
        _ = stop.wait_for(|stop| *stop) => Ok(Outcome::Stopped),
        done = working => done.map(|()| Outcome::Complete),
    };
    let report = worker.report(&Tally::default());
    let store = &with.store;
    let outcome = match done {
        Ok(Outcome::Complete) => {
            fence.let_go(store, End::Succeeded).await?;
            Outcome::Complete
        }
        Ok(outcome) => {
            fence.let_go(store, stopped).await?;
            outcome
        }
        Err(error) if error.is_lost() => why_lost(store, &fence, RESYNC).await?,
        Err(error) => {
            // Best effort: where this fails too, the lease runs out by itself.
            let _ = fence.let_go(store, End::Failed(&error.outward())).await;
            return Err(error);
        }
    };
    Ok((outcome, report))
}

/// A worker that holds its job.
pub(super) struct Worker<'a, T> {
    pub(super) with: &'a With,
    pub(super) job: Job,
    pub(super) options: Options,
    pub(super) cursor: Cursor,
    pub(super) counts: Counts,
    pub(super) unmappable: Unmappable,
    pub(super) throttle: Throttle<'a>,
    /// Runs and rows that earlier workers looked at.
    pub(super) before: u64,
    pub(super) started: Instant,
    pub(super) tell: &'a mut T,
}

impl<'a, T: FnMut(Report)> Worker<'a, T> {
    fn new(with: &'a With, job: Job, tell: &'a mut T) -> Self {
        let options = Options::read(&job.options).unwrap_or_default();
        let counts = Counts::of(&job);
        Self {
            with,
            options,
            cursor: Cursor::of(job.cursor.as_deref(), options.mode),
            unmappable: Unmappable::default(),
            throttle: Throttle::new(&with.history, with.pause_while.as_deref()),
            before: scanned(&counts),
            counts,
            job,
            started: Instant::now(),
            tell,
        }
    }

    /// Returns as soon as the database is well.
    pub(super) async fn wait_until_well(&mut self) -> Result<(), JobError> {
        let held_up = Report {
            is_held_up: true,
            ..self.report(&Tally::default())
        };
        Ok(self.throttle.ready(|| (self.tell)(held_up)).await?)
    }

    pub(super) fn report(&self, pending: &Tally) -> Report {
        let mut tally = self.counts.tally;
        tally.add(pending);
        let mut report = Report {
            job: self.job.fence.id.clone(),
            tally,
            rows: self.counts.rows,
            changes: self.counts.changes,
            omitted: match self.options.dry_run {
                true => self.counts.changes.in_all() - self.counts.kept,
                false => 0,
            },
            total: self.job.total,
            scanned_now: 0,
            elapsed: self.started.elapsed(),
            unmappable: 0,
            passed_over: self.unmappable.clone(),
            is_held_up: false,
        };
        report.unmappable = Counts {
            tally,
            unmappable: self.counts.unmappable.max(self.unmappable.count()),
            ..self.counts
        }
        .unmappable();
        report.scanned_now = report.scanned().saturating_sub(self.before);
        report
    }

    /// Tries again where that may help, a bounded number of times without progress.
    async fn until_done(&mut self) -> Result<(), JobError> {
        self.begin().await?;
        let mut failed_at = None;
        let (mut tries, mut pause) = (1, FIRST_PAUSE);
        loop {
            let error = match self.go_on().await {
                Err(error) if is_passing(&error) => error,
                done => return done,
            };
            if failed_at.as_ref() != Some(&self.cursor) {
                (failed_at, tries, pause) = (Some(self.cursor.clone()), 1, FIRST_PAUSE);
            }
            if tries == TRIES {
                return Err(error);
            }
            tracing::warn!(
                error = chain(&error),
                job = self.job.fence.id,
                "the re-sync tries again"
            );
            tokio::time::sleep(pause).await;
            tries += 1;
            pause *= 2;
        }
    }

    /// What has to be known and done before the first look.
    async fn begin(&mut self) -> Result<(), JobError> {
        if self.job.cursor.is_none() && self.options.dry_run {
            let mut tx = self.with.store.begin().await?;
            self.job.fence.check(&mut tx).await?;
            job::clear_plan(tx.conn(), &self.job.fence.id).await?;
            tx.commit().await?;
        }
        if self.job.workspace.is_none() && self.job.total.is_none() {
            // Only for those who watch: where it cannot be told soon, they do without.
            let runs = self.with.history.about_how_many().await.ok().flatten();
            let rows = match self.options.mode {
                Mode::Merge => Some(0),
                Mode::Rebuild => recent::count(&self.with.store).await.ok(),
            };
            self.job.total = runs.zip(rows).map(|(runs, rows)| runs + rows);
        }
        Ok(())
    }

    async fn go_on(&mut self) -> Result<(), JobError> {
        self.wait_until_well().await?;
        if let Cursor::Rows(_) = self.cursor {
            self.rows().await?;
            self.save(Cursor::Runs(None), self.counts, &[]).await?;
        }
        self.runs().await?;
        if self.job.workspace.is_none() && !self.options.dry_run {
            analyze(&self.with.store).await;
        }
        Ok(())
    }

    /// Writes down how far it came, with the lines of the plan up to there.
    pub(super) async fn save(
        &mut self,
        cursor: Cursor,
        mut counts: Counts,
        lines: &[PlanLine],
    ) -> Result<(), JobError> {
        let now = scanned(&counts).saturating_sub(self.before);
        counts.per_second = now as f64 / self.started.elapsed().as_secs_f64().max(0.001);
        counts.unmappable = counts.unmappable.max(self.unmappable.count());
        let mut job = self.job.clone();
        job.cursor = Some(cursor.text());
        job.scanned = scanned(&counts);
        job.counts = counts.text();
        with_retries(|| save(&self.with.store, &job, lines)).await?;
        (self.job, self.cursor, self.counts) = (job, cursor, counts);
        Ok(())
    }
}

async fn save(store: &Store, job: &Job, lines: &[PlanLine]) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    // First: it proves that the job is ours.
    job.save(tx.conn()).await?;
    for chunk in lines.chunks(MAX_KEYS) {
        job::add_to_plan(tx.conn(), &job.fence.id, chunk).await?;
    }
    tx.commit().await
}

fn scanned(counts: &Counts) -> u64 {
    counts.tally.scanned + counts.rows
}

/// Whether the same again may succeed, some seconds later.
fn is_passing(error: &JobError) -> bool {
    match error {
        JobError::Store(error) => {
            matches!(error, StoreError::Unavailable(_) | StoreError::Conflict(_))
        }
        JobError::History(error) => match error {
            HistoryError::Database(_) => !error.is_of_the_data(),
            HistoryError::TimedOut(_) | HistoryError::Window { .. } => true,
            HistoryError::Outbox { .. } | HistoryError::BrokenOff => true,
            _ => false,
        },
        _ => false,
    }
}
