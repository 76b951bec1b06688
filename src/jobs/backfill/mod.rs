//! The backfill: seeds the table from the history.

mod checkpoint;
mod dry_run;
mod error;
mod hold;
mod origin;

use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::sleep_until;

use crate::history::{Gathered, Stretch, Tally};
use crate::store::job::{End, Job, LEASE};
use crate::store::{Store, recent, with_retries};

use checkpoint::Counts;

pub use error::BackfillError;
pub use origin::Origin;

/// How often what was read is written: what a crash costs, against the writes of hot rows.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(2);
/// At least so many times as long as a checkpoint took is read before the next: where every window
/// touches most of the table, writing it all every two seconds would take longer than reading.
const READ_FOR_WRITE: u32 = 4;
/// Memory of the uses that wait to be written.
const FOLD_BYTES: usize = 32 * 1024 * 1024;
/// How often the job is kept ours, at the least: several times within its lease, which ends a worker
/// that lets it run out, also where nobody else wants the job.
const HEARTBEAT: Duration = Duration::from_secs(10);
const _: () = assert!(HEARTBEAT.as_secs() * 2 < LEASE.as_secs());

/// How long is read before the next checkpoint, when one took that long.
fn rest_after(took: Duration) -> Duration {
    (took * READ_FOR_WRITE).clamp(CHECKPOINT_EVERY, HEARTBEAT)
}

/// How to backfill.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Begin anew, whatever an earlier backfill did.
    pub restart: bool,
    /// Only tell what would change.
    pub dry_run: bool,
    /// Note every row that changes: where a history is configured, the drain asks it again.
    pub noting: bool,
}

/// What happens meanwhile.
#[derive(Debug, Clone)]
pub enum Event {
    /// Another backfill holds the job; this one waits for its lease to end.
    Waiting {
        /// The other's job.
        job: String,
        /// For how long at the most.
        remaining: Duration,
    },
    /// An earlier backfill goes on.
    Resumed {
        /// Runs that it read.
        scanned: u64,
    },
    /// So far.
    Progress(Report),
}

/// What a backfill did.
#[derive(Debug, Clone, Copy, Default)]
pub struct Report {
    /// Runs that were read, those of an earlier part included.
    pub tally: Tally,
    /// Runs read by this process.
    pub scanned_now: u64,
    /// Rows inserted or raised; of a dry run, those that would be.
    pub applied: u64,
    /// About how many runs there are.
    pub total: Option<u64>,
    /// Time of this process.
    pub elapsed: Duration,
}

/// How a backfill ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Everything is in the table.
    Complete,
    /// It was stopped; the same again goes on.
    Stopped,
}

/// Runs a backfill until it is done, fails, or `stop` turns true.
///
/// # Errors
/// [`BackfillError`]. What was written stays, and the same backfill goes on from there.
pub async fn run(
    store: &Store,
    origin: Origin,
    options: Options,
    mut stop: watch::Receiver<bool>,
    mut tell: impl FnMut(Event),
) -> Result<(Outcome, Report), BackfillError> {
    if options.dry_run {
        return dry_run::dry_run(store, origin, stop, tell).await;
    }
    let Some(mut job) = hold::hold(store, &origin, options, &mut stop, &mut tell).await? else {
        return Ok((Outcome::Stopped, Report::default()));
    };
    let mut counts = Counts::of(&job);
    if job.cursor.is_none() {
        counts = Counts::default();
    }
    let before = counts.tally.scanned;
    let report = |counts: &Counts, pending: &Tally, total, started: Instant| {
        let mut tally = counts.tally;
        tally.add(pending);
        let scanned_now = tally.scanned - before;
        Report {
            tally,
            scanned_now,
            applied: counts.applied,
            total,
            elapsed: started.elapsed(),
        }
    };
    let (started, total) = (Instant::now(), job.total);
    let mut work = Work {
        store,
        job: &mut job,
        counts: &mut counts,
        pending: Stretch::default(),
        gathered: Gathered::default(),
        noting: options.noting,
    };
    let done = work
        .read(origin, &mut stop, |counts, pending| {
            let total = pending.total.or(total);
            tell(Event::Progress(report(
                counts,
                &pending.tally,
                total,
                started,
            )));
        })
        .await;
    let report = report(&counts, &Tally::default(), total, started);
    match done {
        Ok(outcome) => {
            let end = match outcome {
                Outcome::Complete => {
                    // Sooner or later autovacuum does it too.
                    if let Err(error) = with_retries(|| recent::analyze(store)).await {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(error, "the table was not analyzed");
                    }
                    End::Succeeded
                }
                Outcome::Stopped => End::Paused,
            };
            job.end(store, end).await?;
            Ok((outcome, report))
        }
        Err(BackfillError::LostLease) => Err(BackfillError::LostLease),
        Err(error) => {
            // Best effort: where this fails too, the lease runs out by itself.
            let _ = job.end(store, End::Failed(&error.to_string())).await;
            Err(error)
        }
    }
}

