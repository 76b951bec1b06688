//! What can go wrong with the store, by what can be done about it.

use std::borrow::Cow;

use sqlx::postgres::{PgDatabaseError, PgSeverity};

use super::migrate::MigrateError;
use super::sqlstate::{self, QUERY_CANCELED};

/// A failure of the store. The database's own words are in the source, for the log; they are never
/// shown to a client.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database does not answer, not in time, or lets nobody in. Try again later.
    #[error("{}", no_answer(.0))]
    Unavailable(#[source] sqlx::Error),
    /// There is no room left to write.
    #[error("the database has no room left on its disk; free some")]
    Full(#[source] sqlx::Error),
    /// The database refuses the value (classes 22, 23 and 54): it would refuse it again.
    #[error("the database refuses a value")]
    Refused(#[source] sqlx::Error),
    /// A deadlock, a serialization failure or a busy database: the same again may succeed.
    #[error("the database was busy with conflicting work")]
    Conflict(#[source] sqlx::Error),
    /// A worker's job is no longer its own: another one took it over, or an operator stopped it. Nothing
    /// was written.
    #[error("the job is no longer this worker's")]
    LostJob,
    /// The tables are missing or of another version.
    #[error(transparent)]
    Schema(#[from] Box<MigrateError>),
    /// There are no tables yet.
    #[error("the database has no tables of recents; run `recents migrate`")]
    Unmigrated(#[source] sqlx::Error),
    /// A row that the model forbids, written by someone else.
    #[error("a row of the table is corrupt")]
    Corrupt(#[source] sqlx::Error),
    /// Anything else.
    #[error("the database failed")]
    Other(#[source] sqlx::Error),
}

/// Whether PostgreSQL ended a statement because it took too long, or waited too long for a lock.
fn was_ended(error: &sqlx::Error) -> bool {
    sqlstate::is(error, QUERY_CANCELED)
}

fn no_answer(error: &sqlx::Error) -> &'static str {
    match was_ended(error) {
        true => {
            "the database did not answer in time; a lock may keep it, or too much is asked of it"
        }
        false => "the database is out of reach",
    }
}

impl StoreError {
    /// Whether PostgreSQL ended the statement because it took too long, or waited too long for a lock.
    pub fn is_statement_timeout(&self) -> bool {
        matches!(self, Self::Unavailable(error) if was_ended(error))
    }

    /// Whether trying the same again at once may succeed.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict(_))
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(database) => {
                let code = database.code().unwrap_or(Cow::Borrowed(""));
                match database.try_downcast_ref::<PgDatabaseError>() {
                    Some(postgres) => by_sqlstate(&code, ends_session(postgres))(error),
                    // It has no code of its own.
                    None if database.message().starts_with("no such table") => {
                        Self::Unmigrated(error)
                    }
                    None => by_sqlite_code(&code)(error),
                }
            }
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::Protocol(_) => Self::Unavailable(error),
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => Self::Corrupt(error),
            _ => Self::Other(error),
        }
    }
}

/// Whether the server ended the session with it, or let none begin: it refuses the role, its password or the
/// address, has no such database, or takes no connections for it. That is no fault of a statement, whatever its
/// code, which a statement may fail with, too.
fn ends_session(error: &PgDatabaseError) -> bool {
    matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic)
}

fn by_sqlstate(code: &str, ends_session: bool) -> fn(sqlx::Error) -> StoreError {
    match (code.get(..2).unwrap_or(""), code) {
        (_, "53100") => StoreError::Full,
        // deadlock, serialization failure, lock timeout
        (_, "40P01" | "40001" | "55P03") => StoreError::Conflict,
        _ if ends_session => StoreError::Unavailable,
        // until somebody promotes it or the primary is back
        (_, sqlstate::READ_ONLY) => StoreError::Unavailable,
        // connection, resources, operator intervention (57014: statement timeout), still starting
        ("08" | "53" | "57", _) => StoreError::Unavailable,
        // no such table, no such schema
        (_, "42P01" | "3F000") => StoreError::Unmigrated,
        ("22" | "23" | "54", _) => StoreError::Refused,
        _ => StoreError::Other,
    }
}

fn by_sqlite_code(code: &str) -> fn(sqlx::Error) -> StoreError {
    // Extended result codes keep the primary one in their low byte.
    match code.parse::<i32>().unwrap_or(0) & 0xff {
        5 | 6 => StoreError::Conflict,
        13 => StoreError::Full,
        18..=20 => StoreError::Refused,
        // cannot open, I/O, no such database file, read-only
        8 | 10 | 14 => StoreError::Unavailable,
        _ => StoreError::Other,
    }
}
