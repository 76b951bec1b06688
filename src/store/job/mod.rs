//! Jobs: long work with a lease and a cursor, so that it survives its worker.

mod admin;
mod hold;
mod plan;
mod start;

use std::time::Duration;

use sqlx::Row;

use super::statement::Statement;
use super::{Conn, Store, StoreError, Tx, on_both};
use crate::model::{Id, Time};

pub(crate) use admin::{JobRow, Transition, find_by_key, get, list, transition};
pub(crate) use hold::{Held, Work, any_waits, hold, take_next};
pub(crate) use plan::{PlanLine, add_to_plan, clear_plan, plan_after};
pub(crate) use start::{NewJob, overlapping, prune, set_aside, start};

/// How long a job belongs to a worker that says nothing.
pub const LEASE: Duration = Duration::from_secs(30);

pub(super) const STATEMENTS: [&Statement; 6] =
    [&RENEW, &SAVE, &LET_GO, &LOOK, &LAST_SUCCESS, &LAST_FILLED];

/// All statements on jobs.
pub(super) fn statements() -> impl Iterator<Item = &'static Statement> {
    STATEMENTS
        .into_iter()
        .chain(hold::STATEMENTS)
        .chain(start::STATEMENTS)
        .chain(admin::STATEMENTS)
        .chain(plan::STATEMENTS)
}

// An UPDATE, not a SELECT: it locks the row, so that a takeover waits or this finds no row.
static RENEW: Statement = Statement::new("job_renew", || {
    "update {recents}job set lease_until = {now} + {lease} * {second}
     where id = $1 and fence = $2 and state = 'running' and lease_until >= {now}"
        .replace("{lease}", &LEASE.as_secs().to_string())
});

static SAVE: Statement = Statement::new("job_save", || {
    "update {recents}job set cursor = $3, scanned = $4, total = $5, counts = $6,
            lease_until = {now} + {lease} * {second}
     where id = $1 and fence = $2 and state = 'running' and lease_until >= {now}"
        .replace("{lease}", &LEASE.as_secs().to_string())
});

static LET_GO: Statement = Statement::new("job_let_go", || {
    "update {recents}job set state = $3, lease_until = case when $3 = 'queued' then {now} end, error = $4,
            finished_at = case when $3 in ('paused', 'queued') then null else {now} end
     where id = $1 and fence = $2 and state = 'running'"
        .into()
});

static LOOK: Statement = Statement::new("job_look", || {
    "select state, fence from {recents}job where id = $1".into()
});

static LAST_SUCCESS: Statement = Statement::new("job_last_success", || {
    "select max(finished_at) from {recents}job where kind = $1 and state = 'succeeded'".into()
});

/// Whether a job read a file, as an expression: it has what is in that, and nothing else of a history.
const OF_A_FILE: &str = "(source like 'file %' or source like 'stdin %')";

static LAST_FILLED: Statement = Statement::new("job_last_filled", || {
    format!(
        "select max(finished_at) from {{recents}}job
         where kind = $1 and state = 'succeeded' and not {OF_A_FILE}"
    )
});

/// Whether a job of kind `$1` ever read all of the history, as an expression.
pub(super) fn ever_filled() -> String {
    format!(
        "exists (select 1 from {{recents}}job
                 where kind = $1 and state = 'succeeded' and not {OF_A_FILE})"
    )
}

/// What becomes of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It waits for a worker.
    Queued,
    /// A worker holds it, or did, and its lease ran out.
    Running,
    /// It was stopped, and may go on.
    Paused,
    /// It is done.
    Succeeded,
    /// It is given up; `error` says why.
    Failed,
    /// It was stopped for good.
    Cancelled,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 6] = [
        Self::Queued,
        Self::Running,
        Self::Paused,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The state of that name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    fn decode(name: &str) -> Result<Self, sqlx::Error> {
        let unknown = || sqlx::Error::Decode(format!("`{name}` is no state of a job").into());
        Self::of(name).ok_or_else(unknown)
    }
}

