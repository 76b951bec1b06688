//! Getting hold of a job, by a command.

use std::time::Duration;

use tokio::sync::watch;

use super::{Event, JobError, Outcome};
use crate::history::HistoryError;
use crate::model::Time;
use crate::store::job::{self, Held, Job, NewJob, State, Work};
use crate::store::{Store, StoreError};

/// How often a command that waits for another's lease looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

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
    let mut first_lease: Option<Time> = None;
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
                lease: None,
            }) => return Err(JobError::Busy { kind, job: id }),
            Ok(Held::Busy {
                id,
                kind,
                lease: Some((until, remaining)),
            }) => match first_lease {
                // It lives: it prolonged its lease.
                Some(lease) if lease != until => return Err(JobError::Busy { kind, job: id }),
                Some(_) => {}
                None => {
                    first_lease = Some(until);
                    tell(Event::Waiting {
                        kind,
                        job: id,
                        remaining,
                    });
                }
            },
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
        let error = &error as &dyn std::error::Error;
        tracing::debug!(error, "finished jobs were not pruned");
    }
}
