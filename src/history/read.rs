//! Reading parts of a history through the mapping query. Nothing here depends on session state, so
//! that a transaction pooler may stand between.

use std::time::Duration;

use futures_util::TryStreamExt;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, PgPool, Postgres, Row, Sqlite, Transaction, TypeInfo, ValueRef};

use super::mapping::From;
use super::{Database, History, HistoryError, bulk};
use crate::model::time::TimeError;
use crate::model::{RawUse, Time};
use crate::store::{on_both, time_from_postgres};

/// A window may take this long before it is halved: twenty times its target.
const WINDOW_TIMEOUT: Duration = Duration::from_secs(5);
/// A look-up by keys without a fitting index reads the whole history once.
const KEYS_TIMEOUT: Duration = Duration::from_secs(300);

/// How long a command that was stopped waits for a query of the history to end.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// How long a query of the history may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// A window.
    Window,
    /// A look-up by keys.
    Keys,
    /// As long as it takes: the single stream of `--one-pass`.
    Whole,
}

impl Patience {
    pub(super) fn limit(self) -> Duration {
        match self {
            Self::Window => WINDOW_TIMEOUT,
            Self::Keys => KEYS_TIMEOUT,
            // PostgreSQL takes zero as no limit.
            Self::Whole => Duration::ZERO,
        }
    }
}