/// A backfill that holds its job.
struct Work<'a> {
    store: &'a Store,
    job: &'a mut Job,
    counts: &'a mut Counts,
    /// Read, and not written yet.
    pending: Stretch,
    /// Its uses, and some that were read behind it.
    gathered: Gathered,
    noting: bool,
}

impl Work<'_> {
    /// Reads to the end, or until it is stopped, and writes at every checkpoint.
    async fn read(
        &mut self,
        origin: Origin,
        stop: &mut watch::Receiver<bool>,
        mut tell: impl FnMut(&Counts, &Stretch),
    ) -> Result<Outcome, BackfillError> {
        let stretches = origin.stretches(self.job.cursor.clone(), self.job.range_end.clone());
        let Some(mut stretches) = stretches else {
            return Ok(Outcome::Complete);
        };
        self.gathered = stretches.gathered.clone();
        self.pending.cursor.clone_from(&self.job.cursor);
        let mut next_checkpoint = Instant::now() + CHECKPOINT_EVERY;
        loop {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => {
                    self.write().await?;
                    return Ok(Outcome::Stopped);
                }
                () = sleep_until(next_checkpoint.into()) => {
                    let started = Instant::now();
                    if self.pending.cursor.is_some() {
                        self.write().await?;
                    } else {
                        // Without a cursor, writing now would only mean writing again later.
                        checkpoint::save(self.store, self.job, self.counts).await?;
                    }
                    next_checkpoint = Instant::now() + rest_after(started.elapsed());
                }
                next = stretches.next() => match next {
                    Ok(Some(stretch)) => {
                        self.pending.append(stretch);
                        tell(self.counts, &self.pending);
                        if self.gathered.bytes() > FOLD_BYTES {
                            self.write().await?;
                            next_checkpoint = Instant::now() + CHECKPOINT_EVERY;
                        }
                    }
                    Ok(None) => {
                        self.write().await?;
                        return Ok(Outcome::Complete);
                    }
                    Err(error) => {
                        // All before it was read, without a gap: keep it.
                        self.write().await?;
                        return Err(error.into());
                    }
                },
            }
        }
    }

    async fn write(&mut self) -> Result<(), BackfillError> {
        let cursor = self.pending.cursor.clone();
        let pending = std::mem::replace(
            &mut self.pending,
            Stretch {
                cursor,
                ..Stretch::default()
            },
        );
        let uses = self.gathered.take();
        let to = checkpoint::To {
            store: self.store,
            noting: self.noting,
        };
        checkpoint::write(to, self.job, self.counts, pending, uses).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_never_runs_out_between_two_checkpoints() {
        for (took, rest) in [(0, 2), (1, 4), (2, 8), (3, 10), (60, 10)] {
            assert_eq!(
                rest_after(Duration::from_secs(took)),
                Duration::from_secs(rest)
            );
        }
    }
}
