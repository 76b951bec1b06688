//! Rows of a history in SQLite.

use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use futures_util::stream::BoxStream;
use sqlx::pool::PoolConnection;
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqlitePoolOptions, SqliteQueryResult, SqliteRow};
use sqlx::{Connection, Either, Executor, Row, Sqlite, SqlitePool, TypeInfo, ValueRef};

use super::HistoryError;
use super::session::Taker;
use crate::model::time::TimeError;
use crate::model::{RawUse, Time};

/// Steps of SQLite's machine between two looks at the clock: some microseconds.
const STEPS: i32 = 10_000;

/// What a query of one statement sends: rows, then how the statement ended.
type Steps<'a> = BoxStream<'a, Result<Either<SqliteQueryResult, SqliteRow>, sqlx::Error>>;

/// A pool of connections for [`acquire`], which come back to it without a time-out.
pub(crate) fn pool() -> SqlitePoolOptions {
    SqlitePoolOptions::new().after_release(|conn, _| {
        Box::pin(async {
            conn.lock_handle().await?.remove_progress_handler();
            // Where SQLite itself rolled back, the driver's rollback failed, and its next transaction is none.
            Ok(!conn.is_in_transaction())
        })
    })
}

/// The next row of what `fetch_many` sends of one statement, or its end. The driver's rows just cease where the
/// thread of their connection panics, which is no end: only SQLite says that there are no more.
pub(crate) async fn next_row(steps: &mut Steps<'_>) -> Result<Option<SqliteRow>, sqlx::Error> {
    match steps.try_next().await? {
        Some(Either::Right(row)) => Ok(Some(row)),
        Some(Either::Left(_)) => Ok(None),
        None => Err(sqlx::Error::WorkerCrashed),
    }
}

/// A connection of a [`pool`] whose statements end after this time; zero is no limit. SQLite has no time-out of
/// its own, and goes on with a statement of which nobody takes a row.
pub(crate) async fn acquire(
    pool: &SqlitePool,
    timeout: Duration,
) -> Result<PoolConnection<Sqlite>, sqlx::Error> {
    let mut conn = pool.acquire().await?;
    if !timeout.is_zero() {
        let end = Instant::now() + timeout;
        let mut handle = conn.lock_handle().await?;
        handle.set_progress_handler(STEPS, move || Instant::now() < end);
    }
    Ok(conn)
}

/// Hands every row of `query` to `take`.
pub(super) async fn take_rows(
    pool: &SqlitePool,
    timeout: Duration,
    query: Query<'_, Sqlite, SqliteArguments>,
    take: &mut impl Taker,
) -> Result<(), HistoryError> {
    let conn = acquire(pool, timeout).await;
    let mut conn = conn.map_err(HistoryError::Database)?;
    let mut steps = conn.fetch_many(query);
    while let Some(row) = next_row(&mut steps).await.map_err(HistoryError::Database)? {
        let time = time_of(&row).map_err(HistoryError::Database)?;
        let raw = || -> Result<_, sqlx::Error> {
            Ok(RawUse {
                run: text(&row, 0)?,
                workspace: text(&row, 1)?,
                uid: text(&row, 2)?,
                published_run: text(&row, 3)?,
                last_used_at: time,
            })
        };
        if take.take(raw().map_err(HistoryError::Database)?) {
            take.hand_over().await;
        }
    }
    Ok(())
}

/// A column's text. SQLite does not mind what is in one: what is not UTF-8 becomes a text that is no
/// id either.
fn text(row: &SqliteRow, column: usize) -> Result<Option<&str>, sqlx::Error> {
    const NO_ID: &str = "\0";
    let bytes: Option<&[u8]> = row.try_get_unchecked(column)?;
    Ok(bytes.map(|bytes| std::str::from_utf8(bytes).unwrap_or(NO_ID)))
}

/// A text that is an integer exactly as SQLite would write it.
pub(super) fn number(text: &str) -> Option<i64> {
    text.parse()
        .ok()
        .filter(|number: &i64| number.to_string() == text)
}

/// Pairs as a JSON array. SQLite compares an expression without affinity strictly by type, so that
/// an id that is a number stands there as text and as number.
pub(super) fn json_pairs(pairs: &[(&str, &str)]) -> String {
    let forms = |text: &str| {
        let mut forms = vec![serde_json::Value::from(text)];
        forms.extend(number(text).map(serde_json::Value::from));
        forms
    };
    let mut all = Vec::new();
    for (workspace, published_run) in pairs {
        for workspace in forms(workspace) {
            for published_run in forms(published_run) {
                all.push(serde_json::json!([workspace, published_run]));
            }
        }
    }
    serde_json::Value::Array(all).to_string()
}

/// SQLite has no time type: an integer is microseconds since 1970, as in the table itself; a text is
/// RFC 3339 or SQL's form, in UTC unless it has an offset.
fn time_of(row: &SqliteRow) -> Result<Option<Result<Time, TimeError>>, sqlx::Error> {
    let value = row.try_get_raw(4)?;
    if value.is_null() {
        return Ok(None);
    }
    Ok(Some(match value.type_info().name() {
        "INTEGER" => Time::from_micros(row.try_get_unchecked(4)?),
        "TEXT" => Time::parse_sql(row.try_get_unchecked(4)?),
        _ => Err(TimeError::Malformed),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes far more than [`STEPS`].
    const LONG: &str =
        "with recursive n (i) as (select 1 union all select i + 1 from n where i < 100000)
                        select count(*) from n";

    #[tokio::test]
    async fn a_time_out_ends_with_the_use_that_it_was_set_for() {
        let pool = pool().max_connections(1);
        let pool = pool.connect("sqlite::memory:").await.expect("a database");
        let mut timed = acquire(&pool, Duration::from_nanos(1))
            .await
            .expect("a connection");
        let ended = sqlx::query(LONG).fetch_one(&mut *timed).await;
        assert!(ended.is_err_and(|error| crate::history::was_ended(&error)));
        drop(timed);
        let counted: Result<i64, _> = sqlx::query_scalar(LONG).fetch_one(&pool).await;
        assert_eq!(
            counted.expect("the same connection, without a time-out"),
            100_000
        );
    }

    /// The driver panics where a statement that it knows has more columns than before, as of `select *`.
    #[tokio::test]
    async fn rows_that_cease_without_an_end_are_an_error() {
        let pool = pool().max_connections(1);
        let pool = pool.connect("sqlite::memory:").await.expect("a database");
        let execute = async |sql: &'static str| {
            sqlx::raw_sql(sql).execute(&pool).await.expect(sql);
        };
        execute("create table t (run, workspace, uid, published_run, last_used_at)").await;
        execute("insert into t values ('1', 'w', 'u', 'p', 0), ('2', 'w', 'u', 'p', 0)").await;
        let read = async || {
            let mut taken = 0;
            let mut take = |_: RawUse<'_>| taken += 1;
            let all = sqlx::query("select * from t").bind(0);
            let read = take_rows(&pool, Duration::ZERO, all, &mut take).await;
            (read, taken)
        };
        assert!(matches!(read().await, (Ok(()), 2)));
        execute("alter table t add column another").await;
        let (read, taken) = read().await;
        assert!(read.is_err(), "{taken} rows, and no more of them");
    }
}
