//! Jobs as operators see them.

use sqlx::Row;

use super::{State, workspace_of};
use crate::model::{Id, Time};
use crate::store::statement::Statement;
use crate::store::{Store, StoreError, on_both};

pub(super) const STATEMENTS: [&Statement; 6] =
    [&GET, &FIND_BY_KEY, &LIST, &PAUSE, &CANCEL, &RESUME];

fn select(of: &str) -> String {
    format!(
        "select id, kind, workspace, options, state, scanned, total, counts, started_at, finished_at,
                error
         from {{recents}}job where {of}"
    )
}

static GET: Statement = Statement::new("job_get", || select("id = $1"));

static FIND_BY_KEY: Statement =
    Statement::new("job_find_by_key", || select("idempotency_key = $1"));

static LIST: Statement = Statement::new("job_list", || {
    select("id < $1 and (cast($2 as text) is null or state = $2) order by id desc limit $3")
});

static PAUSE: Statement = Statement::new("job_pause", || {
    "update {recents}job set state = 'paused', paused_by = 'operator', lease_until = null
     where id = $1 and state in ('queued', 'running', 'paused')"
        .into()
});

static CANCEL: Statement = Statement::new("job_cancel", || {
    "update {recents}job set state = 'cancelled', lease_until = null, finished_at = {now}
     where id = $1 and state in ('queued', 'running', 'paused')"
        .into()
});

static RESUME: Statement = Statement::new("job_resume", || {
    "update {recents}job set state = 'queued', paused_by = null, finished_at = null, error = null,
            lease_until = {now}
     where id = $1 and state in ('paused', 'failed')"
        .into()
});

/// A job.
#[derive(Debug, Clone)]
pub(crate) struct JobRow {
    /// Ids sort by when the job was asked for.
    pub(crate) id: String,
    pub(crate) kind: String,
    /// `None`: everything.
    pub(crate) workspace: Option<Id>,
    /// How, as JSON.
    pub(crate) options: String,
    pub(crate) state: State,
    pub(crate) scanned: u64,
    pub(crate) total: Option<u64>,
    /// What was counted so far, as JSON.
    pub(crate) counts: String,
    pub(crate) started_at: Time,
    pub(crate) finished_at: Option<Time>,
    pub(crate) error: Option<String>,
}

macro_rules! row_of {
    ($row:expr) => {
        JobRow {
            id: $row.try_get(0)?,
            kind: $row.try_get(1)?,
            workspace: workspace_of($row.try_get(2)?)?,
            options: $row.try_get(3)?,
            state: State::decode($row.try_get(4)?)?,
            scanned: $row.try_get::<i64, _>(5)?.unsigned_abs(),
            total: $row.try_get::<Option<i64>, _>(6)?.map(i64::unsigned_abs),
            counts: $row.try_get(7)?,
            started_at: $row.try_get(8)?,
            finished_at: $row.try_get(9)?,
            error: $row.try_get(10)?,
        }
    };
}

/// The job of that id.
pub(crate) async fn get(store: &Store, id: &str) -> Result<Option<JobRow>, StoreError> {
    one(store, &GET, id).await
}

/// The job that was asked for with that key.
pub(crate) async fn find_by_key(store: &Store, key: &str) -> Result<Option<JobRow>, StoreError> {
    one(store, &FIND_BY_KEY, key).await
}

async fn one(
    store: &Store,
    statement: &'static Statement,
    by: &str,
) -> Result<Option<JobRow>, StoreError> {
    on_both!(Store, store, |pool, dialect| {
        let query = sqlx::query(statement.run(dialect)).bind(by);
        match query.fetch_optional(pool).await? {
            Some(row) => Ok(Some(row_of!(row))),
            None => Ok(None),
        }
    })
}

/// The newest jobs before `before`, newest first; only those in `state`, where one is given.
pub(crate) async fn list(
    store: &Store,
    before: Option<&str>,
    state: Option<State>,
    limit: u32,
) -> Result<Vec<JobRow>, StoreError> {
    // Behind every id, which are uuids.
    const FIRST: &str = "~";
    on_both!(Store, store, |pool, dialect| {
        let query = sqlx::query(LIST.run(dialect))
            .bind(before.unwrap_or(FIRST))
            .bind(state.map(State::name))
            .bind(i64::from(limit));
        let mut jobs = Vec::new();
        for row in query.fetch_all(pool).await? {
            jobs.push(row_of!(row));
        }
        Ok(jobs)
    })
}

/// What an operator may do with a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transition {
    Pause,
    Cancel,
    /// Lets a worker go on with it, also where it failed.
    Resume,
}

/// Does it, where the job's state allows it; returns whether it did.
///
/// # Errors
/// [`StoreError::Refused`] where it cannot be resumed because an active job overlaps.
pub(crate) async fn transition(
    store: &Store,
    id: &str,
    transition: Transition,
) -> Result<bool, StoreError> {
    let statement = match transition {
        Transition::Pause => &PAUSE,
        Transition::Cancel => &CANCEL,
        Transition::Resume => &RESUME,
    };
    on_both!(Store, store, |pool, dialect| {
        let query = sqlx::query(statement.run(dialect)).bind(id);
        Ok(query.execute(pool).await?.rows_affected() == 1)
    })
}
