//! Where details come from: the configured query, on the application's database.

use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use serde_json::{Map, Number, Value};
use sqlx::sqlite::SqliteRow;
use sqlx::{
    AssertSqlSafe, Column, Connection, Either, Executor, Postgres, Row, SqlSafeStr, Statement,
    Type, TypeInfo, ValueRef,
};

use super::loads::Fetch;
use super::{DetailsError, MAX_STATEMENTS};
use crate::config::DetailsConfig;
use crate::history::{Database, LOCK_TIMEOUT, read_only_postgres, read_only_sqlite, sqlite};
use crate::store::pg_pool;
use crate::store::sqlstate::{self, INSUFFICIENT_PRIVILEGE};

/// The longest that details may take, also where their database is away: a page comes without them
/// then, and a visitor waits for that page.
pub(super) const TIMEOUT: Duration = Duration::from_secs(2);

/// Classes of PostgreSQL's errors that say nothing of the query: the connection, a conflict, resources, a
/// lock or an object that is not ready, an operator's intervention, the system.
const OF_THE_DATABASE: [&str; 7] = ["08", "40", "53", "55", "57", "58", "XX"];
/// Reads something, by the schema, which is read again where it has changed.
const BEGIN_TO_READ: &str = "select 1 from sqlite_schema limit 1";
/// SQLite's code for a query that it does not understand.
const NOT_UNDERSTOOD: &str = "1";

/// The database, and the query as it is sent there.
#[derive(Debug)]
pub(super) struct Source {
    database: Database,
    text: String,
}

impl Source {
    /// Connects at the first use.
    pub(super) fn open(config: &DetailsConfig) -> Result<Self, DetailsError> {
        let bad_url = |error: sqlx::Error| DetailsError::Refused(format!("its database: {error}"));
        // A newline ends a trailing comment of the query.
        let query = config.query.trim().trim_end_matches(';');
        if config.url.starts_with("sqlite:") {
            let options = read_only_sqlite(&config.url).map_err(bad_url)?;
            let pool = sqlite::pool()
                .max_connections(MAX_STATEMENTS)
                .acquire_timeout(TIMEOUT)
                .connect_lazy_with(options);
            return Ok(Self {
                database: Database::Sqlite(pool),
                text: format!("select q.published_run, q.* from (\n{query}\n) as q"),
            });
        }
        let options = read_only_postgres(&config.url, TIMEOUT).map_err(bad_url)?;
        let lock_timeout = LOCK_TIMEOUT.as_millis().to_string();
        let options = options.options([("lock_timeout", lock_timeout)]);
        // A statement that was prepared fails where its result is of another collation, as a column may be.
        Ok(Self {
            database: Database::Postgres(pg_pool(MAX_STATEMENTS).connect_lazy_with(options)),
            text: format!(
                "select cast(q.published_run as text) collate \"C\",
                        cast(to_jsonb(q) - 'published_run' as text)
                 from (\n{query}\n) as q"
            ),
        })
    }

    /// Whether the database understands the query, finds `published_run` in what it returns, and runs it.
    pub(super) async fn check(&self) -> Result<(), DetailsError> {
        let parameters = self.parameters().await.map_err(failure)?;
        if parameters != 1 {
            let detail = format!("takes {parameters} parameters, and is given one");
            return Err(DetailsError::Refused(detail));
        }
        // Of no ids: nobody here knows one that the query can read.
        self.fetch(&[], |_, _| {}).await.map_err(failure)
    }

    /// How many parameters the query takes.
    async fn parameters(&self) -> Result<usize, sqlx::Error> {
        let text = AssertSqlSafe(self.text.clone()).into_sql_str();
        match &self.database {
            Database::Postgres(pool) => {
                let mut conn = pool.acquire().await?;
                // What is bound is an array of texts, whatever the query would like.
                let texts = [<Vec<String> as Type<Postgres>>::type_info()];
                let statement = conn.prepare_with(text, &texts).await?;
                Ok(number(statement.parameters()))
            }
            Database::Sqlite(pool) => {
                let mut conn = pool.acquire().await?;
                let statement = conn.prepare(text).await?;
                Ok(number(statement.parameters()))
            }
        }
    }
}

