//! Getting hold of a job: taking over, and what stands in the way.

use std::time::Duration;

use sqlx::Row;

use super::start::SET_ASIDE;
use super::{Fence, Job, LEASE, workspace_of};
use crate::model::{Id, Time};
use crate::store::statement::Statement;
use crate::store::{Conn, Store, StoreError, on_both};

/// A job that waits for a worker, or whose lease ran out, is taken within a second or two by any service; one
/// that nobody took for so long keeps nobody else from starting.
const NOBODY_CAME: Duration = Duration::from_secs(10);

pub(super) const STATEMENTS: [&Statement; 6] = [
    &IN_THE_WAY,
    &TAKE_OVER,
    &ANY_WAITS,
    &TAKE_NEXT,
    &HELD_BACK,
    &ABANDON,
];

/// It keeps others that overlap from being active.
pub(super) const ACTIVE: &str = "state in ('queued', 'running')";

/// Whether an active job has a worker, or had one until a moment ago, or waits for one that may be busy
/// with another job. One that waits has a lease that ended when it began to.
pub(super) const SOMEBODY_MAY_COME: &str =
    "(coalesce(lease_until, started_at) >= {now} - {nobody_came} * {second}
      or (state = 'queued' and exists (
          select 1 from {recents}job as live where live.state = 'running' and live.lease_until >= {now})))";

/// Whether a job's scope meets that of workspace `$n`.
pub(super) fn overlaps(n: u32) -> String {
    format!("(workspace is null or cast(${n} as text) is null or workspace = ${n})")
}

/// Whether a job is the same work: kind `$1`, workspace `$2`, options `$3`.
const SAME_WORK: &str = "kind = $1 and coalesce(workspace, '') = coalesce($2, '') and options = $3";

/// Fills in how long a lease lasts, and the wait behind it.
pub(super) fn expand(text: &str) -> String {
    text.replace("{lease}", &LEASE.as_secs().to_string())
        .replace("{nobody_came}", &NOBODY_CAME.as_secs().to_string())
}

// A backfill of another source is other work; a re-sync begins anew where the history is another one.
const TAKEABLE: &str = "(kind = 'resync' or source = $4) and paused_by is null
    and (state in ('queued', 'running', 'paused') or (state = 'failed' and kind = 'backfill'))
    and coalesce(lease_until < {now}, true)";

static IN_THE_WAY: Statement = Statement::new("job_in_the_way", || {
    expand(&format!(
        "select id, kind, coalesce(lease_until, started_at), {{now}} from {{recents}}job
         where {ACTIVE} and {} and not ({SAME_WORK} and {TAKEABLE})
           and {SOMEBODY_MAY_COME}
         order by id limit 1",
        overlaps(2),
    ))
});

/// Takes the jobs `of`; a cursor of another source than `source` is forgotten.
fn take(source: &str, of: &str) -> String {
    expand(&format!(
        "update {{recents}}job set state = 'running', fence = fence + 1, paused_by = null,
                finished_at = null, error = null, lease_until = {{now}} + {{lease}} * {{second}},
                started_at = case when fence = 0 then {{now}} else started_at end,
                cursor = case when source = {source} then cursor end, source = {source}
         where {of}
         returning id, fence, workspace, options, cursor, range_end, scanned, total, counts"
    ))
}

// The condition stands outside too: whoever waited for the row looks again.
static TAKE_OVER: Statement = Statement::new("job_take_over", || {
    take(
        "$4",
        &format!(
            "id = (select id from {{recents}}job where {SAME_WORK} and {TAKEABLE}
                   order by id desc limit 1)
             and {TAKEABLE}"
        ),
    )
});

const WAITS: &str = "kind = 'resync'
    and (state = 'queued' or (state = 'running' and lease_until < {now}))";

static ANY_WAITS: Statement = Statement::new("job_any_waits", || {
    format!("select 1 from {{recents}}job where {WAITS} limit 1")
});

static TAKE_NEXT: Statement = Statement::new("job_take_next", || {
    take(
        "$1",
        &format!(
            "id = (select id from {{recents}}job where {WAITS} order by id limit 1) and {WAITS}"
        ),
    )
});

static HELD_BACK: Statement = Statement::new("job_held_back", || {
    format!(
        "select id from {{recents}}job
         where {SAME_WORK} and (kind = 'resync' or source = $4) and state = 'paused'
           and paused_by is not null order by id desc limit 1"
    )
});

