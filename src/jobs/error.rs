//! Why a backfill failed.

use crate::history::HistoryError;
use crate::store::StoreError;

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
