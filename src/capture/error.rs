//! Why capture could not be installed, removed or looked at.

use crate::history::HistoryError;

/// Why capture could not be installed, removed or looked at.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The history is no PostgreSQL.
    #[error("capture needs a history in PostgreSQL; SQLite has no triggers per statement")]
    NotPostgres,
    /// The history is a view, or something else that has no triggers of the kind.
    #[error("{0}")]
    NoTable(String),
    /// The role may not do it.
    #[error("the role lacks a privilege: {problem}; {mend}")]
    Privilege {
        /// What PostgreSQL says.
        problem: String,
        /// What mends it, statements included.
        mend: String,
    },
    /// A transaction holds the table.
    #[error(
        "a transaction holds {table} and did not end within 2 seconds, so nothing was changed; \
         try again in a quieter moment"
    )]
    Locked {
        /// The history's table.
        table: String,
    },
    /// The database failed.
    #[error("the history's database failed")]
    Database(#[source] sqlx::Error),
    /// The history failed.
    #[error(transparent)]
    History(#[from] HistoryError),
}