/// A part of the history.
#[derive(Debug, Clone, Copy)]
pub enum Part<'a> {
    /// Every run.
    All,
    /// The runs behind one key up to another.
    Window(&'a From, &'a str),
    /// These runs; what cannot be a key of the history is left out.
    Runs(&'a [String]),
    /// Every run that maps to a workspace.
    Workspace(&'a str),
    /// Every run that maps to one of these pairs of a workspace and a published run.
    Pairs(&'a [(&'a str, &'a str)]),
}

/// Takes the rows of a part, one by one.
pub trait Taker: Send {
    /// Takes a row; `true` asks for [`Taker::hand_over`] before the next one.
    fn take(&mut self, raw: RawUse<'_>) -> bool;

    /// Passes on what was taken so far, so that it need not stay in memory.
    fn hand_over(&mut self) -> impl Future<Output = ()> + Send {
        async {}
    }
}

impl<F: FnMut(RawUse<'_>) + Send> Taker for F {
    fn take(&mut self, raw: RawUse<'_>) -> bool {
        self(raw);
        false
    }
}

/// The settings of a transaction that reads a history: whatever the role or the database have set, the
/// mapping means the same.
pub(super) fn settings(timeout: Duration) -> String {
    format!(
        "set local statement_timeout = {}; set local timezone = 'UTC'; \
         set local datestyle = 'ISO'; set local search_path = public; \
         set local standard_conforming_strings = on",
        timeout.as_millis()
    )
}

/// Begins a read-only transaction with the settings that the mapping relies on.
pub(super) async fn begin(
    pool: &PgPool,
    timeout: Duration,
) -> Result<Transaction<'static, Postgres>, HistoryError> {
    let mut tx = pool
        .begin_with("begin read only")
        .await
        .map_err(HistoryError::Database)?;
    let set = sqlx::raw_sql(AssertSqlSafe(settings(timeout)))
        .execute(&mut *tx)
        .await;
    set.map_err(HistoryError::Database)?;
    Ok(tx)
}

impl History {
    /// Maps the runs of `part` and hands each row to `take`, one by one, in no order.
    ///
    /// # Errors
    /// [`HistoryError::TimedOut`] after `patience`, [`HistoryError::Database`] otherwise; rows may
    /// have been taken before.
    pub async fn read(
        &self,
        part: Part<'_>,
        patience: Patience,
        mut take: impl Taker,
    ) -> Result<(), HistoryError> {
        if let Database::Postgres(pool) = &self.database
            && let Part::All | Part::Window(..) = part
        {
            let window = match part {
                Part::Window(from, last) => Some((from, last)),
                _ => None,
            };
            let (text, types) = (self.mapping.bulk(window), self.mapping.types);
            let read = bulk::read(pool, &text, types, patience.limit(), &mut take).await;
            return timed_out(read, patience);
        }
        let text = match part {
            Part::All => self.mapping.all(),
            Part::Window(from, _) => self.mapping.window(from),
            Part::Runs(_) => self.mapping.runs(),
            Part::Workspace(_) => self.mapping.workspace(),
            Part::Pairs(_) => self.mapping.pairs(),
        };
        let read = match &self.database {
            Database::Postgres(pool) => {
                self.read_postgres(pool, text, part, patience, &mut take)
                    .await
            }
            Database::Sqlite(pool) => read_sqlite(pool, text, part, &mut take).await,
        };
        timed_out(read, patience)
    }

    async fn read_postgres(
        &self,
        pool: &PgPool,
        text: String,
        part: Part<'_>,
        patience: Patience,
        take: &mut impl Taker,
    ) -> Result<(), HistoryError> {
        let types = self.mapping.types;
        if let Part::Workspace(workspace) = part
            && !types.workspace.accepts(workspace)
        {
            return Ok(());
        }
        let mut tx = begin(pool, patience.limit()).await?;
        let query = sqlx::query(AssertSqlSafe(text));
        let query = match part {
            Part::All => query,
            Part::Window(from, last) => query.bind(from.key()).bind(last),
            Part::Runs(runs) => {
                let runs = runs.iter().filter(|run| types.key.accepts(run));
                query.bind(runs.cloned().collect::<Vec<_>>())
            }
            Part::Workspace(workspace) => query.bind(workspace),
            Part::Pairs(pairs) => {
                let valid = |(workspace, published_run): &(&str, &str)| {
                    types.workspace.accepts(workspace) && types.published_run.accepts(published_run)
                };
                let (workspaces, published_runs): (Vec<_>, Vec<_>) =
                    pairs.iter().copied().filter(valid).unzip();
                query.bind(workspaces).bind(published_runs)
            }
        };
        let mut rows = query.fetch(&mut *tx);
        while let Some(row) = rows.try_next().await.map_err(HistoryError::Database)? {
            let raw = || -> Result<_, sqlx::Error> {
                Ok(RawUse {
                    run: row.try_get(0)?,
                    workspace: row.try_get(1)?,
                    uid: row.try_get(2)?,
                    published_run: row.try_get(3)?,
                    last_used_at: row
                        .try_get_unchecked::<Option<i64>, _>(4)?
                        .map(time_from_postgres),
                })
            };
            if take.take(raw().map_err(HistoryError::Database)?) {
                take.hand_over().await;
            }
        }
        Ok(())
    }

    /// The last key; `None` where the history is empty.
    pub(crate) async fn last_key(&self) -> Result<Option<String>, HistoryError> {
        Ok(self.texts(self.mapping.last_key()).await?.pop())
    }

    pub(super) async fn sample_keys(&self, each: u32) -> Result<Vec<String>, HistoryError> {
        self.texts(self.mapping.sample_keys(each)).await
    }

    async fn texts(&self, text: String) -> Result<Vec<String>, HistoryError> {
        let query = AssertSqlSafe(text);
        on_both!(Database, &self.database, |pool, _dialect| {
            sqlx::query_scalar(query).fetch_all(pool).await
        })
        .map_err(HistoryError::Database)
    }

    /// The key that ends the next window of `runs` runs, with the number of its runs: `last` where
    /// there are fewer.
    pub(crate) async fn window_end(
        &self,
        from: &From,
        last: &str,
        runs: u32,
    ) -> Result<(String, u64), HistoryError> {
        let boundary = AssertSqlSafe(self.mapping.boundary(from));
        let count = AssertSqlSafe(self.mapping.count(from));
        on_both!(Database, &self.database, |pool, _dialect| {
            async {
                let offset = i64::from(runs) - 1;
                let end = sqlx::query_scalar(boundary)
                    .bind(from.key())
                    .bind(last)
                    .bind(offset);
                if let Some(end) = end.fetch_optional(pool).await? {
                    return Ok((end, u64::from(runs)));
                }
                let count = sqlx::query_scalar(count).bind(from.key()).bind(last);
                let count: i64 = count.fetch_one(pool).await?;
                Ok((last.to_owned(), count.unsigned_abs()))
            }
            .await
        })
        .map_err(HistoryError::Database)
    }

    /// About how many runs there are: from PostgreSQL's statistics where there are some; SQLite has
    /// none that are current, and counts fast.
    pub(crate) async fn about_how_many(&self) -> Result<Option<u64>, HistoryError> {
        let pool = match &self.database {
            Database::Postgres(pool) => pool,
            Database::Sqlite(pool) => {
                let count = AssertSqlSafe(format!("select count(*) from {}", self.mapping.table));
                let count = sqlx::query_scalar::<_, i64>(count).fetch_one(pool).await;
                return Ok(Some(count.map_err(HistoryError::Database)?.unsigned_abs()));
            }
        };
        // Partitions have the rows, their parent has none.
        let query = sqlx::query_scalar(
            "select sum(greatest(c.reltuples, 0))::bigint from pg_catalog.pg_class c
             where c.oid in (select relid from pg_catalog.pg_partition_tree(to_regclass($1)))
                or c.oid = to_regclass($1)",
        );
        let about: Option<i64> = query
            .bind(&self.mapping.table)
            .fetch_one(pool)
            .await
            .map_err(HistoryError::Database)?;
        Ok(about.map(i64::unsigned_abs).filter(|runs| *runs > 0))
    }

    /// Closes the connections. A query that was given up is not waited for long: its server may go
    /// on with it until it looks for its client.
    pub async fn close(&self) {
        let close = async {
            on_both!(Database, &self.database, |pool, _dialect| pool
                .close()
                .await);
        };
        let _ = tokio::time::timeout(CLOSE_WITHIN, close).await;
    }
}

impl From {
    fn key(&self) -> Option<&str> {
        match self {
            Self::First => None,
            Self::Behind(key) => Some(key),
        }
    }
}

/// Tells a statement that PostgreSQL ended because of its time-out from other failures.
fn timed_out(read: Result<(), HistoryError>, patience: Patience) -> Result<(), HistoryError> {
    match read {
        Err(HistoryError::Database(error))
            if error
                .as_database_error()
                .and_then(|e| e.code())
                .is_some_and(|c| c == "57014") =>
        {
            Err(HistoryError::TimedOut(patience.limit()))
        }
        read => read,
    }
}

async fn read_sqlite(
    pool: &sqlx::SqlitePool,
    text: String,
    part: Part<'_>,
    take: &mut impl Taker,
) -> Result<(), HistoryError> {
    let query = sqlx::query::<Sqlite>(AssertSqlSafe(text));
    let query = match part {
        Part::All => query,
        Part::Window(from, last) => query.bind(from.key()).bind(last),
        Part::Runs(runs) => query.bind(serde_json::json!(runs).to_string()),
        Part::Workspace(workspace) => match number(workspace) {
            Some(number) => query.bind(workspace).bind(number),
            None => query.bind(workspace).bind(workspace),
        },
        Part::Pairs(pairs) => query.bind(json_pairs(pairs)),
    };
    let mut rows = query.fetch(pool);
    while let Some(row) = rows.try_next().await.map_err(HistoryError::Database)? {
        let time = time_of(&row).map_err(HistoryError::Database)?;
        let raw = || -> Result<_, sqlx::Error> {
            Ok(RawUse {
                run: row.try_get(0)?,
                workspace: row.try_get(1)?,
                uid: row.try_get(2)?,
                published_run: row.try_get(3)?,
                last_used_at: time,
            })
        };
        if take.take(raw().map_err(HistoryError::Database)?) {
            take.hand_over().await;
        }
    }
    Ok(())
}

/// A text that is an integer exactly as SQLite would write it.
fn number(text: &str) -> Option<i64> {
    text.parse()
        .ok()
        .filter(|number: &i64| number.to_string() == text)
}

/// Pairs as a JSON array. SQLite compares an expression without affinity strictly by type, so that
/// an id that is a number stands there as text and as number.
fn json_pairs(pairs: &[(&str, &str)]) -> String {
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
