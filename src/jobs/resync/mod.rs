//! Re-sync: makes the table what the history says, beside everybody who writes.
//!
//! `merge` raises what is missing or stale, like a backfill. `rebuild` looks at every row first: it is as if
//! each were noted to be looked at again, with the job's cursor as the notes. A row whose run does not
//! say what the row does is computed again, as the drain does it.

mod cursor;
pub mod options;
mod plan;
mod rows;
mod runs;
mod throttle;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::backfill::identity_of;
use super::hold::hold;
use super::{JobError, Outcome, RESYNC};
use crate::history::{History, Tally, Unmappable};
use crate::model::{Changes, Id};
use crate::store::Store;
use crate::store::job::{End, Work};
use crate::telemetry::Metrics;

pub use options::{Mode, Options};
pub(crate) use worker::work;

/// What happens meanwhile.
pub type Event = super::Event<Report>;

/// What a re-sync works with.
#[derive(Debug, Clone)]
pub struct With {
    /// The table.
    pub store: Store,
    /// The history.
    pub history: Arc<History>,
    /// Where it is counted.
    pub metrics: Option<Arc<Metrics>>,
    /// A query that says true while the history's database is unwell.
    pub pause_while: Option<String>,
    /// Whether a job is done only when the rows that it wrote were looked at once more: a service's drain
    /// does that anyhow.
    pub settles: bool,
}

/// What a re-sync did.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Its job.
    pub job: String,
    /// Runs of the history that were read.
    pub tally: Tally,
    /// Rows of the table that were looked at.
    pub rows: u64,
    /// Rows that changed; of a dry run, those that would.
    pub changes: Changes,
    /// Of a dry run: how many of them its plan does not keep.
    pub omitted: u64,
    /// About how many runs and rows there are.
    pub total: Option<u64>,
    /// Runs and rows that this process looked at.
    pub scanned_now: u64,
    /// Time of this process.
    pub elapsed: Duration,
    /// Runs that cannot be mapped, those that earlier workers met included.
    pub unmappable: u64,
    /// Those that this process passed over.
    pub passed_over: Unmappable,
    /// Whether it waits because `resync.pause_while` has it wait.
    pub is_held_up: bool,
}

impl Report {
    /// Runs and rows that were looked at.
    pub fn scanned(&self) -> u64 {
        self.tally.scanned + self.rows
    }
}

/// Runs a re-sync of everything, or of one workspace, until it is done, fails, or `stop` turns true.
/// With `restart` off, an earlier one that was stopped goes on.
///
/// # Errors
/// [`JobError`]. What was written stays.
pub async fn run(
    with: &With,
    workspace: Option<&Id>,
    options: Options,
    restart: bool,
    mut stop: watch::Receiver<bool>,
    mut tell: impl FnMut(Event),
) -> Result<(Outcome, Report), JobError> {
    let (source, options) = (identity_of(&with.history).await?, options.text());
    let what = Work {
        kind: RESYNC,
        workspace,
        options: &options,
        source: &source,
    };
    let range = async || Ok((None, None));
    let held = hold(&with.store, what, !restart, range, &mut stop, &mut tell).await?;
    let tell = &mut |report| tell(Event::Progress(report));
    match held {
        Ok(job) => work(with, job, &mut stop, End::Paused, tell).await,
        Err(outcome) => {
            let job = match &outcome {
                Outcome::Paused { job } => job.clone(),
                _ => String::new(),
            };
            let report = Report {
                job,
                ..Report::default()
            };
            Ok((outcome, report))
        }
    }
}