static ABANDON: Statement = Statement::new("job_abandon", || {
    format!(
        "update {{recents}}job set state = 'cancelled', fence = fence + 1, lease_until = null,
                finished_at = {{now}}
         where {SAME_WORK}
           and (state in ('queued', 'running', 'paused') or (state = 'failed' and kind = 'backfill'))
           and coalesce(lease_until < {{now}}, true)"
    )
});

/// What a worker means to do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Work<'a> {
    pub(crate) kind: &'a str,
    /// `None`: everything.
    pub(crate) workspace: Option<&'a Id>,
    /// How, as JSON.
    pub(crate) options: &'a str,
    /// What is read, so that a cursor is never applied to something else.
    pub(crate) source: &'a str,
}

/// How the attempt to hold a job ended.
#[derive(Debug)]
pub(crate) enum Held {
    /// An unfinished job of the same work goes on.
    Resumed(Job),
    /// There is none, or the caller wants none; a new one may be started.
    Nothing,
    /// An operator paused it.
    Back { id: String },
    /// A job whose scope overlaps is in the way.
    Busy {
        id: String,
        kind: String,
        lease_until: Time,
        /// For how long, if no worker says anything more.
        remaining: Duration,
    },
}

macro_rules! job_of {
    ($row:expr) => {
        Job {
            fence: Fence {
                id: $row.try_get(0)?,
                number: $row.try_get(1)?,
            },
            workspace: workspace_of($row.try_get(2)?)?,
            options: $row.try_get(3)?,
            cursor: $row.try_get(4)?,
            range_end: $row.try_get(5)?,
            scanned: $row.try_get::<i64, _>(6)?.unsigned_abs(),
            total: $row.try_get::<Option<i64>, _>(7)?.map(i64::unsigned_abs),
            counts: $row.try_get(8)?,
        }
    };
}

/// Takes over the unfinished job of the same work whose worker is gone, if there is one. With `resume`
/// off, unfinished jobs are abandoned instead. What nobody works at any more is set aside.
///
/// # Errors
/// [`StoreError::Refused`] where another job that overlaps began at the same moment.
pub(crate) async fn hold(store: &Store, work: Work<'_>, resume: bool) -> Result<Held, StoreError> {
    let mut tx = store.begin().await?;
    let held = on_both!(Conn, tx.conn(), |conn, dialect| {
        let about = |statement: &'static Statement| {
            sqlx::query(statement.run(dialect))
                .bind(work.kind)
                .bind(work.workspace.map(Id::as_str))
                .bind(work.options)
        };
        let in_the_way = about(&IN_THE_WAY).bind(work.source);
        if let Some(row) = in_the_way.fetch_optional(&mut *conn).await? {
            let (lease_until, now): (Time, Time) = (row.try_get(2)?, row.try_get(3)?);
            let until = lease_until.saturating_add(NOBODY_CAME);
            let remaining = until.micros().saturating_sub(now.micros()).max(0);
            return Ok(Held::Busy {
                id: row.try_get(0)?,
                kind: row.try_get(1)?,
                lease_until,
                remaining: Duration::from_micros(remaining.unsigned_abs()),
            });
        }
        let aside = sqlx::query(SET_ASIDE.run(dialect)).bind(work.workspace.map(Id::as_str));
        let mut taken = None;
        if resume {
            let held_back = about(&HELD_BACK).bind(work.source);
            if let Some(row) = held_back.fetch_optional(&mut *conn).await? {
                return Ok(Held::Back {
                    id: row.try_get(0)?,
                });
            }
            let take = about(&TAKE_OVER).bind(work.source);
            taken = take.fetch_optional(&mut *conn).await?;
        }
        match taken {
            Some(row) => Held::Resumed(job_of!(row)),
            None => {
                about(&ABANDON).execute(&mut *conn).await?;
                aside.execute(conn).await?;
                Held::Nothing
            }
        }
    });
    tx.commit().await?;
    Ok(held)
}

/// Whether a re-sync waits for a worker, or its worker is gone.
pub(crate) async fn any_waits(store: &Store) -> Result<bool, StoreError> {
    on_both!(Store, store, |pool, dialect| {
        let query = sqlx::query(ANY_WAITS.run(dialect));
        Ok(query.fetch_optional(pool).await?.is_some())
    })
}

/// Takes the next re-sync that waits for a worker, or whose worker is gone.
pub(crate) async fn take_next(store: &Store, source: &str) -> Result<Option<Job>, StoreError> {
    on_both!(Store, store, |pool, dialect| {
        let take = sqlx::query(TAKE_NEXT.run(dialect)).bind(source);
        match take.fetch_optional(pool).await? {
            Some(row) => Ok(Some(job_of!(row))),
            None => Ok(None),
        }
    })
}
