//! Sessions with PostgreSQL, direct or through a transaction pooler.
//!
//! A transaction pooler may hand each transaction to another session of the server: what was prepared in
//! one is not there in the next, and between the messages of one statement alone the session may change.
//! Behind one, every statement is a transaction of its own, and none is prepared under a name.

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use sqlx::error::BoxDynError;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{Either, Execute, Executor, PgConnection, PgPool, Postgres, SqlStr, Transaction};

use super::open::PG_BEGIN;

type Answer = Result<Either<PgQueryResult, PgRow>, sqlx::Error>;

/// A pool of connections to PostgreSQL.
#[derive(Debug, Clone)]
pub struct PgStore {
    pub(super) pool: PgPool,
    /// Whether they go through a transaction pooler.
    pub(super) behind_pooler: bool,
}

impl std::ops::Deref for PgStore {
    type Target = PgPool;

    fn deref(&self) -> &PgPool {
        &self.pool
    }
}

impl PgStore {
    /// The pool itself, for what is asked of PostgreSQL's own tables.
    pub(crate) fn pool(&self) -> &PgPool {
        &self.pool
    }

    pub(super) async fn begin(&self) -> Result<Session, sqlx::Error> {
        Ok(Session {
            conn: Conn::Transaction(self.pool.begin_with(PG_BEGIN).await?),
            unnamed: self.behind_pooler,
        })
    }

    pub(super) async fn acquire(&self) -> Result<Session, sqlx::Error> {
        Ok(Session {
            conn: Conn::Autocommit(self.pool.acquire().await?),
            unnamed: self.behind_pooler,
        })
    }
}

/// One connection, in autocommit or within a transaction.
#[derive(Debug)]
pub(crate) struct Session {
    conn: Conn,
    unnamed: bool,
}

#[derive(Debug)]
enum Conn {
    Autocommit(PoolConnection<Postgres>),
    Transaction(Transaction<'static, Postgres>),
}

impl Session {
    pub(super) async fn commit(self) -> Result<(), sqlx::Error> {
        match self.conn {
            Conn::Transaction(tx) => tx.commit().await,
            Conn::Autocommit(_) => Ok(()),
        }
    }

    fn conn(&mut self) -> &mut PgConnection {
        match &mut self.conn {
            Conn::Autocommit(conn) => conn,
            Conn::Transaction(tx) => tx,
        }
    }
}

/// A statement that is prepared without a name.
struct Unnamed<E>(E);

impl<'q, E: Execute<'q, Postgres>> Execute<'q, Postgres> for Unnamed<E> {
    fn sql(self) -> SqlStr {
        self.0.sql()
    }

    fn statement(&self) -> Option<&PgStatement> {
        None
    }

    fn take_arguments(&mut self) -> Result<Option<PgArguments>, BoxDynError> {
        self.0.take_arguments()
    }

    fn persistent(&self) -> bool {
        false
    }
}

impl<'p> Executor<'p> for &'p PgStore {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Answer>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        if !self.behind_pooler {
            return (&self.pool).fetch_many(query);
        }
        let in_transaction = async move {
            let mut tx = self.pool.begin_with(PG_BEGIN).await?;
            let answers: Vec<_> = tx.fetch_many(Unnamed(query)).try_collect().await?;
            tx.commit().await?;
            Ok::<_, sqlx::Error>(stream::iter(answers.into_iter().map(Ok)))
        };
        stream::once(in_transaction).try_flatten().boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxFuture<'e, Result<Option<PgRow>, sqlx::Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        if !self.behind_pooler {
            return (&self.pool).fetch_optional(query);
        }
        Box::pin(async move {
            let mut tx = self.pool.begin_with(PG_BEGIN).await?;
            let row = tx.fetch_optional(Unnamed(query)).await?;
            tx.commit().await?;
            Ok(row)
        })
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, sqlx::Error>>
    where
        'p: 'e,
    {
        (&self.pool).prepare_with(sql, parameters)
    }
}

impl<'c> Executor<'c> for &'c mut Session {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Answer>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        match self.unnamed {
            true => self.conn().fetch_many(Unnamed(query)),
            false => self.conn().fetch_many(query),
        }
    }

    fn fetch_optional<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxFuture<'e, Result<Option<PgRow>, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        match self.unnamed {
            true => self.conn().fetch_optional(Unnamed(query)),
            false => self.conn().fetch_optional(query),
        }
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, sqlx::Error>>
    where
        'c: 'e,
    {
        self.conn().prepare_with(sql, parameters)
    }
}
