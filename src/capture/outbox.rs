//! The outbox: what the triggers noted, beside the history.

use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, PgPool, Postgres, Row, Transaction};

use super::position::Position;
use super::rights;
use super::triggers::owner_in_sql;
use crate::history::{Database, History, HistoryError};
use crate::store::{PG_BEGIN, planned_once};

/// Oldest rows of the outbox that are looked at together.
const ROWS: i64 = 2_000;
/// And as many of those that came since, small ones first, and the newest first: a statement over millions of
/// runs does not keep back what comes with it or behind it.
const NEWEST: i64 = ROWS;
/// Among so many: three statements over 1.78 million runs between two looks, read in some ten milliseconds.
const CAME: i64 = 10_000;
/// Runs that are worked off together: a statement over 1.78 million of them is worked off within a
/// minute, and a batch keeps back what is fresh for some hundred milliseconds.
pub(super) const RUNS: u32 = 20_000;
/// A statement on the outbox takes milliseconds; one that waits for longer is given up.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Rows are counted up to here; more is "many".
pub(super) const COUNTED: i64 = 1_000_000;

/// Notes of the outbox, locked until they are let go or the taking is dropped.
pub(crate) struct Taken {
    /// `None` where they are held no longer.
    tx: Option<Transaction<'static, Postgres>>,
    pool: PgPool,
    ids: Vec<i64>,
    /// The runs, each once; behind the others those of small statements, so that what is noted of them is the
    /// newest, and taken first.
    pub(crate) runs: Vec<String>,
    /// Those notes that say to look at every row, because the history was truncated. They are let go apart.
    pub(super) everything: Vec<i64>,
}

impl Taken {
    /// Whether there is nothing to let go.
    pub(super) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Holds them no longer: others may do the same now, which only costs.
    pub(super) fn release(&mut self) {
        self.tx = None;
    }

    /// Lets the notes go, which were taken for `store`.
    pub(crate) async fn let_go(self, store: &str) -> Result<(), HistoryError> {
        let Some(mut tx) = self.tx else {
            return let_go_of(&self.pool, &self.ids, store).await;
        };
        let delete = sqlx::query("delete from recents.outbox where id = any($1)").bind(&self.ids);
        if let Err(error) = delete.execute(&mut *tx).await {
            return Err(rights::explained(&self.pool, error).await);
        }
        tx.commit().await.map_err(HistoryError::Database)
    }
}

/// Lets notes go that are no longer held, where they still are `store`'s.
pub(super) async fn let_go(
    history: &History,
    ids: &[i64],
    store: &str,
) -> Result<(), HistoryError> {
    match pool(history) {
        Some(pool) => let_go_of(pool, ids, store).await,
        None => Ok(()),
    }
}

async fn let_go_of(pool: &PgPool, ids: &[i64], store: &str) -> Result<(), HistoryError> {
    let delete = format!(
        "delete from recents.outbox where id = any($1) and coalesce({}, $2) = $2",
        owner_in_sql()
    );
    let delete = sqlx::query(AssertSqlSafe(delete)).bind(ids).bind(store);
    let gone = async {
        let mut tx = begin(pool).await?;
        delete.execute(&mut *tx).await?;
        tx.commit().await
    };
    gone.await.map_err(HistoryError::Database)
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
    format!("{PG_BEGIN} read write; set local statement_timeout = {timeout}")
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

/// Takes some notes for `store`, of about so many runs: the oldest that nobody else took, and the newest. `None`
/// where there are none, or all are another store's.
pub(super) async fn take(
    history: &History,
    position: &mut Position,
    store: &str,
    runs: u32,
) -> Result<Option<Taken>, HistoryError> {
    let Some(pool) = pool(history) else {
        return Ok(None);
    };
    match take_from(pool, position, store, runs as usize).await {
        Ok(taken) => Ok(taken),
        Err(error) => Err(rights::explained(pool, error).await),
    }
}

async fn take_from(
    pool: &PgPool,
    position: &mut Position,
    store: &str,
    most: usize,
) -> Result<Option<Taken>, sqlx::Error> {
    let (behind, newest) = (position.next(Instant::now()), position.newest());
    let look = sqlx::query(
        "select * from (select id, runs, false as is_new from recents.outbox
                        where id > $1 and id <= $2 order by id limit $3) as old
         union all
         select * from (select id, runs, true
                        from (select id, runs from recents.outbox
                              where id > greatest($1, $2) order by id desc limit $5) as came
                        order by runs > 1, id desc limit $4) as new",
    );
    let look = look.bind(behind).bind(newest).bind(ROWS).bind(NEWEST);
    let look = look.bind(CAME);
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
    let picked = pick(&runs_of, most);
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
    let (mut ids, mut everything) = (Vec::new(), Vec::new());
    let (mut runs, mut small) = (Vec::new(), Vec::new());
    for row in rows {
        let id: i64 = row.try_get(0)?;
        match row.try_get::<Option<Vec<Option<String>>>, _>(1)? {
            Some(keys) => {
                ids.push(id);
                let of = if keys.len() == 1 {
                    &mut small
                } else {
                    &mut runs
                };
                of.extend(keys.into_iter().flatten());
            }
            None => everything.push(id),
        }
    }
    if ids.is_empty() && everything.is_empty() {
        return Ok(None);
    }
    for runs in [&mut runs, &mut small] {
        runs.sort_unstable();
        runs.dedup();
    }
    runs.retain(|run| small.binary_search(run).is_err());
    runs.append(&mut small);
    Ok(Some(Taken {
        tx: Some(tx),
        pool: pool.clone(),
        ids,
        runs,
        everything,
    }))
}

/// Rows whose runs are read together: as many as a batch of the drain has.
const READ: i64 = 100;

/// Hands each run that waits now to `see`; returns whether one of the notes is about every run.
pub(super) async fn each_run(
    history: &History,
    mut see: impl FnMut(&str),
) -> Result<bool, HistoryError> {
    let Some(pool) = pool(history) else {
        return Ok(false);
    };
    let Some((first, last)) = backlog_in(pool).await?.standing else {
        return Ok(false);
    };
    let (mut behind, mut everything) = (first - 1, false);
    let read = async {
        while behind < last {
            let rows = sqlx::query(
                "select id, keys::text[] from recents.outbox where id > $1 and id <= $2
                 order by id limit $3",
            );
            let rows = rows.bind(behind).bind(last).bind(READ);
            let rows = rows.fetch_all(pool).await?;
            behind = last;
            for row in &rows {
                match row.try_get::<Option<Vec<Option<String>>>, _>(1)? {
                    Some(keys) => keys.iter().flatten().for_each(|key| see(key)),
                    None => everything = true,
                }
            }
            if rows.len() >= READ.unsigned_abs() as usize
                && let Some(row) = rows.last()
            {
                behind = row.try_get(0)?;
            }
        }
        Ok(everything)
    };
    read.await.map_err(HistoryError::Database)
}

/// As many rows as have about `most` runs: where they have more, half of them from the newest.
fn pick(rows: &[(i64, usize, bool)], most: usize) -> Vec<(i64, usize, bool)> {
    if rows.iter().map(|(_, runs, _)| runs).sum::<usize>() <= most {
        return rows.to_vec();
    }
    let mut picked = Vec::new();
    for (part, room) in [(true, most / 2), (false, most / 2)] {
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
    match read.await {
        Ok(backlog) => Ok(backlog),
        Err(error) => Err(rights::explained(pool, error).await),
    }
}
