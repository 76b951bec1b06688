//! The types of the history's columns. An application changes them while a service runs, so that what is
//! known of them is never the last word: where an id does not fit, or a statement fails as it does with
//! other types, they are read again.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use sqlx::{AssertSqlSafe, Column, Connection, Executor, PgConnection, SqlSafeStr, Statement};
use sqlx::{PgPool, SqlitePool, TypeInfo};

use super::conflict;
use super::id_type::{IdType, Types};
use super::mapping::Mapping;
use super::open::{bad_key, said};
use super::order::{self, Order};
use super::{Database, History, HistoryError, look_up, refuse, session};

/// Codes of PostgreSQL for a statement that was written for other types: no such operator, a mismatch, no
/// such cast, several operators, a plan for another result.
const OF_TYPES: [&str; 5] = ["42883", "42804", "42846", "42725", "0A000"];

/// The mapping, with the types that were seen last.
#[derive(Debug, Clone)]
pub(crate) struct Known(Arc<RwLock<Arc<Mapping>>>);

impl Known {
    pub(super) fn new(mapping: Mapping) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(mapping))))
    }

    fn get(&self) -> Arc<Mapping> {
        // Only ever replaced.
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&known)
    }

    fn set(&self, mapping: Arc<Mapping>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = mapping;
    }
}

impl History {
    /// The mapping, with the types that are known.
    pub(crate) fn mapping(&self) -> Arc<Mapping> {
        self.known.get()
    }

    /// What the history's keys are ordered by: two walks of different orders have nothing to do with each
    /// other.
    pub(crate) fn key_order(&self) -> Order {
        Arc::clone(&self.mapping().order)
    }

    /// The order that the keys have now is known from now on. A walk, and what tells it from others, begin with
    /// it, and who cuts the history by keys looks again behind each part.
    ///
    /// # Errors
    /// [`HistoryError::Database`], [`HistoryError::TimedOut`], or what no longer fits.
    pub(crate) async fn look_at_order(&self) -> Result<(), HistoryError> {
        match &self.database {
            Database::Postgres(pool) => {
                let now = self.mapping_anew(pool, look_up::TIMEOUT).await;
                session::timed_out(now, look_up::TIMEOUT).map(drop)
            }
            Database::Sqlite(pool) => self.order_in_sqlite(pool).await,
        }
    }

    /// The same of SQLite.
    pub(super) async fn order_in_sqlite(&self, pool: &SqlitePool) -> Result<(), HistoryError> {
        let known = self.mapping();
        let mut conn = pool.acquire().await.map_err(HistoryError::Database)?;
        let order = order::sqlite(&mut conn, &known.table, &known.key).await?;
        if order != known.order {
            let mut mapping = (*known).clone();
            mapping.order = order;
            self.known.set(Arc::new(mapping));
        }
        Ok(())
    }

    /// The mapping with the types that this transaction finds. It has the tables locked from now on, so that
    /// none of them changes before it ends.
    pub(super) async fn mapping_in(
        &self,
        conn: &mut PgConnection,
    ) -> Result<Arc<Mapping>, HistoryError> {
        // What the session has prepared before is described as it was then.
        conn.clear_cached_statements()
            .await
            .map_err(HistoryError::Database)?;
        let known = self.mapping();
        let types = described(conn, &known.table, &known.key, &known.query).await?;
        let order = order::postgres(conn, &known.table, &known.key, types.key).await?;
        if (types, &order) == (known.types, &known.order) {
            return Ok(known);
        }
        tracing::info!(
            ?types,
            %order,
            "the types of the history's columns, or the order of its keys, are others now"
        );
        let mut mapping = (*known).clone();
        (mapping.types, mapping.order) = (types, order);
        let mapping = Arc::new(mapping);
        self.known.set(Arc::clone(&mapping));
        Ok(mapping)
    }

    /// The mapping to read with again, where reading with `used` failed because the types are others now.
    pub(super) async fn mapping_behind(
        &self,
        error: &HistoryError,
        used: &Mapping,
        timeout: Duration,
    ) -> Result<Option<Arc<Mapping>>, HistoryError> {
        let Database::Postgres(pool) = &self.database else {
            return Ok(None);
        };
        if !may_be_of_types(error) {
            return Ok(None);
        }
        let now = self.mapping_anew(pool, timeout).await;
        let now = session::timed_out(now, timeout)?;
        Ok((now.types != used.types).then_some(now))
    }

    async fn mapping_anew(
        &self,
        pool: &PgPool,
        timeout: Duration,
    ) -> Result<Arc<Mapping>, HistoryError> {
        let ask = || async {
            let mut tx = session::begin(pool, timeout).await?;
            self.mapping_in(&mut tx).await
        };
        conflict::patiently(timeout, ask).await
    }
}

/// Whether a statement may have failed because the columns have other types than it was written for. A value
/// that does not fit into an old type looks as broken data does.
fn may_be_of_types(error: &HistoryError) -> bool {
    let code = match error {
        HistoryError::Database(sqlx::Error::Database(error)) => error.code(),
        _ => None,
    };
    error.is_of_the_data() || code.is_some_and(|code| OF_TYPES.contains(&code.as_ref()))
}

/// The types of a history in PostgreSQL, as they are now.
pub(super) async fn described(
    conn: &mut PgConnection,
    table: &str,
    key: &str,
    query: &str,
) -> Result<Types, HistoryError> {
    let names = refuse::COLUMNS
        .map(|column| format!("q.{column}"))
        .join(", ");
    let columns = format!(
        "with runs as not materialized (select * from {table}) \
         select {names} from (\n{query}\n) as q"
    );
    let of_key = AssertSqlSafe(format!("select {key} from {table}"));
    let of_key = conn.prepare(of_key.into_sql_str()).await;
    let of_key = of_key.map_err(|error| said("history.table and history.key", error))?;
    let columns = conn.prepare(AssertSqlSafe(columns).into_sql_str()).await;
    let columns = columns.map_err(|error| said("history.query", error))?;
    let kind = |at: usize| {
        columns
            .columns()
            .get(at)
            .map_or("?", |c| c.type_info().name())
    };
    if !matches!(kind(4), "TIMESTAMPTZ" | "TIMESTAMP") {
        return Err(HistoryError::misfit(
            "history.query",
            format_args!(
                "last_used_at is of type {}; make it a timestamptz, with to_timestamp(…) for \
                 seconds since 1970 or `…::timestamptz` for text",
                kind(4).to_lowercase()
            ),
        ));
    }
    let key_type = of_key
        .columns()
        .first()
        .map_or("?", |c| c.type_info().name());
    let types = Types {
        key: IdType::of(key_type),
        run: IdType::of(kind(0)),
        uid: IdType::of(kind(2)),
        workspace: IdType::of(kind(1)),
        published_run: IdType::of(kind(3)),
    };
    match types.key {
        IdType::Other => Err(bad_key(key, key_type)),
        _ => Ok(types),
    }
}
