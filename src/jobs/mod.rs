//! Long work that survives its worker: a row of the table `job`, with a lease, a heartbeat and a cursor.
//!
//! Whoever works holds the job's fence and proves it first in each transaction that writes; whoever lost
//! it writes nothing more. Jobs whose scopes overlap do not run together, which the database sees to.

pub mod backfill;
mod counts;
mod error;
mod hold;
mod keep;
pub(crate) mod operate;
pub mod resync;
pub mod service;
mod settle;
mod walk;
mod write;

use std::time::Duration;

use crate::store::{Store, recent, with_retries};
use crate::telemetry::chain;

pub(crate) use counts::Counts;
pub use error::JobError;

/// The kind of a backfill's jobs.
pub const BACKFILL: &str = "backfill";
/// The kind of a re-sync's jobs.
pub const RESYNC: &str = "resync";

/// How a job's work ended that did not fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is done.
    Complete,
    /// It was stopped; the same again goes on.
    Stopped,
    /// An operator paused the job; when it was resumed, the same again goes on.
    Paused {
        /// The job.
        job: String,
    },
    /// An operator cancelled the job; the same again begins anew.
    Cancelled {
        /// The job.
        job: String,
    },
}

/// What happens meanwhile.
#[derive(Debug, Clone)]
pub enum Event<R> {
    /// Another worker holds a job that overlaps; this one waits for its lease to end.
    Waiting {
        /// The other's kind of job.
        kind: String,
        /// The other's job.
        job: String,
        /// For how long at the most.
        remaining: Duration,
    },
    /// An earlier one goes on.
    Resumed {
        /// Runs that it read.
        scanned: u64,
    },
    /// So far.
    Progress(R),
}

/// Tells the database what the table holds after much was written; sooner or later autovacuum does it
/// too.
async fn analyze(store: &Store) {
    if let Err(error) = with_retries(|| recent::analyze(store)).await {
        let error = chain(&error);
        tracing::warn!(error, "the table was not analyzed");
    }
}
