//! The outbox: what the triggers noted, beside the history.

use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, PgPool, Postgres, Row, Transaction};

use super::position::Position;
use super::triggers::owner_in_sql;
use crate::history::{Database, History, HistoryError};
use crate::store::planned_once;

/// Oldest rows of the outbox that are looked at together.
const ROWS: i64 = 2_000;
/// And as many newest ones: a statement over millions of runs does not keep back what comes behind it.
const NEWEST: i64 = ROWS;
/// Runs that are worked off together: a statement over 1.78 million of them is worked off within a
/// minute, and a batch keeps back what is fresh for some hundred milliseconds.
const RUNS: usize = 20_000;
/// A statement on the outbox takes milliseconds; one that waits for longer is given up.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Rows are counted up to here; more is "many".
pub(super) const COUNTED: i64 = 1_000_000;

/// Notes of the outbox, locked until they are let go or the taking is dropped.
pub(crate) struct Taken {
    tx: Transaction<'static, Postgres>,
    ids: Vec<i64>,
    /// The runs, each once.
    pub(crate) runs: Vec<String>,
    /// Whether every row has to be looked at: the history was truncated.
    pub(crate) everything: bool,
}

impl Taken {
    /// Lets the notes go.
    pub(crate) async fn let_go(mut self) -> Result<(), HistoryError> {
        let delete = sqlx::query("delete from recents.outbox where id = any($1)").bind(&self.ids);
        delete
            .execute(&mut *self.tx)
            .await
            .map_err(HistoryError::Database)?;
        self.tx.commit().await.map_err(HistoryError::Database)
    }
}

/// The pool of a PostgreSQL history.
pub(super) fn pool(history: &History) -> Option<&PgPool> {
    match &history.database {
        Database::Postgres(pool) => Some(pool),
        Database::Sqlite(_) => None,
    }
}

/// Begins a transaction that writes beside the history, in one round trip.
pub(super) async fn begin(pool: &PgPool) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    pool.begin_with(AssertSqlSafe(begin_text())).await
}

fn begin_text() -> String {
    let timeout = TIMEOUT.as_millis();
    format!("begin read write; set local statement_timeout = {timeout}")
}

/// Whose the notes of an outbox are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Notes {
    /// There is no outbox.
    None,
    /// Ours to take; also where an older version recorded nobody.
    Ours,
    /// Those of the store with this identity.
    Anothers(String),
}

impl Notes {
    /// As `store` finds them.
    ///
    /// # Errors
    /// Where the history does not answer.
    pub(crate) async fn of(history: &History, store: &str) -> Result<Self, HistoryError> {
        let Some(pool) = pool(history) else {
            return Ok(Self::None);
        };
        // Asked of the catalogue, which every role may read.
        let there = format!(
            "select exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace
                            where n.nspname = 'recents' and c.relname = 'outbox'), {}",
            owner_in_sql()
        );
        let there = sqlx::query_as::<_, (bool, Option<String>)>(AssertSqlSafe(there));
        let (there, owner) = there
            .fetch_one(pool)
            .await
            .map_err(HistoryError::Database)?;
        Ok(match owner {
            _ if !there => Self::None,
            Some(owner) if owner != store => Self::Anothers(owner),
            _ => Self::Ours,
        })
    }
}

/// Takes some notes for `store`: the oldest that nobody else took, and the newest. `None` where there
/// are none, or all are another store's.
pub(super) async fn take(
    history: &History,
    position: &mut Position,
    store: &str,
) -> Result<Option<Taken>, HistoryError> {
    let Some(pool) = pool(history) else {
        return Ok(None);
    };
    let taken = take_from(pool, position, store).await;
    taken.map_err(HistoryError::Database)
}