/// Proves that a worker holds a job: whoever takes the job over holds a greater number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fence {
    /// The job.
    pub(crate) id: String,
    number: i64,
}

impl Fence {
    /// Proves, first in a transaction that writes, that the job is still ours, and keeps it so until the
    /// transaction ends.
    ///
    /// # Errors
    /// [`StoreError::LostJob`] where it is not.
    pub(crate) async fn check(&self, tx: &mut Tx) -> Result<(), StoreError> {
        self.renew_on(tx.conn()).await
    }

    /// Keeps the job ours for another [`LEASE`].
    ///
    /// # Errors
    /// [`StoreError::LostJob`] where it is not ours.
    pub(crate) async fn renew(&self, store: &Store) -> Result<(), StoreError> {
        let mut tx = store.begin().await?;
        self.renew_on(tx.conn()).await?;
        tx.commit().await
    }

    async fn renew_on(&self, conn: Conn<'_>) -> Result<(), StoreError> {
        let renewed = on_both!(Conn, conn, |conn, dialect| {
            let query = sqlx::query(RENEW.run(dialect)).bind(&self.id);
            query.bind(self.number).execute(conn).await?.rows_affected()
        });
        held(renewed)
    }

    /// What the job's state is, where nobody took it over since; `None` where somebody did, or it is
    /// gone.
    pub(crate) async fn look(&self, store: &Store) -> Result<Option<State>, StoreError> {
        on_both!(Store, store, |pool, dialect| {
            let row = sqlx::query(LOOK.run(dialect)).bind(&self.id);
            let Some(row) = row.fetch_optional(pool).await? else {
                return Ok(None);
            };
            let is_ours = row.try_get::<i64, _>(1)? == self.number;
            let state = State::decode(row.try_get(0)?)?;
            Ok(is_ours.then_some(state))
        })
    }

    /// Lets go of the job; nothing happens where it is no longer ours.
    pub(crate) async fn let_go(&self, store: &Store, end: End<'_>) -> Result<(), StoreError> {
        let (state, error) = match end {
            End::Succeeded => (State::Succeeded, None),
            End::Paused => (State::Paused, None),
            End::Queued => (State::Queued, None),
            End::Failed(error) => (State::Failed, Some(error)),
        };
        on_both!(Store, store, |pool, dialect| {
            let query = sqlx::query(LET_GO.run(dialect)).bind(&self.id);
            let query = query.bind(self.number).bind(state.name()).bind(error);
            query.execute(pool).await?;
        });
        Ok(())
    }
}

fn held(rows: u64) -> Result<(), StoreError> {
    match rows {
        1 => Ok(()),
        _ => Err(StoreError::LostJob),
    }
}

/// How a worker lets go of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End<'a> {
    Succeeded,
    /// The same command goes on.
    Paused,
    /// Another worker goes on.
    Queued,
    Failed(&'a str),
}

/// A job that this worker holds.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) fence: Fence,
    /// `None`: everything.
    pub(crate) workspace: Option<Id>,
    /// How, as JSON.
    pub(crate) options: String,
    /// All up to here is in the table; `None` at the start.
    pub(crate) cursor: Option<String>,
    /// Where the work ends, fixed at the start.
    pub(crate) range_end: Option<String>,
    pub(crate) scanned: u64,
    pub(crate) total: Option<u64>,
    /// What was counted so far, as JSON.
    pub(crate) counts: String,
}

