//! A use: what one run says about the lists.

use super::id::{self, IdError};
use super::time::{Time, TimeError};

/// A valid use, borrowed from wherever it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage<'a> {
    /// The workspace in which the run ran.
    pub workspace: &'a str,
    /// The user who ran it, if any.
    pub uid: Option<&'a str>,
    /// The workflow that it used.
    pub published_run: &'a str,
    /// When.
    pub last_used_at: Time,
    /// The run itself; `None` only from a hook without a history.
    pub run: Option<&'a str>,
}

/// What a use makes of a row: the newest time and, among equals, the greatest run.
///
/// The derived order is the order of uses: by time, then by run as bytes, no run lowest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Newest {
    /// The time of the newest use.
    pub last_used_at: Time,
    /// The run that it came from.
    pub run: Option<Box<str>>,
}

/// Fields as a history, a file or a client gave them, before any check.
#[derive(Debug, Clone, Copy)]
pub struct RawUse<'a> {
    /// The run's key in the history.
    pub run: Option<&'a str>,
    /// The workspace.
    pub workspace: Option<&'a str>,
    /// The user; empty is none.
    pub uid: Option<&'a str>,
    /// The workflow.
    pub published_run: Option<&'a str>,
    /// The time, or why it is none.
    pub last_used_at: Option<Result<Time, TimeError>>,
}

/// Why a run of a history is no use. Such runs are skipped and counted by [`NoUse::reason`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum NoUse {
    /// No workspace.
    #[error("workspace is null")]
    NullWorkspace,
    /// No published run.
    #[error("published_run is null")]
    NullPublishedRun,
    /// No time.
    #[error("last_used_at is null")]
    NullTime,
    /// A workspace that is not a valid id.
    #[error("workspace is not a valid id")]
    InvalidWorkspace,
    /// A published run that is not a valid id.
    #[error("published_run is not a valid id")]
    InvalidPublishedRun,
    /// A run that is not a valid id.
    #[error("run is not a valid id")]
    InvalidRun,
    /// `infinity` or `-infinity`.
    #[error("last_used_at is infinite")]
    InfiniteTime,
    /// A time outside of the years 1970–9999, or none at all.
    #[error("last_used_at is not in the years 1970 to 9999")]
    InvalidTime,
}

impl NoUse {
    /// Every reason, in the order in which they are reported.
    pub const ALL: [Self; 8] = [
        Self::NullWorkspace,
        Self::NullPublishedRun,
        Self::NullTime,
        Self::InvalidWorkspace,
        Self::InvalidPublishedRun,
        Self::InvalidRun,
        Self::InfiniteTime,
        Self::InvalidTime,
    ];

    /// A stable name, for counts and machine-readable output.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NullWorkspace => "null_workspace",
            Self::NullPublishedRun => "null_published_run",
            Self::NullTime => "null_last_used_at",
            Self::InvalidWorkspace => "invalid_workspace",
            Self::InvalidPublishedRun => "invalid_published_run",
            Self::InvalidRun => "invalid_run",
            Self::InfiniteTime => "infinite_last_used_at",
            Self::InvalidTime => "invalid_last_used_at",
        }
    }
}

impl<'a> RawUse<'a> {
    /// The one validity predicate of histories and files: a use, or why it is none.
    ///
    /// An invalid `uid` costs only the user's list, so it is dropped here, not refused.
    ///
    /// # Errors
    /// The first reason, nulls before invalid values.
    pub fn check(self) -> Result<Usage<'a>, NoUse> {
        let workspace = self.workspace.ok_or(NoUse::NullWorkspace)?;
        let published_run = self.published_run.ok_or(NoUse::NullPublishedRun)?;
        let last_used_at = match self.last_used_at.ok_or(NoUse::NullTime)? {
            Ok(time) => time,
            Err(TimeError::Infinite) => return Err(NoUse::InfiniteTime),
            Err(_) => return Err(NoUse::InvalidTime),
        };
        let valid = |text, reason| id::check(text).map_err(|_: IdError| reason);
        valid(workspace, NoUse::InvalidWorkspace)?;
        valid(published_run, NoUse::InvalidPublishedRun)?;
        if let Some(run) = self.run {
            valid(run, NoUse::InvalidRun)?;
        }
        let uid = self.uid.filter(|uid| id::check(uid).is_ok());
        Ok(Usage {
            workspace,
            uid,
            published_run,
            last_used_at,
            run: self.run,
        })
    }
}
