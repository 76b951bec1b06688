//! The application's run history, and the one query that turns its runs into uses.
//!
//! Every reader gets its uses the same way: a source sends [`Stretch`]es, in order, each with the
//! uses of some runs folded and with the cursor behind them, and says at the end that it is the
//! end. A source that breaks off is an error, never an end.

mod advice;
mod around;
mod bulk;
mod conflict;
pub mod estimate;
pub mod file;
mod id_type;
mod keys;
mod look_up;
pub mod mapping;
mod newest;
mod one_pass;
mod open;
mod order;
mod outward;
mod parts;
pub mod refuse;
mod says;
mod scan;
mod session;
pub(crate) mod sqlite;
mod steady;
pub mod stretch;
mod try_out;
mod types;
mod unmappable;
pub mod windows;

use std::time::Duration;

use sqlx::{PgPool, SqlitePool};

pub(crate) use conflict::LOCK_TIMEOUT;
pub use look_up::Lookup;
pub use mapping::Mapping;
pub use one_pass::one_pass;
pub use open::{connect, connect_postgres, judge};
pub(crate) use open::{
    connect_postgres_within, connect_within, read_only_postgres, read_only_sqlite,
};
pub use scan::Range;
pub use session::Taker;
pub(crate) use session::{Again, was_ended};
pub use stretch::{Gathered, Stretch, Stretches, Tally};
pub(crate) use unmappable::{MOST as MOST_UNMAPPABLE, words};
pub use unmappable::{Passed, Unmappable};

/// A history that is open: its database, and the mapping query that was checked against it. Clones share
/// what is known of its types.
#[derive(Debug, Clone)]
pub struct History {
    pub(crate) database: Database,
    known: types::Known,
}

/// The database of a history. Nothing is ever written to the history; capture keeps its outbox beside
/// it.
#[derive(Debug, Clone)]
pub(crate) enum Database {
    Postgres(PgPool),
    Sqlite(SqlitePool),
}

impl History {
    /// Which database it is, without credentials.
    pub(crate) fn place(&self) -> String {
        match &self.database {
            Database::Postgres(pool) => {
                let options = pool.connect_options();
                let socket = options.get_socket().map(|path| path.display().to_string());
                let host = socket.unwrap_or_else(|| options.get_host().to_owned());
                let database = options.get_database().unwrap_or_default();
                format!("{host}:{}/{database}", options.get_port())
            }
            Database::Sqlite(pool) => {
                let options = pool.connect_options();
                let path = options.get_filename();
                let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
                path.display().to_string()
            }
        }
    }
}

/// Why a history could not be read.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The mapping query is refused.
    #[error("history.query: {0}")]
    Refused(#[from] refuse::Refusal),
    /// The configuration does not fit the database.
    #[error("{place}: {problem}")]
    Misfit {
        /// The key of the configuration.
        place: &'static str,
        /// What does not fit and what to do.
        problem: String,
    },
    /// One query took longer than it may, or was cancelled: PostgreSQL has one code for both.
    #[error("a query of the history took longer than {0:?}, or somebody cancelled it")]
    TimedOut(Duration),
    /// The history's database failed or went away.
    #[error("the history cannot be read")]
    Database(#[source] sqlx::Error),
    /// The role may not take what the triggers noted.
    #[error("the role may not take notes from the outbox; this mends it: {grants}")]
    Outbox {
        /// Statements.
        grants: String,
    },
    /// A window of the history was not read.
    #[error("the runs {from} down to {to} of the history were not read: {problem}")]
    Window {
        /// Where it begins, in words.
        from: String,
        /// Its smallest key.
        to: String,
        /// Why not.
        problem: String,
        /// The same without the database's words.
        outward: String,
    },
    /// The keys are in another order than when the reading began: of another type or collation.
    #[error(
        "the order of the runs changed, with the type or the collation of the history's key: the same again \
         begins anew"
    )]
    Reordered,
    /// More runs cannot be mapped than are passed over.
    #[error(
        "more than {most} runs cannot be mapped, {runs} among them: history.query itself seems to be \
         wrong ({problem})"
    )]
    Unmappable {
        /// So many are passed over.
        most: usize,
        /// Some of them.
        runs: String,
        /// What the database says of the next one.
        problem: String,
    },
    /// A run of the single stream cannot be mapped.
    #[error(
        "a run cannot be mapped, and in one pass it cannot be told which ({problem}); without \
         --one-pass such runs are named, counted and passed over"
    )]
    OnePass {
        /// What the database says of it.
        problem: String,
    },
    /// A file cannot be read as uses.
    #[error(transparent)]
    File(#[from] file::FileError),
    /// The task that reads ended without saying that it was done.
    #[error("reading broke off before the end; run the same command again")]
    BrokenOff,
}

/// Classes of PostgreSQL's errors that a mapping query meets because of a run: several rows for one,
/// data that is none, a domain's check, a function of the application that raises.
const OF_THE_DATA: [&str; 7] = ["21", "22", "23", "2F", "38", "39", "P0"];

impl HistoryError {
    /// Whether the same again would fail again, because of what stands in the history, and not because
    /// its database is away or busy.
    pub(crate) fn is_of_the_data(&self) -> bool {
        let Self::Database(sqlx::Error::Database(database)) = self else {
            return matches!(
                self,
                Self::Database(sqlx::Error::Decode(_)) | Self::Unmappable { .. }
            );
        };
        let code = database.code().unwrap_or_default();
        match database.try_downcast_ref::<sqlx::postgres::PgDatabaseError>() {
            Some(_) => OF_THE_DATA.iter().any(|class| code.starts_with(class)),
            // SQLite has one code for everything that an expression may fail of, and for what the query
            // names and is gone.
            None => code == "1" && !database.message().starts_with("no such "),
        }
    }

    pub(crate) fn misfit(place: &'static str, problem: impl ToString) -> Self {
        Self::Misfit {
            place,
            problem: problem.to_string(),
        }
    }
}