impl Job {
    /// Writes down how far the job came.
    ///
    /// # Errors
    /// [`StoreError::LostJob`] where it is no longer ours.
    pub(crate) async fn save(&self, conn: Conn<'_>) -> Result<(), StoreError> {
        let saved = on_both!(Conn, conn, |conn, dialect| {
            let query = sqlx::query(SAVE.run(dialect)).bind(&self.fence.id);
            let query = query
                .bind(self.fence.number)
                .bind(&self.cursor)
                .bind(signed(self.scanned))
                .bind(self.total.map(signed))
                .bind(&self.counts);
            query.execute(conn).await?.rows_affected()
        });
        held(saved)
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A workspace that the database holds.
fn workspace_of(text: Option<&str>) -> Result<Option<Id>, sqlx::Error> {
    let id = text.map(Id::new).transpose();
    id.map_err(|error| sqlx::Error::Decode(error.into()))
}

/// When a job of this kind last succeeded.
pub(crate) async fn last_success(store: &Store, kind: &str) -> Result<Option<Time>, StoreError> {
    last(store, kind, &LAST_SUCCESS).await
}

/// When a job of this kind last read the whole history, and not a file.
pub(crate) async fn last_filled(store: &Store, kind: &str) -> Result<Option<Time>, StoreError> {
    last(store, kind, &LAST_FILLED).await
}

async fn last(
    store: &Store,
    kind: &str,
    statement: &'static Statement,
) -> Result<Option<Time>, StoreError> {
    on_both!(Store, store, |pool, dialect| {
        let row = sqlx::query(statement.run(dialect))
            .bind(kind)
            .fetch_one(pool)
            .await?;
        Ok(row.try_get(0)?)
    })
}

#[cfg(test)]
mod tests {
    use sqlx::AssertSqlSafe;

    use super::*;
    use crate::store::PoolSettings;

    async fn execute(store: &Store, sql: &str) {
        let Store::Sqlite(pool, _) = store else {
            panic!("a database in memory")
        };
        let sql = AssertSqlSafe(sql.to_owned());
        sqlx::raw_sql(sql).execute(pool).await.unwrap();
    }

    /// The other's lease is good all the time: only the number tells them apart.
    #[tokio::test]
    async fn whoever_lost_a_job_can_prove_save_or_end_nothing_while_the_other_works() {
        let settings = PoolSettings {
            size: 1,
            statement_timeout: LEASE,
            behind_pooler: false,
        };
        let store = Store::open("sqlite::memory:", settings).unwrap();
        store.migrate().await.unwrap();
        let work = Work {
            kind: "resync",
            workspace: None,
            options: "{}",
            source: "x",
        };
        let new = NewJob {
            work,
            state: State::Running,
            range_end: None,
            total: None,
            idempotency_key: None,
        };
        let stale = start(&store, new).await.unwrap();
        execute(&store, "update job set lease_until = 1").await;
        let other = take_next(&store, "x").await.unwrap().unwrap();
        let lost = |done: Result<(), StoreError>| matches!(done, Err(StoreError::LostJob));
        for (job, is_lost) in [(&stale, true), (&other, false)] {
            let mut tx = store.begin().await.unwrap();
            assert_eq!(lost(job.fence.check(&mut tx).await), is_lost, "check");
            assert_eq!(lost(job.save(tx.conn()).await), is_lost, "save");
            tx.commit().await.unwrap();
            assert_eq!(lost(job.fence.renew(&store).await), is_lost, "renew");
            job.fence.let_go(&store, End::Paused).await.unwrap();
            let looked = job.fence.look(&store).await.unwrap();
            let expected = (!is_lost).then_some(State::Paused);
            assert_eq!(looked, expected, "look");
            let state = get(&store, &job.fence.id).await.unwrap().unwrap().state;
            assert_eq!(state == State::Running, is_lost, "let go");
        }
        // Nor does the holder write when its own lease has run out, even where nobody else came.
        let last = hold(&store, work, true).await.unwrap();
        let Held::Resumed(last) = last else {
            panic!("it goes on: {last:?}")
        };
        execute(&store, "update job set lease_until = 1").await;
        assert!(lost(last.fence.renew(&store).await));
        assert!(lost(last.save(store.acquire().await.unwrap().conn()).await));
    }
}
