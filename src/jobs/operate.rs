//! What operators do with jobs.

use super::RESYNC;
use super::resync::Options;
use crate::model::Id;
use crate::store::job::{self, JobRow, NewJob, State, Transition, Work};
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
    /// The idempotency key came with another request before.
    KeyReused,
    /// The table failed.
    Store(StoreError),
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Asks for a re-sync of everything or of one workspace, which some service will work at. The same key
/// with the same request finds the job that it made.
pub(crate) async fn ask(
    store: &Store,
    workspace: Option<&Id>,
    options: Options,
    key: Option<&str>,
) -> Result<JobRow, Refusal> {
    let options = options.text();
    for attempt in 0..TRIES {
        if let Some(key) = key
            && let Some(job) = job::find_by_key(store, key).await?
        {
            let is_same =
                job.kind == RESYNC && job.workspace.as_ref() == workspace && job.options == options;
            return if is_same {
                Ok(job)
            } else {
                Err(Refusal::KeyReused)
            };
        }
        if attempt > 0
            && let Some(job) = job::overlapping(store, "", workspace).await?
        {
            return Err(Refusal::Overlaps { job });
        }
        job::set_aside(store, workspace).await?;
        let new = NewJob {
            work: Work {
                kind: RESYNC,
                workspace,
                options: &options,
                // Whoever works at it says.
                source: "",
            },
            state: State::Queued,
            range_end: None,
            total: None,
            idempotency_key: key,
        };
        match with_retries(|| job::start(store, new)).await {
            // A job that overlaps, or the same request at the same moment: look which.
            Err(StoreError::Refused(_)) => {}
            started => {
                let id = started?.fence.id;
                return job::get(store, &id).await?.ok_or(Refusal::Unknown);
            }
        }
    }
    Err(too_fast())
}

/// Others were there each time, and gone when they were looked for.
fn too_fast() -> Refusal {
    let busy = "the jobs that overlap change too fast";
    StoreError::Conflict(sqlx::Error::Protocol(busy.into())).into()
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
        if let Some(other) = other {
            return Err(Refusal::Overlaps { job: other });
        }
    }
    Err(too_fast())
}

/// A request that is repeated finds what the first one did.
fn is_where_it_leads(transition: Transition, state: State) -> bool {
    match transition {
        Transition::Pause => state == State::Paused,
        Transition::Cancel => state == State::Cancelled,
        Transition::Resume => matches!(state, State::Queued | State::Running),
    }
}
