//! Long work: the backfill.

/// The kind of a backfill's jobs.
pub const BACKFILL: &str = "backfill";
