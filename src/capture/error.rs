//! Why capture could not be installed, removed or looked at.

use crate::history::HistoryError;
use crate::store::StoreError;
use crate::store::sqlstate::{
    FEATURE_NOT_SUPPORTED, INSUFFICIENT_PRIVILEGE, LOCK_NOT_AVAILABLE, READ_ONLY, code,
};

/// Why capture could not be installed, removed or looked at.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The history is no PostgreSQL.
    #[error("capture needs a history in PostgreSQL; SQLite has no triggers per statement")]
    NotPostgres,
    /// The history is a view, or something else that has no triggers of the kind.
    #[error("{0}")]
    NoTable(String),
    /// What is installed notes the changes for another store.
    #[error(
        "the changes are noted for another store, {store}, whose service takes them, and this one \
         would take them away; --take-over has this one take them, and the other one miss them"
    )]
    AnotherStore {
        /// Its identity.
        store: String,
    },
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
        "a transaction holds {table}, one that wrote and rests or a `vacuum` that the role may not end, and \
         did not let go in several tries of half a second, so nothing was changed; try again in a quieter \
         moment: pg_locks tells whose it is"
    )]
    Locked {
        /// The history's table.
        table: String,
    },
    /// The database takes no writes.
    #[error(
        "the history's database takes no writes, as a standby does, so nothing was changed; `history.url` \
         has to name its primary"
    )]
    ReadOnly,
    /// The database failed.
    #[error("the history's database failed")]
    Database(#[source] sqlx::Error),
    /// The history failed.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The store does not tell which one it is.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl CaptureError {
    /// Why a change of `table`'s triggers failed; `mend` is what helps where the role may not do it.
    pub(super) fn of(error: sqlx::Error, table: &str, mend: String) -> Self {
        match (code(&error).as_deref(), error.as_database_error()) {
            (Some(INSUFFICIENT_PRIVILEGE), Some(database)) => Self::Privilege {
                problem: database.message().into(),
                mend,
            },
            (Some(LOCK_NOT_AVAILABLE), _) => Self::Locked {
                table: table.into(),
            },
            (Some(READ_ONLY), _) => Self::ReadOnly,
            // The code alone is that of much else.
            (Some(FEATURE_NOT_SUPPORTED), Some(database))
                if database.message().contains("read-write mode") =>
            {
                Self::ReadOnly
            }
            _ => Self::Database(error),
        }
    }
}

/// Statements, under each other.
pub(crate) fn these_mend_it(grants: &[String]) -> String {
    format!("these mend it:\n  {}", grants.join("\n  "))
}

/// Who may do it always: the table's owner has no right on what is ours.
pub(super) fn by_hand(command: &str) -> String {
    format!("a superuser runs what `recents capture {command} --print` shows")
}
