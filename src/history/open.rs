//! Opening a history: the mapping query is judged by its text, then held against the database.

use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, Executor, PgPool, Row, SqlSafeStr};

use super::conflict::{self, is_conflict};
use super::id_type::{IdType, Types};
use super::look_up;
use super::mapping::{self, Mapping};
use super::refuse::{self, Judged};
use super::types::{self, Known};
use super::{Database, History, HistoryError, order, session, sqlite, steady};
use crate::config::HistoryConfig;
use crate::store::{Dialect, pg_options, pg_pool};

/// Connections to the history, for one that uses it: a backfill reads two windows at once, looks ahead, and looks again;
/// a drain computes three batches of rows, and holds notes while it looks at others.
const CONNECTIONS: u32 = 5;
/// How long to wait for a connection to the history.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What every session starts with; transactions that map set it again, in case a pooler shares them.
const SESSION: [(&str, &str); 3] = [
    ("default_transaction_read_only", "on"),
    ("search_path", "public"),
    ("timezone", "UTC"),
];

/// Judges the configured mapping query by its text alone.
///
/// # Errors
/// Why it is refused.
pub fn judge(config: &HistoryConfig) -> Result<Judged, HistoryError> {
    let dialect = if config.url.starts_with("sqlite:") {
        Dialect::Sqlite
    } else {
        Dialect::Postgres
    };
    for (place, name) in [
        ("history.table", &config.table),
        ("history.key", &config.key),
    ] {
        if !is_name(name) || (place == "history.key" && name.contains('.') && !name.contains('"')) {
            return Err(HistoryError::misfit(
                place,
                format_args!("`{name}` is not a name; write it as in SQL, such as app.saved_run"),
            ));
        }
    }
    Ok(refuse::judge(&config.query, &config.table, dialect)?)
}

/// Whether a text is a name as SQL writes it: parts of letters, digits, `_` and `$`, or quoted ones,
/// with dots between them.
fn is_name(text: &str) -> bool {
    let mut rest = text;
    loop {
        let end = if let Some(quoted) = rest.strip_prefix('"') {
            quoted.find('"').filter(|at| *at > 0).map(|at| at + 2)
        } else {
            let word = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
            let end = rest.find(|c| !word(c)).unwrap_or(rest.len());
            (end > 0 && !rest.starts_with(|c: char| c.is_ascii_digit())).then_some(end)
        };
        let Some(end) = end else { return false };
        rest = &rest[end..];
        match rest.strip_prefix('.') {
            Some(next) => rest = next,
            None => return rest.is_empty(),
        }
    }
}

/// Opens the configured history and checks the mapping query against it: its columns and their
/// types, its functions, and some of its rows.
///
/// # Errors
/// [`HistoryError::Refused`] or [`HistoryError::Misfit`] with what does not fit and what to write
/// instead; [`HistoryError::Database`] where the database does not answer.
pub async fn connect(config: &HistoryConfig) -> Result<History, HistoryError> {
    connect_within(config, look_up::TIMEOUT).await
}

/// The same, with another time-out of its statements: they ask the catalogue, and wait only where the
/// table is locked.
pub(crate) async fn connect_within(
    config: &HistoryConfig,
    timeout: Duration,
) -> Result<History, HistoryError> {
    let judged = judge(config)?;
    let history = if config.url.starts_with("sqlite:") {
        let options = read_only_sqlite(&config.url)
            .map_err(|error| HistoryError::misfit("history.url", error))?;
        let pool = sqlite::pool()
            .max_connections(CONNECTIONS)
            .acquire_timeout(CONNECT_TIMEOUT)
            .connect_with(options)
            .await
            .map_err(HistoryError::Database)?;
        let history = describe_sqlite(pool, config, judged).await?;
        // For its keys' sake, which every way of reading takes as texts.
        history.last_key().await?;
        history
    } else {
        let pool = connect_postgres_within(config, timeout).await?;
        let describe = || describe_postgres(&pool, config, &judged, timeout);
        session::timed_out(conflict::patiently(timeout, describe).await, timeout)?
    };
    history.try_out().await?;
    Ok(history)
}

/// How the application's database is connected to, only to read, whatever the role or the database
/// have set.
pub(crate) fn read_only_postgres(
    url: &str,
    statement_timeout: Duration,
) -> Result<PgConnectOptions, sqlx::Error> {
    Ok(pg_options(url, statement_timeout)?.options(SESSION))
}

/// The same of a file, which must be there.
pub(crate) fn read_only_sqlite(url: &str) -> Result<SqliteConnectOptions, sqlx::Error> {
    Ok(SqliteConnectOptions::from_str(url)?
        .create_if_missing(false)
        .read_only(true))
}

/// Connects to a history in PostgreSQL, whatever the mapping.
///
/// # Errors
/// [`HistoryError::Misfit`] where the URL is none, [`HistoryError::Database`] where nothing answers.
pub async fn connect_postgres(config: &HistoryConfig) -> Result<PgPool, HistoryError> {
    connect_postgres_within(config, look_up::TIMEOUT).await
}

