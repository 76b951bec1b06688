//! Sessions with PostgreSQL, direct or through a transaction pooler.
//!
//! A transaction pooler may hand each transaction to another session of the server: what was prepared in
//! one is not there in the next, and between the messages of one statement alone the session may change.
//! Behind one, every statement is a transaction of its own, and none is prepared under a name.

use futures_util::future::{BoxFuture, ready};
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use sqlx::error::BoxDynError;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{Either, Execute, Executor, PgConnection, PgPool, Postgres, SqlStr, raw_sql};
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::open::{PG_BEGIN, PG_BEGIN_POOLED, RELEASE_TIMEOUT};

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
        let mut session = self.acquire().await?;
        session.state = State::Beginning;
        let begin = match self.behind_pooler {
            true => PG_BEGIN_POOLED,
            false => PG_BEGIN,
        };
        raw_sql(begin).execute(session.conn()?).await?;
        session.state = State::Begun;
        Ok(session)
    }

    pub(super) async fn acquire(&self) -> Result<Session, sqlx::Error> {
        Ok(Session {
            conn: Some(self.pool.acquire().await?),
            state: State::Autocommit,
            unnamed: self.behind_pooler,
        })
    }

    /// A connection for one statement, or for some that are to be answered by one server.
    pub(super) async fn for_one(&self) -> Result<Session, sqlx::Error> {
        match self.behind_pooler {
            true => self.begin().await,
            false => self.acquire().await,
        }
    }
}

/// One connection, in autocommit or within a transaction. Dropped without `commit`, that is rolled back.
#[derive(Debug)]
pub(crate) struct Session {
    /// There until it is dropped.
    conn: Option<PoolConnection<Postgres>>,
    state: State,
    unnamed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Autocommit,
    /// Nobody knows whether a transaction is open.
    Beginning,
    Begun,
}

impl Session {
    pub(super) async fn commit(mut self) -> Result<(), sqlx::Error> {
        if self.state == State::Begun {
            raw_sql("COMMIT").execute(self.conn()?).await?;
            self.state = State::Autocommit;
        }
        Ok(())
    }

    pub(super) fn discard(mut self) {
        // As one of which nobody knows what it is in.
        self.state = State::Beginning;
    }

    fn conn(&mut self) -> Result<&mut PgConnection, sqlx::Error> {
        let conn = self.conn.as_deref_mut();
        conn.ok_or(sqlx::Error::PoolClosed)
    }
}

impl Drop for Session {
    /// Gives the connection back to the pool, which asks it whether it still lives, or ends it where it does
    /// not say so in time: one that died in silence would keep its place in the pool for a quarter of an hour.
    fn drop(&mut self) {
        let (Some(mut conn), Ok(runtime)) = (self.conn.take(), Handle::try_current()) else {
            return;
        };
        if self.state == State::Beginning {
            // What is written through it later would be part of a transaction that never ends.
            return conn.close_on_drop();
        }
        let is_begun = self.state == State::Begun;
        runtime.spawn(async move {
            if is_begun {
                let rollback = raw_sql("ROLLBACK").execute(&mut *conn);
                if !matches!(timeout(RELEASE_TIMEOUT, rollback).await, Ok(Ok(_))) {
                    return conn.close_on_drop();
                }
            }
            let _ = timeout(RELEASE_TIMEOUT, conn.return_to_pool()).await;
        });
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
        let answers = async move {
            let mut session = self.for_one().await?;
            let answers: Vec<_> = session.fetch_many(query).try_collect().await?;
            session.commit().await?;
            Ok::<_, sqlx::Error>(stream::iter(answers.into_iter().map(Ok)))
        };
        stream::once(answers).try_flatten().boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxFuture<'e, Result<Option<PgRow>, sqlx::Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        Box::pin(async move {
            let mut session = self.for_one().await?;
            let row = session.fetch_optional(query).await?;
            session.commit().await?;
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
        let unnamed = self.unnamed;
        match self.conn() {
            Ok(conn) if unnamed => conn.fetch_many(Unnamed(query)),
            Ok(conn) => conn.fetch_many(query),
            Err(error) => stream::once(ready(Err(error))).boxed(),
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
        let unnamed = self.unnamed;
        match self.conn() {
            Ok(conn) if unnamed => conn.fetch_optional(Unnamed(query)),
            Ok(conn) => conn.fetch_optional(query),
            Err(error) => Box::pin(ready(Err(error))),
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
        match self.conn() {
            Ok(conn) => conn.prepare_with(sql, parameters),
            Err(error) => Box::pin(ready(Err(error))),
        }
    }
}
