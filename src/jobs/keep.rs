//! Keeping a job while it is worked at.

use std::time::{Duration, Instant};

use super::{JobError, Outcome};
use crate::store::job::{Fence, LEASE, State};
use crate::store::{Store, StoreError};
use crate::telemetry::chain;

/// How often the job is kept ours: several times within its lease, also while one query of the history
/// takes minutes.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(10);
const _: () = assert!(HEARTBEAT.as_secs() * 2 < LEASE.as_secs());
/// How often it is looked whether an operator stopped it: what "at once" means to people.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Does `work` for as long as the job is ours; then it is dropped where it is.
///
/// # Errors
/// Those of `work`; [`StoreError::LostJob`] where the job is no longer ours.
pub(super) async fn keep<T>(
    store: &Store,
    fence: &Fence,
    work: impl Future<Output = Result<T, JobError>>,
) -> Result<T, JobError> {
    tokio::select! {
        done = work => done,
        () = lost(store, fence) => Err(StoreError::LostJob.into()),
    }
}

/// Ends when the job is no longer ours.
async fn lost(store: &Store, fence: &Fence) {
    let mut beat = Instant::now();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let looked = match beat.elapsed() < HEARTBEAT {
            true => fence
                .look(store)
                .await
                .map(|state| state == Some(State::Running)),
            false => match fence.renew(store).await {
                Ok(()) => {
                    beat = Instant::now();
                    Ok(true)
                }
                Err(StoreError::LostJob) => Ok(false),
                Err(error) => Err(error),
            },
        };
        match looked {
            Ok(true) => {}
            Ok(false) => return,
            // The work meets it too, and says so; each of its transactions proves the job again.
            Err(error) => {
                let error = chain(&error);
                tracing::debug!(error, "the job could not be looked at");
            }
        }
    }
}

/// Why the job is no longer ours: an operator's word is an outcome, a takeover a failure.
pub(super) async fn why_lost(
    store: &Store,
    fence: &Fence,
    kind: &'static str,
) -> Result<Outcome, JobError> {
    let job = fence.id.clone();
    match fence.look(store).await? {
        Some(State::Paused) => Ok(Outcome::Paused { job }),
        Some(State::Cancelled) => Ok(Outcome::Cancelled { job }),
        _ => Err(JobError::LostLease { kind }),
    }
}
