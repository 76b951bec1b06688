//! What a job counts, as it is kept with it.

use serde::{Deserialize, Serialize};

use crate::history::Tally;
use crate::model::Changes;
use crate::store::job::Job;

/// What a job counted so far.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Counts {
    pub(crate) tally: Tally,
    /// Rows of the table that were looked at.
    pub(crate) rows: u64,
    pub(crate) changes: Changes,
    /// Of a dry run: how many of them its plan keeps.
    pub(crate) kept: u64,
    /// What its worker reads in a second.
    pub(crate) per_second: f64,
    /// Runs that cannot be mapped, that a worker met among the runs or as the support of a row.
    pub(crate) unmappable: u64,
}

impl Counts {
    /// As a job keeps them; counts that cannot be read begin anew, they are only shown.
    pub(crate) fn read(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }

    /// Of a job that goes on; without a cursor it begins anew.
    pub(super) fn of(job: &Job) -> Self {
        match job.cursor {
            Some(_) => Self::read(&job.counts),
            None => Self::default(),
        }
    }

    /// How many runs cannot be mapped. A run that supports a row is met once more among the runs, unless
    /// those of another workspace are left out.
    pub(crate) fn unmappable(&self) -> u64 {
        self.tally.unmappable.max(self.unmappable)
    }

    pub(super) fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}