/// The same, with another time-out of its statements.
pub(crate) async fn connect_postgres_within(
    config: &HistoryConfig,
    timeout: Duration,
) -> Result<PgPool, HistoryError> {
    let options = read_only_postgres(&config.url, timeout)
        .map_err(|error| HistoryError::misfit("history.url", error))?;
    pg_pool(CONNECTIONS)
        .acquire_timeout(CONNECT_TIMEOUT)
        .connect_with(options)
        .await
        .map_err(HistoryError::Database)
}

async fn describe_postgres(
    pool: &PgPool,
    config: &HistoryConfig,
    judged: &Judged,
    timeout: Duration,
) -> Result<History, HistoryError> {
    let mut tx = session::begin(pool, timeout).await?;
    steady::functions(&mut tx, &judged.functions).await?;
    let types = types::described(&mut tx, &config.table, &config.key, &judged.text).await?;
    let order = order::postgres(&mut tx, &config.table, &config.key, types.key).await?;
    steady::postgres(&mut tx, &config.table, judged).await?;
    drop(tx);
    let mapping = Mapping {
        dialect: Dialect::Postgres,
        table: config.table.clone(),
        key: config.key.clone(),
        types,
        order,
        query: judged.text.clone(),
    };
    Ok(History {
        database: Database::Postgres(pool.clone()),
        known: Known::new(mapping),
    })
}

async fn describe_sqlite(
    pool: sqlx::SqlitePool,
    config: &HistoryConfig,
    judged: Judged,
) -> Result<History, HistoryError> {
    let mut conn = pool.acquire().await.map_err(HistoryError::Database)?;
    let table = config
        .table
        .rsplit('.')
        .next()
        .unwrap_or("")
        .trim_matches('"')
        .to_owned();
    let column = config.key.trim_matches('"').to_owned();
    let kind = sqlx::query("select type from pragma_table_info($1) where lower(name) = lower($2)");
    let kind = kind
        .bind(&table)
        .bind(&column)
        .fetch_optional(&mut *conn)
        .await;
    let Some(kind) = kind.map_err(HistoryError::Database)? else {
        return Err(HistoryError::misfit(
            "history.table and history.key",
            format_args!(
                "there is no table `{}` with a column `{}`",
                config.table, config.key
            ),
        ));
    };
    let kind: String = kind.try_get(0).map_err(HistoryError::Database)?;
    let upper = kind.to_uppercase();
    // SQLite's rules of affinity.
    let key = if upper.contains("INT") {
        IdType::Int8
    } else if upper.contains("CHAR") || upper.contains("TEXT") || upper.contains("CLOB") {
        IdType::Text
    } else {
        return Err(bad_key(&config.key, &kind));
    };
    // Qualified, because the table itself may be called `runs`.
    let qualified = match config.table.contains('.') {
        true => config.table.clone(),
        false => format!("main.{}", config.table),
    };
    let wrapped = mapping::wrap(
        &judged.text,
        &format!("select * from {qualified}"),
        Dialect::Sqlite,
        None,
        " limit 0",
    );
    let prepared = conn.prepare(AssertSqlSafe(wrapped).into_sql_str()).await;
    prepared.map_err(|error| said("history.query", error))?;
    steady::sqlite(&mut conn, &table, &judged).await?;
    let order = order::sqlite(&mut conn, &qualified, &config.key).await?;
    drop(conn);
    let mapping = Mapping {
        dialect: Dialect::Sqlite,
        table: qualified,
        key: config.key.clone(),
        types: Types {
            key,
            run: IdType::Other,
            workspace: IdType::Other,
            uid: IdType::Other,
            published_run: IdType::Other,
        },
        order,
        query: judged.text,
    };
    Ok(History {
        database: Database::Sqlite(pool),
        known: Known::new(mapping),
    })
}

pub(super) fn bad_key(key: &str, kind: &str) -> HistoryError {
    HistoryError::misfit(
        "history.key",
        format_args!(
            "`{key}` is of type {}; a key is an integer, a uuid or text",
            kind.to_lowercase()
        ),
    )
}

/// What the database says of the configured SQL is the operator's to see.
pub(super) fn said(place: &'static str, error: sqlx::Error) -> HistoryError {
    match error {
        // Not for what it says, but for what others did at the time.
        error if session::was_ended(&error) || is_conflict(&error) => HistoryError::Database(error),
        sqlx::Error::Database(database) if database.message().contains("row-level security") => {
            HistoryError::misfit(
                place,
                format_args!(
                    "{}, so that some of its rows are hidden from the role: `alter role … bypassrls`",
                    database.message()
                ),
            )
        }
        sqlx::Error::Database(database) => HistoryError::misfit(place, database.message()),
        error => HistoryError::Database(error),
    }
}
