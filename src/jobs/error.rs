//! Why a job's work failed.

use crate::check::CheckError;
use crate::history::HistoryError;
use crate::store::StoreError;

/// Why a job's work failed.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// Another one, whose scope overlaps, is at work or waits for a worker.
    #[error("another {} of this table is at work (job {job}); wait for it, or stop it", noun(.kind))]
    Busy {
        /// The other's kind.
        kind: String,
        /// The other's job.
        job: String,
    },
    /// Another one took the job over.
    #[error("another {} took this one over, because it said nothing for 30 seconds", noun(.kind))]
    LostLease {
        /// The job's kind.
        kind: &'static str,
    },
    /// The history failed.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The table failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What was found could not be passed on.
    #[error("what was found cannot be written")]
    Output(#[source] std::io::Error),
}

/// A kind of job, for people.
fn noun(kind: &str) -> &str {
    match kind {
        "resync" => "re-sync",
        kind => kind,
    }
}

impl JobError {
    /// What the job keeps of it, and whoever asks over HTTP hears: nothing in a database's words.
    pub(super) fn outward(&self) -> String {
        match self {
            Self::History(error) => error.outward(),
            error => error.to_string(),
        }
    }

    /// Whether the job is no longer this worker's.
    pub(super) fn is_lost(&self) -> bool {
        matches!(self, Self::Store(StoreError::LostJob))
    }
}

impl From<CheckError> for JobError {
    fn from(error: CheckError) -> Self {
        match error {
            CheckError::History(error) => Self::History(error),
            CheckError::Store(error) => Self::Store(error),
            CheckError::Output(error) => Self::Output(error),
        }
    }
}
