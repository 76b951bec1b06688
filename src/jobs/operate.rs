//! What operators do with jobs.

use crate::store::job::{self, JobRow, State, Transition};
use crate::store::{Store, StoreError, with_retries};

/// Tries of what another job kept from being done, which ended before it could be named.
const TRIES: u32 = 3;

/// Why a request about a job is refused.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// There is no such job.
    Unknown,
    /// Its state does not allow it.
    State(State),
    /// Another job, whose scope overlaps, is active.
    Overlaps { job: String },
    /// The table failed.
    Store(StoreError),
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Pauses, cancels or resumes a job; one that is so already stays as it is. Its worker, if it has one,
/// hears of it with its next look or transaction.
pub(crate) async fn transition(
    store: &Store,
    id: &str,
    transition: Transition,
) -> Result<JobRow, Refusal> {
    for _ in 0..TRIES {
        let done = match with_retries(|| job::transition(store, id, transition)).await {
            Err(StoreError::Refused(_)) => None,
            done => Some(done?),
        };
        let job = job::get(store, id).await?.ok_or(Refusal::Unknown)?;
        if done == Some(true) || is_where_it_leads(transition, job.state) {
            return Ok(job);
        }
        if done == Some(false) {
            return Err(Refusal::State(job.state));
        }
        let other = job::overlapping(store, id, job.workspace.as_ref()).await?;
        if let Some((other, _)) = other {
            return Err(Refusal::Overlaps { job: other });
        }
    }
    let busy = "the jobs that overlap change too fast";
    Err(StoreError::Conflict(sqlx::Error::Protocol(busy.into())).into())
}

/// A request that is repeated finds what the first one did.
fn is_where_it_leads(transition: Transition, state: State) -> bool {
    match transition {
        Transition::Pause => state == State::Paused,
        Transition::Cancel => state == State::Cancelled,
        Transition::Resume => matches!(state, State::Queued | State::Running),
    }
}
