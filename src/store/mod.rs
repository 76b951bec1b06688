//! Where the table lives: PostgreSQL or SQLite, behind one closed enum.
//!
//! Every SQL statement of the product's own tables stands once, beside its noun in this module.
//! What differs between the databases (a qualified name, a clock, how rows are passed in) is a
//! token of [`statement`].

mod codec;
pub mod dismissal;
pub mod error;
pub mod job;
pub mod migrate;
pub(crate) mod note;
mod open;
mod pace;
pub mod recent;
mod retry;
mod rows;
pub mod statement;
pub(crate) mod sweep;
pub mod user;

use sqlx::pool::PoolConnection;
use sqlx::{PgConnection, PgPool, Postgres, Sqlite, SqliteConnection, SqlitePool, Transaction};

pub(crate) use codec::time_from_postgres;
pub use error::StoreError;
pub use open::{PG_PLANNING, PoolSettings, is_missing_file, pg_options};
pub use pace::Pace;
pub use retry::with_retries;
pub use statement::{Dialect, Statement};

/// Every statement of the product's own tables.
pub fn statements() -> impl Iterator<Item = &'static Statement> {
    [&statement::PING]
        .into_iter()
        .chain(recent::STATEMENTS)
        .chain(job::STATEMENTS)
        .chain(note::STATEMENTS)
        .chain(dismissal::STATEMENTS)
        .chain(sweep::STATEMENTS)
        .chain(user::STATEMENTS)
}

/// The database with the table.
#[derive(Debug, Clone)]
pub enum Store {
    /// PostgreSQL, in schema `recents`.
    Postgres(PgPool),
    /// SQLite, embedded.
    Sqlite(SqlitePool),
}

/// Runs `$body` with `$inner` bound to what the enum `$on` holds; `$dialect` names the database.
///
/// The body is written once and compiled for both databases.
macro_rules! on_both {
    ($enum:ident, $on:expr, |$inner:ident, $dialect:ident| $body:expr) => {
        match $on {
            $enum::Postgres($inner) => {
                let $dialect = $crate::store::Dialect::Postgres;
                $body
            }
            $enum::Sqlite($inner) => {
                let $dialect = $crate::store::Dialect::Sqlite;
                $body
            }
        }
    };
}
pub(crate) use on_both;

/// One connection of the store, in autocommit or within a transaction.
pub(crate) enum Conn<'c> {
    Postgres(&'c mut PgConnection),
    Sqlite(&'c mut SqliteConnection),
}

/// A connection taken from the pool.
pub(crate) enum Pooled {
    Postgres(PoolConnection<Postgres>),
    Sqlite(PoolConnection<Sqlite>),
}

impl Pooled {
    pub(crate) fn conn(&mut self) -> Conn<'_> {
        match self {
            Self::Postgres(conn) => Conn::Postgres(conn),
            Self::Sqlite(conn) => Conn::Sqlite(conn),
        }
    }
}

/// A transaction that writes. Dropped without `commit`, it is rolled back.
pub(crate) enum Tx {
    Postgres(Transaction<'static, Postgres>),
    Sqlite(Transaction<'static, Sqlite>),
}

impl Tx {
    pub(crate) fn conn(&mut self) -> Conn<'_> {
        match self {
            Self::Postgres(tx) => Conn::Postgres(tx),
            Self::Sqlite(tx) => Conn::Sqlite(tx),
        }
    }

    pub(crate) async fn commit(self) -> Result<(), StoreError> {
        Ok(on_both!(Self, self, |tx, _dialect| tx.commit().await)?)
    }
}

impl Store {
    /// Which database it is.
    pub fn dialect(&self) -> Dialect {
        on_both!(Self, self, |_pool, dialect| dialect)
    }

    pub(crate) async fn acquire(&self) -> Result<Pooled, StoreError> {
        Ok(match self {
            Self::Postgres(pool) => Pooled::Postgres(pool.acquire().await?),
            Self::Sqlite(pool) => Pooled::Sqlite(pool.acquire().await?),
        })
    }

    /// Begins a transaction that writes: in SQLite with the write lock at once, because a
    /// transaction that reads first cannot wait for it later (`SQLITE_BUSY_SNAPSHOT`).
    pub(crate) async fn begin(&self) -> Result<Tx, StoreError> {
        Ok(match self {
            Self::Postgres(pool) => Tx::Postgres(pool.begin().await?),
            Self::Sqlite(pool) => Tx::Sqlite(pool.begin_with("begin immediate").await?),
        })
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

    /// Connections of the pool: (idle, in use).
    pub fn connections(&self) -> (u32, u32) {
        on_both!(Self, self, |pool, _dialect| {
            let idle = u32::try_from(pool.num_idle()).unwrap_or(u32::MAX);
            (idle, pool.size().saturating_sub(idle))
        })
    }

    /// Closes every connection, waiting for those in use.
    pub async fn close(&self) {
        on_both!(Self, self, |pool, _dialect| pool.close().await);
    }
}
