//! PostgreSQL's codes of errors that are told from others, as in appendix A of its documentation.

use std::borrow::Cow;

/// Nobody was to blame: it waited for another one that waited for it.
pub(crate) const DEADLOCK_DETECTED: &str = "40P01";
/// Such as to begin a transaction that writes, where all only read.
pub(crate) const FEATURE_NOT_SUPPORTED: &str = "0A000";
/// The role lacks a right.
pub(crate) const INSUFFICIENT_PRIVILEGE: &str = "42501";
/// A lock was not to be had in time.
pub(crate) const LOCK_NOT_AVAILABLE: &str = "55P03";
/// A standby, until somebody promotes it, or a session that may only read.
pub(crate) const READ_ONLY: &str = "25006";
/// Others changed what it had read.
pub(crate) const SERIALIZATION_FAILURE: &str = "40001";
/// A statement took too long, or somebody ended it.
pub(crate) const QUERY_CANCELED: &str = "57014";

/// A database's code of an error; SQLite's are numbers.
pub(crate) fn code(error: &sqlx::Error) -> Option<Cow<'_, str>> {
    error.as_database_error()?.code()
}

/// Whether it is of this code.
pub(crate) fn is(error: &sqlx::Error, one: &str) -> bool {
    code(error).is_some_and(|code| code == one)
}
