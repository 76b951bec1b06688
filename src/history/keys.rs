//! The keys of a history: where it ends, and where its windows do.

use std::time::Duration;

use sqlx::{AssertSqlSafe, PgPool};

use super::conflict;
use super::look_up::TIMEOUT;
use super::mapping::{From, Mapping};
use super::{Database, History, HistoryError, session};

/// The texts of a column, of PostgreSQL, which locks the table and its partitions one after the other.
async fn texts(pool: &PgPool, timeout: Duration, text: &str) -> Result<Vec<String>, HistoryError> {
    let ask = || async {
        let mut tx = session::begin(pool, timeout).await?;
        let texts = sqlx::query_scalar(AssertSqlSafe(text)).fetch_all(&mut *tx);
        texts.await.map_err(HistoryError::Database)
    };
    conflict::patiently(timeout, ask).await
}

impl History {
    /// The last key of a walk; `None` where the history is empty.
    ///
    /// # Errors
    /// [`HistoryError::Misfit`] where keys of SQLite cannot be told by their text: windows end with a text,
    /// which would pass over a blob.
    pub(crate) async fn last_key(&self) -> Result<Option<String>, HistoryError> {
        let mapping = self.mapping();
        if let Database::Sqlite(_) = self.database
            && let Some(kind) = self.texts(mapping.odd_keys()).await?.pop()
        {
            let (table, key) = (&mapping.table, &mapping.key);
            return Err(HistoryError::misfit(
                "history.key",
                format_args!(
                    "`{key}` holds a value of type {kind}, and a key is an integer or text; \
                     `select * from {table} where typeof({key}) = '{kind}'` finds them: store them as \
                     `cast({key} as text)`"
                ),
            ));
        }
        Ok(self.texts(mapping.last_key()).await?.pop())
    }

    /// Some keys from both ends.
    pub(super) async fn sample_keys(
        &self,
        each: u32,
        timeout: Duration,
    ) -> Result<Vec<String>, HistoryError> {
        let Database::Postgres(pool) = &self.database else {
            return self.texts(self.mapping().sample_keys(each)).await;
        };
        let text = self.mapping().sample_keys(each);
        session::timed_out(texts(pool, timeout, &text).await, timeout)
    }

    async fn texts(&self, text: String) -> Result<Vec<String>, HistoryError> {
        match &self.database {
            Database::Postgres(pool) => texts(pool, TIMEOUT, &text).await,
            Database::Sqlite(pool) => sqlx::query_scalar(AssertSqlSafe(text))
                .fetch_all(pool)
                .await
                .map_err(HistoryError::Database),
        }
    }

    /// The key that ends the next window of `runs` runs, with the number of its runs: `last` where
    /// there are fewer.
    ///
    /// # Errors
    /// [`HistoryError::Misfit`] where a window would end where it begins, as with a number of SQLite whose text
    /// is greater.
    pub(crate) async fn window_end(
        &self,
        from: &From,
        last: &str,
        runs: u32,
    ) -> Result<(String, u64), HistoryError> {
        let (end, runs) = self.next_end(from, last, runs).await?;
        if from.key() == Some(end.as_str()) && runs > 0 {
            return Err(HistoryError::misfit(
                "history.key",
                format_args!(
                    "the value that is written as {end} is not that number; a key is an integer or text"
                ),
            ));
        }
        Ok((end, runs))
    }

    async fn next_end(
        &self,
        from: &From,
        last: &str,
        runs: u32,
    ) -> Result<(String, u64), HistoryError> {
        let mut mapping = self.mapping();
        loop {
            match self.window_end_by(&mapping, from, last, runs).await {
                Err(error) => match self.mapping_behind(&error, &mapping, TIMEOUT).await? {
                    Some(now) => mapping = now,
                    None => return Err(error),
                },
                end => return end,
            }
        }
    }

    async fn window_end_by(
        &self,
        mapping: &Mapping,
        from: &From,
        last: &str,
        runs: u32,
    ) -> Result<(String, u64), HistoryError> {
        let (boundary, count) = (mapping.boundary(from), mapping.count(from));
        // Both databases' connections understand it.
        macro_rules! end {
            ($conn:expr) => {
                async {
                    let end = sqlx::query_scalar(AssertSqlSafe(boundary.as_str()))
                        .bind(from.key())
                        .bind(last)
                        .bind(i64::from(runs) - 1);
                    if let Some(end) = end.fetch_optional(&mut *$conn).await? {
                        return Ok((end, u64::from(runs)));
                    }
                    let count = sqlx::query_scalar(AssertSqlSafe(count.as_str()));
                    let count = count.bind(from.key()).bind(last);
                    let count: i64 = count.fetch_one(&mut *$conn).await?;
                    Ok((last.to_owned(), count.unsigned_abs()))
                }
                .await
                .map_err(HistoryError::Database)
            };
        }
        match &self.database {
            Database::Postgres(pool) => {
                let ask = || async {
                    let mut tx = session::begin(pool, TIMEOUT).await?;
                    end!(tx)
                };
                conflict::patiently(TIMEOUT, ask).await
            }
            Database::Sqlite(pool) => {
                let mut conn = pool.acquire().await.map_err(HistoryError::Database)?;
                end!(conn)
            }
        }
    }

    /// About how many runs there are: from PostgreSQL's statistics where there are some; SQLite has
    /// none that are current, and counts fast.
    pub(crate) async fn about_how_many(&self) -> Result<Option<u64>, HistoryError> {
        let pool = match &self.database {
            Database::Postgres(pool) => pool,
            Database::Sqlite(pool) => {
                let count = AssertSqlSafe(format!("select count(*) from {}", self.mapping().table));
                let count = sqlx::query_scalar::<_, i64>(count).fetch_one(pool).await;
                return Ok(Some(count.map_err(HistoryError::Database)?.unsigned_abs()));
            }
        };
        // Partitions have the rows, their parent has none.
        let text = "select sum(greatest(c.reltuples, 0))::bigint from pg_catalog.pg_class c
             where c.relkind <> 'p' and (c.oid = to_regclass($1)
                or c.oid in (select relid from pg_catalog.pg_partition_tree(to_regclass($1))))";
        let table = &self.mapping().table;
        let ask = || async {
            let mut tx = session::begin(pool, TIMEOUT).await?;
            let about = sqlx::query_scalar(text).bind(table).fetch_one(&mut *tx);
            about.await.map_err(HistoryError::Database)
        };
        let about: Option<i64> = conflict::patiently(TIMEOUT, ask).await?;
        Ok(about.map(i64::unsigned_abs).filter(|runs| *runs > 0))
    }
}
