//! What became of rows.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

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