async fn take_from(
    pool: &PgPool,
    position: &mut Position,
    store: &str,
) -> Result<Option<Taken>, sqlx::Error> {
    let (behind, newest) = position.next(Instant::now());
    let look = sqlx::query(
        "select * from (select id, runs, false as is_new from recents.outbox
                        where id > $1 and id <= $2 order by id limit $3) as old
         union all
         select * from (select id, runs, true from recents.outbox
                        where id > greatest($1, $2) order by id desc limit $4) as new",
    );
    let look = look.bind(behind).bind(newest).bind(ROWS).bind(NEWEST);
    let rows = look.fetch_all(pool).await?;
    let mut runs_of = Vec::with_capacity(rows.len());
    for row in &rows {
        let runs = row.try_get::<i32, _>(1)?.unsigned_abs();
        runs_of.push((
            row.try_get::<i64, _>(0)?,
            runs as usize,
            row.try_get::<bool, _>(2)?,
        ));
    }
    let picked = pick(&runs_of);
    let old = runs_of.iter().filter(|(.., is_new)| !is_new).count();
    let last_old = picked
        .iter()
        .filter(|(.., is_new)| !is_new)
        .map(|(id, ..)| *id)
        .max();
    let picked_old = picked.iter().filter(|(.., is_new)| !is_new).count();
    let more = picked_old < old || i64::try_from(old).is_ok_and(|old| old >= ROWS);
    position.read(
        runs_of.iter().map(|(id, ..)| *id),
        more.then_some(last_old.unwrap_or(behind)),
        Instant::now(),
    );
    if picked.is_empty() {
        return Ok(None);
    }
    let ids: Vec<i64> = picked.iter().map(|(id, ..)| *id).collect();
    // Look-ups by key, as the store's are: planned for each batch, they would read all that waits.
    let begin = AssertSqlSafe(begin_text() + &planned_once());
    let mut tx = pool.begin_with(begin).await?;
    // Asked with each taking: another store may have been given the outbox a moment ago.
    let lock = format!(
        "select id, keys::text[] from recents.outbox
         where id = any($1) and coalesce({}, $2) = $2 for update skip locked",
        owner_in_sql()
    );
    let lock = sqlx::query(AssertSqlSafe(lock)).bind(&ids).bind(store);
    let rows = lock.fetch_all(&mut *tx).await?;
    let (mut ids, mut runs, mut everything) = (Vec::new(), Vec::new(), false);
    for row in rows {
        ids.push(row.try_get(0)?);
        match row.try_get::<Option<Vec<Option<String>>>, _>(1)? {
            Some(keys) => runs.extend(keys.into_iter().flatten()),
            None => everything = true,
        }
    }
    if ids.is_empty() {
        return Ok(None);
    }
    runs.sort_unstable();
    runs.dedup();
    Ok(Some(Taken {
        tx,
        ids,
        runs,
        everything,
    }))
}

/// As many rows as have about [`RUNS`] runs, half of them from the newest.
fn pick(rows: &[(i64, usize, bool)]) -> Vec<(i64, usize, bool)> {
    let mut picked = Vec::new();
    for (part, room) in [(true, RUNS / 2), (false, RUNS / 2)] {
        let mut runs = 0;
        for row in rows.iter().filter(|row| row.2 == part) {
            // One always: a row alone may have more.
            if runs > 0 && runs + row.1 > room {
                break;
            }
            runs += row.1;
            picked.push(*row);
        }
    }
    picked
}

/// Runs that wait at the most before `capture status` calls it a fault: nobody drains, and the outbox
/// only grows.
pub(super) const MAX_RUNS: i64 = 10_000_000;

/// What waits in the outbox.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Backlog {
    /// Rows, up to [`COUNTED`].
    pub(crate) rows: i64,
    /// The runs that they name.
    pub(crate) runs: i64,
    /// The oldest and the newest of them.
    pub(crate) standing: Option<(i64, i64)>,
    /// How long the oldest has waited.
    pub(crate) lag: Duration,
}

/// Counts what waits.
pub(crate) async fn backlog(history: &History) -> Result<Backlog, HistoryError> {
    match pool(history) {
        Some(pool) => backlog_in(pool).await,
        None => Ok(Backlog::default()),
    }
}

/// The same, of the outbox in this database.
pub(super) async fn backlog_in(pool: &PgPool) -> Result<Backlog, HistoryError> {
    let count = sqlx::query(
        "select count(*), min(id), max(id),
                coalesce(extract(epoch from clock_timestamp() - min(noted_at)), 0)::float8,
                coalesce(sum(runs), 0)::bigint
         from (select id, noted_at, runs from recents.outbox order by id limit $1) as waiting",
    );
    let read = async {
        let row = count.bind(COUNTED).fetch_one(pool).await?;
        Ok(Backlog {
            rows: row.try_get(0)?,
            standing: row.try_get::<Option<i64>, _>(1)?.zip(row.try_get(2)?),
            runs: row.try_get(4)?,
            lag: Duration::from_secs_f64(row.try_get::<f64, _>(3)?.max(0.0)),
        })
    };
    read.await.map_err(HistoryError::Database)
}
