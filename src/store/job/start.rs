//! Starting jobs, and clearing away what is over.

use std::time::Duration;

use sqlx::Row;
use uuid::Uuid;

use super::hold::{ACTIVE, SOMEBODY_MAY_COME, Work, expand, overlaps};
use super::{Fence, Job, OF_A_FILE, State, signed};
use crate::model::Id;
use crate::store::statement::Statement;
use crate::store::{Store, StoreError, on_both};

/// Finished jobs are kept so long.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3_600);

pub(super) const STATEMENTS: [&Statement; 4] = [&SET_ASIDE, &START, &OVERLAPPING, &PRUNE];

pub(super) static SET_ASIDE: Statement = Statement::new("job_set_aside", || {
    expand(&format!(
        "update {{recents}}job set state = 'paused', fence = fence + 1, lease_until = null
         where {ACTIVE} and not {SOMEBODY_MAY_COME} and {}",
        overlaps(1),
    ))
});

static START: Statement = Statement::new("job_start", || {
    expand(
        "insert into {recents}job (id, kind, workspace, options, source, state, fence, lease_until,
                                   range_end, total, idempotency_key, started_at)
         values ($1, $2, $3, $4, $5, $6, case when $6 = 'running' then 1 else 0 end,
                 case when $6 = 'running' then {now} + {lease} * {second} else {now} end, $7, $8, $9, {now})",
    )
});

static OVERLAPPING: Statement = Statement::new("job_overlapping", || {
    format!(
        "select id from {{recents}}job where {ACTIVE} and id <> $1 and {} order by id limit 1",
        overlaps(2),
    )
});

// The last success of a kind is remembered by its job; that of a file does not stand for one of the history.
static PRUNE: Statement = Statement::new("job_prune", || {
    format!(
        "delete from {{recents}}job where finished_at < {{now}} - {} * {{second}}
         and id not in (select max(id) from {{recents}}job where state = 'succeeded'
                        group by kind, {OF_A_FILE})",
        KEPT.as_secs()
    )
});

/// What a job starts with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewJob<'a> {
    pub(crate) work: Work<'a>,
    /// [`State::Running`], held by the caller, or [`State::Queued`].
    pub(crate) state: State,
    pub(crate) range_end: Option<&'a str>,
    pub(crate) total: Option<u64>,
    pub(crate) idempotency_key: Option<&'a str>,
}

/// Starts a job; where its state is [`State::Running`], it is the caller's.
///
/// # Errors
/// [`StoreError::Refused`] where a job that overlaps is active, or the idempotency key is taken.
pub(crate) async fn start(store: &Store, new: NewJob<'_>) -> Result<Job, StoreError> {
    let id = Uuid::now_v7().to_string();
    let work = new.work;
    on_both!(Store, store, |pool, dialect| {
        let query = sqlx::query(START.run(dialect))
            .bind(&id)
            .bind(work.kind)
            .bind(work.workspace.map(Id::as_str))
            .bind(work.options)
            .bind(work.source)
            .bind(new.state.name())
            .bind(new.range_end)
            .bind(new.total.map(signed))
            .bind(new.idempotency_key);
        query.execute(pool).await?;
    });
    Ok(Job {
        fence: Fence { id, number: 1 },
        workspace: work.workspace.cloned(),
        options: work.options.into(),
        cursor: None,
        range_end: new.range_end.map(Into::into),
        scanned: 0,
        total: new.total,
        counts: "{}".into(),
    })
}

/// Pauses jobs that overlap and that nobody works at any more.
pub(crate) async fn set_aside(store: &Store, workspace: Option<&Id>) -> Result<(), StoreError> {
    on_both!(Store, store, |pool, dialect| {
        let query = sqlx::query(SET_ASIDE.run(dialect)).bind(workspace.map(Id::as_str));
        query.execute(pool).await?;
    });
    Ok(())
}

/// An active job, other than `id`, whose scope overlaps.
pub(crate) async fn overlapping(
    store: &Store,
    id: &str,
    workspace: Option<&Id>,
) -> Result<Option<String>, StoreError> {
    on_both!(Store, store, |pool, dialect| {
        let query = sqlx::query(OVERLAPPING.run(dialect)).bind(id);
        let row = query.bind(workspace.map(Id::as_str)).fetch_optional(pool);
        match row.await? {
            Some(row) => Ok(Some(row.try_get(0)?)),
            None => Ok(None),
        }
    })
}

/// Deletes jobs that are finished for longer than they are kept, with their plans; the last that
/// succeeded of each kind stays.
pub(crate) async fn prune(store: &Store) -> Result<u64, StoreError> {
    on_both!(Store, store, |pool, dialect| {
        let query = sqlx::query(PRUNE.run(dialect));
        Ok(query.execute(pool).await?.rows_affected())
    })
}
