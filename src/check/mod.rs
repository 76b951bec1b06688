//! The two checks of the invariant, and what is built of them.
//!
//! The table is right when every row is *supported* (the run that it names still maps to exactly
//! its key and time) and *complete* (no run of its key maps to a greater time and run). Both look
//! at bounded batches, hold no snapshot, and look again before they believe a difference, because
//! runs and uses go on arriving meanwhile.

mod complete;
pub(crate) mod look;
mod supported;
pub mod verify;

pub use verify::verify;

use std::fmt;

use crate::history::HistoryError;
use crate::model::{Key, Newest};
use crate::store::StoreError;

/// How a row differs from what the history says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The history has uses of the key, the table has no row.
    Missing,
    /// The row is older than the newest use.
    Stale,
    /// The row is newer than the newest use.
    Ahead,
    /// The row's key has no use at all.
    Extra,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Missing => "missing",
            Self::Stale => "stale",
            Self::Ahead => "ahead",
            Self::Extra => "extra",
        })
    }
}

/// A difference between the table and the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What kind of difference.
    pub kind: Kind,
    /// Of which row.
    pub key: Key,
    /// What the history says; `None` for [`Kind::Extra`].
    pub history: Option<Newest>,
    /// What the table says; `None` for [`Kind::Missing`].
    pub table: Option<Newest>,
}

/// Why the table could not be checked.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The history failed.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The table failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The differences could not be passed on.
    #[error("the differences cannot be written")]
    Output(#[source] std::io::Error),
}
