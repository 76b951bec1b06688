//! The two checks of the invariant, and what is built of them.
//!
//! The table is right when every row is *supported* (the run that it names still maps to exactly
//! its key and time) and *complete* (no run of its key maps to a greater time and run). Both look
//! at bounded batches, hold no snapshot, and look again before they believe a difference, because
//! runs and uses go on arriving meanwhile.

pub mod audit;
pub(crate) mod complete;
pub(crate) mod look;
pub(crate) mod supported;
pub mod verify;

pub use verify::{Limits, verify};

use std::fmt;

use serde_json::{Value, json};

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

impl Kind {
    /// Each of them.
    pub const ALL: [Self; 4] = [Self::Missing, Self::Stale, Self::Ahead, Self::Extra];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Stale => "stale",
            Self::Ahead => "ahead",
            Self::Extra => "extra",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Why a row differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The table lacks it.
    NoRow,
    /// The history has a newer use than the row.
    NewerUse,
    /// The row names no run.
    NoRun,
    /// The run that the row names is no use, or not in the history.
    UnknownRun,
    /// The run that the row names is a use of another list or workflow.
    OtherRow,
    /// The run that the row names has another time.
    OtherTime,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoRow => "no_row",
            Self::NewerUse => "newer_use",
            Self::NoRun => "no_run",
            Self::UnknownRun => "unknown_run",
            Self::OtherRow => "run_of_another_row",
            Self::OtherTime => "run_has_another_time",
        })
    }
}

/// A difference between the table and the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What kind of difference.
    pub kind: Kind,
    /// Why.
    pub reason: Reason,
    /// Of which row.
    pub key: Key,
    /// What the history says; `None` for [`Kind::Extra`].
    pub history: Option<Newest>,
    /// What the table says; `None` for [`Kind::Missing`].
    pub table: Option<Newest>,
}

impl Difference {
    /// As one JSON object, without the reason.
    pub fn to_json(&self) -> Value {
        let (workspace, uid, published_run) = self.key.parts();
        let use_of = |newest: &Option<Newest>| {
            newest
                .as_ref()
                .map(|n| json!({"last_used_at": n.last_used_at, "run": n.run}))
        };
        json!({
            "kind": self.kind.to_string(),
            "workspace": workspace,
            "uid": Some(uid).filter(|uid| !uid.is_empty()),
            "published_run": published_run,
            "history": use_of(&self.history),
            "table": use_of(&self.table),
        })
    }
}

/// What a check found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Differences that no note is about,
    pub(crate) differences: Vec<Difference>,
    /// and those that notes are about which nobody seems to work off.
    pub(crate) waiting: Vec<Difference>,
}

impl Found {
    pub(crate) fn is_empty(&self) -> bool {
        self.differences.is_empty() && self.waiting.is_empty()
    }

    /// Both.
    pub(crate) fn all(mut self) -> Vec<Difference> {
        self.differences.append(&mut self.waiting);
        self.differences
    }
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
