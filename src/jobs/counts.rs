//! What a job counts, as it is kept with it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::history::Tally;
use crate::store::job::Job;

/// Rows of the table that changed; of a dry run, those that would.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Changes {
    /// Rows that were inserted.
    pub added: u64,
    /// Rows that rose.
    pub raised: u64,
    /// Rows that went down.
    pub lowered: u64,
    /// Rows that went.
    pub removed: u64,
}

impl Changes {
    /// All of them.
    pub fn in_all(&self) -> u64 {
        self.added + self.raised + self.lowered + self.removed
    }

    /// Adds further ones.
    pub fn add(&mut self, other: Self) {
        self.added += other.added;
        self.raised += other.raised;
        self.lowered += other.lowered;
        self.removed += other.removed;
    }
}

/// What a job counted so far.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Counts {
    pub(crate) tally: Tally,
    pub(crate) changes: Changes,
    /// What its worker reads in a second.
    pub(crate) per_second: f64,
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

    pub(super) fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}
