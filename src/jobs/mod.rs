//! Long work that survives its worker: the backfill.

pub mod backfill;

/// The kind of a backfill's jobs.
pub const BACKFILL: &str = "backfill";
