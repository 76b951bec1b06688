//! The backfill: seeds the table from the history.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::BACKFILL;
use super::checkpoint::{self, Counts};
use crate::history::file::FileSource;
use crate::history::{History, HistoryError, Stretch, Stretches, Tally, windows};
use crate::model::Time;
use crate::store::job::{self, End, Held, Job, NewJob};
use crate::store::recent::{self, MAX_KEYS};
use crate::store::{Store, StoreError};

/// How often what was read is written: what a crash costs, against the writes of hot rows.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(2);
/// Memory of the uses that wait to be written.
const FOLD_BYTES: usize = 40 * 1024 * 1024;
/// How often a backfill that waits for another's lease looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Where the runs come from.
#[derive(Debug, Clone)]
pub enum Origin {
    /// The configured history, by windows of at most this many runs.
    Windows(Arc<History>, u32),
    /// The configured history, in a single stream over one snapshot.
    OnePass(Arc<History>),
    /// A file.
    File(FileSource),
}

/// How to backfill.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Begin anew, whatever an earlier backfill did.
    pub restart: bool,
    /// Only tell what would change.
    pub dry_run: bool,
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

/// Why a backfill failed.
#[derive(Debug, thiserror::Error)]
pub enum BackfillError {
    /// Another one is at work.
    #[error("another backfill of this table is at work (job {job}); wait for it, or stop it")]
    Busy {
        /// The other's job.
        job: String,
    },
    /// Another one took the job over.
    #[error("another backfill took this one over, because it said nothing for 30 seconds")]
    LostLease,
    /// The history failed.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The table failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Origin {
    /// What tells this origin from others, so that a cursor is never applied to another one.
    fn identity(&self) -> Result<String, HistoryError> {
        Ok(match self {
            Self::Windows(history, _) => format!("windows {}", identity_of(history)),
            Self::OnePass(history) => format!("one pass {}", identity_of(history)),
            Self::File(file) => file.identity()?,
        })
    }

    async fn last_key(&self) -> Result<Option<String>, HistoryError> {
        match self {
            Self::Windows(history, _) => history.last_key().await,
            Self::OnePass(_) | Self::File(_) => Ok(None),
        }
    }

    async fn total(&self) -> Result<Option<u64>, HistoryError> {
        match self {
            Self::Windows(history, _) | Self::OnePass(history) => history.about_how_many().await,
            Self::File(_) => Ok(None),
        }
    }

    /// Its stretches behind `cursor`; `None` for a history without a single run.
    fn stretches(self, cursor: Option<String>, range_end: Option<String>) -> Option<Stretches> {
        Some(match self {
            Self::Windows(history, runs) => windows::walk(history, cursor, range_end?, runs),
            Self::OnePass(history) => windows::one_pass(history, None),
            Self::File(file) => file.read(cursor.as_deref()),
        })
    }
}

fn identity_of(history: &History) -> String {
    let mapping = &history.mapping;
    let hash = Sha256::digest(format!(
        "{}\0{}\0{}",
        mapping.table, mapping.key, mapping.query
    ));
    let hash: String = hash
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{} {hash}", mapping.table)
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
        return dry_run(store, origin, stop, tell).await;
    }
    let Some(mut job) = hold(store, &origin, options, &mut stop, &mut tell).await? else {
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
                Outcome::Complete => End::Succeeded,
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

/// Takes over an unfinished job or starts a new one; waits for the lease of a worker that may be
/// dead. `None` where it was stopped meanwhile.
async fn hold(
    store: &Store,
    origin: &Origin,
    options: Options,
    stop: &mut watch::Receiver<bool>,
    tell: &mut impl FnMut(Event),
) -> Result<Option<Job>, BackfillError> {
    let source = origin.identity()?;
    let mut first_lease: Option<Time> = None;
    loop {
        match job::hold(store, BACKFILL, &source, !options.restart).await? {
            Held::Resumed(job) => {
                tell(Event::Resumed {
                    scanned: job.scanned,
                });
                return Ok(Some(job));
            }
            Held::Nothing => {
                let range_end = origin.last_key().await?;
                let (range_end, total) = (range_end.as_deref(), origin.total().await?);
                let new = NewJob {
                    kind: BACKFILL,
                    source: &source,
                    range_end,
                    total,
                };
                match job::start(store, new).await {
                    // Another one started at the same moment: look who.
                    Err(StoreError::Refused(_)) => continue,
                    started => return Ok(Some(started?)),
                }
            }
            Held::Busy {
                id,
                lease_until,
                remaining,
            } => match first_lease {
                // It lives: it prolonged its lease.
                Some(lease) if lease != lease_until => return Err(BackfillError::Busy { job: id }),
                Some(_) => {}
                None => {
                    first_lease = Some(lease_until);
                    tell(Event::Waiting { job: id, remaining });
                }
            },
        }
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return Ok(None),
            () = tokio::time::sleep(LOOK_AGAIN) => {}
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
        self.pending.cursor.clone_from(&self.job.cursor);
        let mut checkpoint = tokio::time::interval(CHECKPOINT_EVERY);
        checkpoint.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        checkpoint.reset();
        loop {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => {
                    self.write().await?;
                    return Ok(Outcome::Stopped);
                }
                _ = checkpoint.tick() => self.write().await?,
                next = stretches.next() => match next {
                    Ok(Some(stretch)) => {
                        self.pending.append(stretch);
                        tell(self.counts, &self.pending);
                        if self.pending.fold.bytes() > FOLD_BYTES {
                            self.write().await?;
                            checkpoint.reset();
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
        checkpoint::write(self.store, self.job, self.counts, pending).await
    }
}

/// Reads everything and counts the rows that would change, writing nothing. Where the uses do not
/// fit into memory at once, a row may be counted more than once.
async fn dry_run(
    store: &Store,
    origin: Origin,
    mut stop: watch::Receiver<bool>,
    mut tell: impl FnMut(Event),
) -> Result<(Outcome, Report), BackfillError> {
    let (started, total) = (Instant::now(), origin.total().await?);
    let mut report = Report {
        total,
        ..Report::default()
    };
    let range_end = origin.last_key().await?;
    let Some(mut stretches) = origin.stretches(None, range_end) else {
        return Ok((Outcome::Complete, report));
    };
    let mut pending = Stretch::default();
    loop {
        let next = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return Ok((Outcome::Stopped, report)),
            next = stretches.next() => next?,
        };
        let end = next.is_none();
        if let Some(stretch) = next {
            report.tally.add(&stretch.tally);
            pending.append(stretch);
        }
        if end || pending.fold.bytes() > FOLD_BYTES {
            for chunk in std::mem::take(&mut pending)
                .fold
                .into_sorted()
                .chunks(MAX_KEYS)
            {
                report.applied += recent::outdone(store, chunk).await?.len() as u64;
            }
        }
        report.scanned_now = report.tally.scanned;
        report.elapsed = started.elapsed();
        tell(Event::Progress(report));
        if end {
            return Ok((Outcome::Complete, report));
        }
    }
}