/// Tells a query that its database refuses from a database that is away, or that lets the role not read.
fn failure(error: sqlx::Error) -> DetailsError {
    let Some(said) = error.as_database_error() else {
        return DetailsError::Database(error);
    };
    let words = said.message().to_owned();
    match is_of_the_query(said) {
        true if sqlstate::is(&error, INSUFFICIENT_PRIVILEGE) => DetailsError::Denied(words),
        true => DetailsError::Refused(words),
        false => DetailsError::Database(error),
    }
}

/// A driver knows the types of a statement's parameters, or their number.
fn number<T>(parameters: Option<Either<&[T], usize>>) -> usize {
    match parameters {
        Some(Either::Left(types)) => types.len(),
        Some(Either::Right(number)) => number,
        None => 0,
    }
}

fn is_of_the_query(error: &dyn sqlx::error::DatabaseError) -> bool {
    let code = error.code().unwrap_or_default();
    match error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>() {
        Some(_) => !OF_THE_DATABASE.iter().any(|class| code.starts_with(class)),
        None => code == NOT_UNDERSTOOD,
    }
}

impl Fetch for Source {
    async fn fetch(
        &self,
        ids: &[Arc<str>],
        mut take: impl FnMut(&str, String) + Send,
    ) -> Result<(), sqlx::Error> {
        let ids: Vec<&str> = ids.iter().map(|id| &**id).collect();
        let query = AssertSqlSafe(self.text.as_str());
        match &self.database {
            Database::Postgres(pool) => {
                let mut rows = sqlx::query(query).bind(ids).fetch(pool);
                while let Some(row) = rows.try_next().await? {
                    if let Some(published_run) = row.try_get(0)? {
                        take(published_run, row.try_get(1)?);
                    }
                }
            }
            Database::Sqlite(pool) => {
                let mut conn = sqlite::acquire(pool, TIMEOUT).await?;
                // The driver looks for the names of columns when it prepares a statement, and SQLite prepares it
                // again, with other columns, where the schema has changed since. So it is prepared each time,
                // by a schema that stays: the one that the transaction began to read.
                let mut tx = conn.begin().await?;
                tx.execute(BEGIN_TO_READ).await?;
                let ids = serde_json::json!(ids).to_string();
                let query = sqlx::query(query).bind(ids).persistent(false);
                let mut steps = tx.fetch_many(query);
                while let Some(row) = sqlite::next_row(&mut steps).await? {
                    if let Some(published_run) = id_of(&row)? {
                        take(&published_run, card_of(&row)?);
                    }
                }
            }
        }
        Ok(())
    }
}

fn id_of(row: &SqliteRow) -> Result<Option<String>, sqlx::Error> {
    Ok(match value_of(row, 0)? {
        Value::Null => None,
        Value::String(text) => Some(text),
        number => Some(number.to_string()),
    })
}

/// The columns behind the first one, but for the one that it repeats, as a JSON object.
fn card_of(row: &SqliteRow) -> Result<String, sqlx::Error> {
    let mut card = Map::new();
    for column in row.columns().iter().skip(1) {
        if column.name() != "published_run" {
            card.insert(column.name().into(), value_of(row, column.ordinal())?);
        }
    }
    Ok(Value::Object(card).to_string())
}

/// A value as JSON, in the form in which PostgreSQL would write one that JSON has no form for.
fn value_of(row: &SqliteRow, column: usize) -> Result<Value, sqlx::Error> {
    let value = row.try_get_raw(column)?;
    if value.is_null() {
        return Ok(Value::Null);
    }
    Ok(match value.type_info().name() {
        "INTEGER" => Value::from(row.try_get_unchecked::<i64, _>(column)?),
        "REAL" => {
            let real: f64 = row.try_get_unchecked(column)?;
            match Number::from_f64(real) {
                Some(number) => Value::Number(number),
                None if real > 0.0 => Value::from("Infinity"),
                None => Value::from("-Infinity"),
            }
        }
        "TEXT" => {
            let bytes: &[u8] = row.try_get_unchecked(column)?;
            Value::from(String::from_utf8_lossy(bytes))
        }
        _ => {
            let bytes: &[u8] = row.try_get_unchecked(column)?;
            let hex = bytes.iter().map(|byte| format!("{byte:02x}"));
            Value::from(format!("\\x{}", hex.collect::<String>()))
        }
    })
}
