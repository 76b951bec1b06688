//! Where the table lives: PostgreSQL or SQLite, behind one closed enum.
//!
//! Every SQL statement of the product's own tables stands once, beside its noun in this module.
//! What differs between the databases (a qualified name, a clock, how rows are passed in) is a
//! token of [`statement`].

pub(crate) mod aside;
mod at_hand;
pub(crate) mod audit;
mod change;
mod codec;
pub mod dismissal;
pub mod error;
pub(crate) mod identity;
pub mod job;
pub mod lists;
pub mod migrate;
pub(crate) mod note;
mod open;
mod pace;
pub mod recent;
mod retry;
mod rows;
mod session;
pub(crate) mod setting;
pub(crate) mod sqlstate;
pub mod statement;
pub(crate) mod sweep;
pub mod token;
mod tx;
pub mod user;
mod vacuum;

use std::sync::Arc;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{Sqlite, SqliteConnection, SqlitePool};
use tokio::runtime::Handle;

use crate::cache::{Changed, Changes, Reason};

pub(crate) use at_hand::AtHand;
pub use change::Position;
pub(crate) use change::{CHANNEL, Reached, own_channel, ping_listener, reached_by};
pub(crate) use codec::time_from_postgres;
pub use error::StoreError;
pub(crate) use open::{PG_BEGIN, missing_directory, pg_pool, planned_once};
pub use open::{PG_PLANNING, PoolSettings, is_missing_file, pg_options};
pub use pace::Pace;
pub use retry::with_retries;
pub use session::PgStore;
pub(crate) use session::Session;
pub use statement::{Dialect, Statement};
pub use token::Token;
pub(crate) use tx::Tx;

/// How long a stop waits for other processes to be told of the last changes; they forget by themselves
/// when their time to live is over.
const TELL_WITHIN: Duration = Duration::from_secs(1);

/// How long a stop waits for connections to be closed: one that died in silence says nothing.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// Every statement of the product's own tables.
pub fn statements() -> impl Iterator<Item = &'static Statement> {
    [&statement::PING, &identity::IDENTITY, &vacuum::VACUUM]
        .into_iter()
        .chain(recent::STATEMENTS)
        .chain(lists::statements())
        .chain(job::statements())
        .chain(audit::STATEMENTS)
        .chain(note::STATEMENTS)
        .chain(aside::STATEMENTS)
        .chain(dismissal::STATEMENTS)
        .chain(change::STATEMENTS)
        .chain(setting::STATEMENTS)
        .chain(sweep::STATEMENTS)
        .chain(user::STATEMENTS)
}

/// The database with the table, and what is told of its changes. Clones share both.
#[derive(Debug, Clone)]
pub enum Store {
    /// PostgreSQL, in schema `recents`.
    Postgres(PgStore, Arc<Changes>),
    /// SQLite, embedded.
    Sqlite(SqlitePool, Arc<Changes>),
}

/// Runs `$body` with `$inner` bound to what the enum `$on` holds; `$dialect` names the database.
///
/// The body is written once and compiled for both databases.
macro_rules! on_both {
    ($enum:ident, $on:expr, |$inner:ident, $dialect:ident| $body:expr) => {
        match $on {
            $enum::Postgres($inner, ..) => {
                let $dialect = $crate::store::Dialect::Postgres;
                $body
            }
            $enum::Sqlite($inner, ..) => {
                let $dialect = $crate::store::Dialect::Sqlite;
                $body
            }
        }
    };
}
pub(crate) use on_both;

/// One connection of the store, in autocommit or within a transaction.
pub(crate) enum Conn<'c> {
    Postgres(&'c mut Session),
    Sqlite(&'c mut SqliteConnection),
}

/// A connection taken from the pool.
pub(crate) enum Pooled {
    Postgres(Session),
    Sqlite(PoolConnection<Sqlite>),
}

impl Pooled {
    pub(crate) fn conn(&mut self) -> Conn<'_> {
        match self {
            Self::Postgres(conn) => Conn::Postgres(conn),
            Self::Sqlite(conn) => Conn::Sqlite(conn),
        }
    }

    /// Ends the connection instead of giving it back.
    pub(crate) fn discard(self) {
        if let Self::Postgres(session) = self {
            session.discard();
        }
    }

    /// Ends what [`Store::one_session`] may have begun.
    pub(crate) async fn done(self) -> Result<(), StoreError> {
        match self {
            Self::Postgres(session) => Ok(session.commit().await?),
            Self::Sqlite(_) => Ok(()),
        }
    }
}

impl Store {
    /// Which database it is.
    pub fn dialect(&self) -> Dialect {
        on_both!(Self, self, |_pool, dialect| dialect)
    }

    pub(crate) async fn acquire(&self) -> Result<Pooled, StoreError> {
        Ok(match self {
            Self::Postgres(pool, _) => Pooled::Postgres(pool.acquire().await?),
            Self::Sqlite(pool, _) => Pooled::Sqlite(pool.acquire().await?),
        })
    }

    /// A connection for statements that must be answered by one server, and need no transaction: behind a
    /// pooler they have one.
    pub(crate) async fn one_session(&self) -> Result<Pooled, StoreError> {
        Ok(match self {
            Self::Postgres(pool, _) => Pooled::Postgres(pool.for_one().await?),
            Self::Sqlite(pool, _) => Pooled::Sqlite(pool.acquire().await?),
        })
    }

    /// What is told of its changes.
    pub fn changes(&self) -> &Arc<Changes> {
        match self {
            Self::Postgres(_, changes) | Self::Sqlite(_, changes) => changes,
        }
    }

    /// Forgets what a commit changed, here and, soon, in other processes.
    pub(crate) fn committed(&self, changed: &Changed, reason: Reason) {
        self.changes().commit(changed, reason);
        // Where no runtime is left to tell it, closing does.
        if let Ok(runtime) = Handle::try_current()
            && self.changes().begin_telling()
        {
            let store = self.clone();
            runtime.spawn(async move { store.tell().await });
        }
    }

    /// Asks the database for nothing, to see whether it answers.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] where it does not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        on_both!(Self, self, |pool, dialect| {
            sqlx::query(statement::PING.run(dialect))
                .execute(pool)
                .await?;
        });
        Ok(())
    }

    /// Whether there is a connection for whoever comes next, beside one that is kept.
    fn has_more(&self) -> bool {
        let behind_pooler = matches!(self, Self::Postgres(pool, _) if pool.behind_pooler);
        !behind_pooler
            && on_both!(Self, self, |pool, _dialect| {
                pool.num_idle() > 0 || pool.size() < pool.options().get_max_connections()
            })
    }

    /// Connections of the pool: (idle, in use).
    pub fn connections(&self) -> (u32, u32) {
        on_both!(Self, self, |pool, _dialect| {
            let idle = u32::try_from(pool.num_idle()).unwrap_or(u32::MAX);
            (idle, pool.size().saturating_sub(idle))
        })
    }

    /// Closes every connection, waiting a while for those in use. What is still to be told is told before.
    pub async fn close(&self) {
        let _ = tokio::time::timeout(TELL_WITHIN, self.tell()).await;
        on_both!(Self, self, |pool, _dialect| {
            let _ = tokio::time::timeout(CLOSE_WITHIN, pool.close()).await;
        });
    }
}
