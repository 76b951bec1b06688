//! Getting hold of a job, by a command.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::{Event, JobError, Outcome};
use crate::history::HistoryError;
use crate::store::job::{self, Held, Job, NewJob, State, Work};
use crate::store::{Store, StoreError};
use crate::telemetry::chain;

/// How often a command that waits for another's lease looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// How long a worker that is frozen is waited for: its transaction may rest for thirty seconds, behind its
/// lease of as many.
const FROZEN: Duration = Duration::from_secs(75);

/// Where new work ends, and about how much it is.
pub(super) type Range = (Option<String>, Option<u64>);

/// Takes over an unfinished job (where `resume`) or starts a new one over a `range`; waits for the lease
/// of a worker that may be dead. The outcome instead, where it was stopped meanwhile, or an operator
/// holds the job back.
pub(super) async fn hold<R>(
    store: &Store,
    work: Work<'_>,
    resume: bool,
    range: impl AsyncFn() -> Result<Range, HistoryError>,
    stop: &mut watch::Receiver<bool>,
    tell: &mut impl FnMut(Event<R>),
) -> Result<Result<Job, Outcome>, JobError> {
    let (started, mut waited) = (Instant::now(), None);
    loop {
        match job::hold(store, work, resume).await {
            Ok(Held::Resumed(job)) => {
                // Without a cursor it begins anew.
                if job.cursor.is_some() {
                    tell(Event::Resumed {
                        scanned: job.scanned,
                    });
                }
                return Ok(Ok(job));
            }
            Ok(Held::Nothing) => {
                prune(store).await;
                let (range_end, total) = range().await?;
                let new = NewJob {
                    work,
                    state: State::Running,
                    range_end: range_end.as_deref(),
                    total,
                    idempotency_key: None,
                };
                match job::start(store, new).await {
                    // Another one started at the same moment: look who.
                    Err(StoreError::Refused(_)) => continue,
                    started => return Ok(Ok(started?)),
                }
            }
            Ok(Held::Back { id }) => return Ok(Err(Outcome::Paused { job: id })),
            Ok(Held::Busy {
                id,
                kind,
                lease_until,
                remaining,
            }) => match waited {
                // It lives: it prolonged its lease, or somebody else's job keeps its worker busy.
                Some((lease, until)) if lease != lease_until || until < Instant::now() => {
                    return Err(JobError::Busy { kind, job: id });
                }
                Some(_) => {}
                None => {
                    waited = Some((lease_until, Instant::now() + remaining + LOOK_AGAIN * 2));
                    tell(Event::Waiting {
                        kind,
                        job: id,
                        remaining,
                    });
                }
            },
            // A worker that is frozen in the middle of a transaction has the job's row until the database
            // ends that.
            Err(error) if error.is_statement_timeout() && started.elapsed() < FROZEN => {}
            // One that overlaps began while this one was about to be taken over: look who.
            Err(StoreError::Refused(_)) => continue,
            Err(error) => return Err(error.into()),
        }
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return Ok(Err(Outcome::Stopped)),
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }
}

/// Deletes finished jobs that were kept long enough. The next one who comes by does it too.
pub(super) async fn prune(store: &Store) {
    if let Err(error) = job::prune(store).await {
        let error = chain(&error);
        tracing::debug!(error, "finished jobs were not pruned");
    }
}
