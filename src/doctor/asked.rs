//! PostgreSQL, asked past the store.

use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, Row};

use super::STATEMENT_WITHIN;
use super::findings::Findings;
use crate::store::{PG_BEGIN, PgStore};

/// Makes a check in a transaction of its own, so that a pooler is of no importance, and a check that fails
/// keeps none from being made.
pub(super) async fn alone(
    check: &'static str,
    pool: &PgStore,
    findings: &mut Findings<'_>,
    look: impl AsyncFnOnce(&mut PgConnection, &mut Findings<'_>),
) {
    // Set here as well, because a pooler takes no settings of sessions.
    let begin = format!(
        "{PG_BEGIN}; set local statement_timeout = {}",
        STATEMENT_WITHIN.as_millis()
    );
    let looked = async |findings: &mut Findings<'_>| match pool
        .pool()
        .begin_with(AssertSqlSafe(begin))
        .await
    {
        Ok(mut tx) => look(&mut tx, findings).await,
        Err(error) => findings.unknown(check, &error),
    };
    findings.within(check, looked).await;
}

/// The first row of a statement without parameters, sent as plain text: a pooler passes on nothing else
/// for sure.
pub(super) async fn row(conn: &mut PgConnection, sql: &str) -> Result<PgRow, sqlx::Error> {
    let rows = rows(conn, sql).await?;
    rows.into_iter().next().ok_or(sqlx::Error::RowNotFound)
}

pub(super) async fn rows(conn: &mut PgConnection, sql: &str) -> Result<Vec<PgRow>, sqlx::Error> {
    use sqlx::Executor;
    conn.fetch_all(sqlx::raw_sql(AssertSqlSafe(sql.to_owned())))
        .await
}

/// A column of a row that came as text.
pub(super) fn text(row: &PgRow, at: usize) -> Option<String> {
    row.try_get_unchecked::<Option<String>, _>(at)
        .ok()
        .flatten()
}

pub(super) fn number<T: std::str::FromStr>(row: &PgRow, at: usize) -> Option<T> {
    text(row, at)?.parse().ok()
}
