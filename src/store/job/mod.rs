//! Jobs: long work with a lease and a cursor, so that it survives its worker.

use std::time::Duration;

use sqlx::Row;
use uuid::Uuid;

use super::statement::Statement;
use super::{Conn, Store, StoreError, Tx, on_both};
use crate::model::Time;

/// How long a job belongs to a worker that says nothing.
pub const LEASE: Duration = Duration::from_secs(30);

pub(super) const STATEMENTS: [&Statement; 8] = [
    &RUNNING,
    &TAKE_OVER,
    &ABANDON,
    &START,
    &HEARTBEAT,
    &SAVE,
    &FINISH,
    &LAST_SUCCESS,
];

static RUNNING: Statement = Statement::new("job_running", || {
    "select id, lease_until, {now} from {recents}job
     where kind = $1 and state = 'running' and lease_until >= {now}"
        .into()
});

static TAKE_OVER: Statement = Statement::new("job_take_over", || {
    "update {recents}job set state = 'running', fence = fence + 1,
            lease_until = {now} + {lease} * {second}
     where kind = $1 and source = $2 and state in ('running', 'paused', 'failed')
       and coalesce(lease_until < {now}, true)
     returning id, fence, cursor, range_end, scanned, total, counts"
        .replace("{lease}", &LEASE.as_secs().to_string())
});

static ABANDON: Statement = Statement::new("job_abandon", || {
    "update {recents}job set state = 'cancelled', lease_until = null, finished_at = {now}
     where kind = $1 and state in ('running', 'paused', 'failed')
       and coalesce(lease_until < {now}, true)"
        .into()
});

static START: Statement = Statement::new("job_start", || {
    "insert into {recents}job (id, kind, source, state, lease_until, range_end, total, started_at)
     values ($1, $2, $3, 'running', {now} + {lease} * {second}, $4, $5, {now})"
        .replace("{lease}", &LEASE.as_secs().to_string())
});

// An UPDATE, not a SELECT: it locks the row, so that a takeover waits or this finds no row.
static HEARTBEAT: Statement = Statement::new("job_heartbeat", || {
    "update {recents}job set lease_until = {now} + {lease} * {second}
     where id = $1 and fence = $2 and state = 'running' and lease_until >= {now}"
        .replace("{lease}", &LEASE.as_secs().to_string())
});

static SAVE: Statement = Statement::new("job_save", || {
    "update {recents}job set cursor = $3, scanned = $4, counts = $5,
            lease_until = {now} + {lease} * {second}
     where id = $1 and fence = $2 and state = 'running' and lease_until >= {now}"
        .replace("{lease}", &LEASE.as_secs().to_string())
});

static FINISH: Statement = Statement::new("job_finish", || {
    "update {recents}job set state = $3, lease_until = null, error = $4,
            finished_at = case when $3 = 'paused' then null else {now} end
     where id = $1 and fence = $2 and state = 'running'"
        .into()
});

static LAST_SUCCESS: Statement = Statement::new("job_last_success", || {
    "select max(finished_at) from {recents}job where kind = $1 and state = 'succeeded'".into()
});

/// A job that this worker holds.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) id: String,
    fence: i64,
    /// All up to here is in the table; `None` at the start.
    pub(crate) cursor: Option<String>,
    /// Where the work ends, fixed at the start.
    pub(crate) range_end: Option<String>,
    pub(crate) scanned: u64,
    pub(crate) total: Option<u64>,
    /// What was counted so far, as JSON.
    pub(crate) counts: String,
}

/// How the attempt to hold a job ended.
#[derive(Debug)]
pub(crate) enum Held {
    /// An unfinished job of this source goes on.
    Resumed(Job),
    /// There is none, or the caller wants none; a new one may be started.
    Nothing,
    /// Another worker holds one of this kind, for this long if it says nothing more.
    Busy {
        id: String,
        lease_until: Time,
        remaining: Duration,
    },
}

/// What a job starts with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewJob<'a> {
    pub(crate) kind: &'a str,
    pub(crate) source: &'a str,
    pub(crate) range_end: Option<&'a str>,
    pub(crate) total: Option<u64>,
}

/// How a worker lets go of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End<'a> {
    Succeeded,
    Paused,
    Failed(&'a str),
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Takes over the unfinished job of this kind and source whose worker is gone, if there is one.
/// With `resume` off, unfinished jobs are abandoned instead.
pub(crate) async fn hold(
    store: &Store,
    kind: &str,
    source: &str,
    resume: bool,
) -> Result<Held, StoreError> {
    let mut tx = store.begin().await?;
    let held = on_both!(Conn, tx.conn(), |conn, dialect| {
        let running = sqlx::query(RUNNING.run(dialect)).bind(kind);
        if let Some(row) = running.fetch_optional(&mut *conn).await? {
            let (lease_until, now): (Time, Time) = (row.try_get(1)?, row.try_get(2)?);
            let remaining = lease_until
                .micros()
                .saturating_sub(now.micros())
                .unsigned_abs();
            let remaining = Duration::from_micros(remaining);
            return Ok(Held::Busy {
                id: row.try_get(0)?,
                lease_until,
                remaining,
            });
        }
        let mut taken = None;
        if resume {
            let query = sqlx::query(TAKE_OVER.run(dialect)).bind(kind).bind(source);
            taken = query.fetch_optional(&mut *conn).await?;
        }
        match taken {
            Some(row) => Held::Resumed(Job {
                id: row.try_get(0)?,
                fence: row.try_get(1)?,
                cursor: row.try_get(2)?,
                range_end: row.try_get(3)?,
                scanned: row.try_get::<i64, _>(4)?.unsigned_abs(),
                total: row.try_get::<Option<i64>, _>(5)?.map(i64::unsigned_abs),
                counts: row.try_get(6)?,
            }),
            None => {
                sqlx::query(ABANDON.run(dialect))
                    .bind(kind)
                    .execute(conn)
                    .await?;
                Held::Nothing
            }
        }
    });
    tx.commit().await?;
    Ok(held)
}

/// Starts a job and holds it.
///
/// # Errors
/// [`StoreError::Refused`] where another worker started one of this kind at the same time.
pub(crate) async fn start(store: &Store, new: NewJob<'_>) -> Result<Job, StoreError> {
    let id = Uuid::now_v7().to_string();
    on_both!(Store, store, |pool, dialect| {
        let query = sqlx::query(START.run(dialect))
            .bind(&id)
            .bind(new.kind)
            .bind(new.source);
        query
            .bind(new.range_end)
            .bind(new.total.map(signed))
            .execute(pool)
            .await?;
    });
    Ok(Job {
        id,
        fence: 1,
        cursor: None,
        range_end: new.range_end.map(Into::into),
        scanned: 0,
        total: new.total,
        counts: "{}".into(),
    })
}

/// The worker no longer holds the job: another took it over, or it was cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lost;

impl Job {
    /// Proves, first in a transaction that writes, that the job is still ours, and keeps it so
    /// until the transaction ends.
    pub(crate) async fn fence(&self, tx: &mut Tx) -> Result<Result<(), Lost>, StoreError> {
        let done = on_both!(Conn, tx.conn(), |conn, dialect| {
            let query = sqlx::query(HEARTBEAT.run(dialect))
                .bind(&self.id)
                .bind(self.fence);
            query.execute(conn).await?.rows_affected()
        });
        Ok(if done == 1 { Ok(()) } else { Err(Lost) })
    }

    /// Writes down how far the job came.
    pub(crate) async fn save(&self, store: &Store) -> Result<Result<(), Lost>, StoreError> {
        let done = on_both!(Store, store, |pool, dialect| {
            let query = sqlx::query(SAVE.run(dialect))
                .bind(&self.id)
                .bind(self.fence);
            let query = query
                .bind(&self.cursor)
                .bind(signed(self.scanned))
                .bind(&self.counts);
            query.execute(pool).await?.rows_affected()
        });
        Ok(if done == 1 { Ok(()) } else { Err(Lost) })
    }

    /// Lets go of the job.
    pub(crate) async fn end(&self, store: &Store, end: End<'_>) -> Result<(), StoreError> {
        let (state, error) = match end {
            End::Succeeded => ("succeeded", None),
            End::Paused => ("paused", None),
            End::Failed(error) => ("failed", Some(error)),
        };
        on_both!(Store, store, |pool, dialect| {
            let query = sqlx::query(FINISH.run(dialect))
                .bind(&self.id)
                .bind(self.fence);
            query.bind(state).bind(error).execute(pool).await?;
        });
        Ok(())
    }
}

/// When a job of this kind last succeeded.
pub(crate) async fn last_success(store: &Store, kind: &str) -> Result<Option<Time>, StoreError> {
    on_both!(Store, store, |pool, dialect| {
        let row = sqlx::query(LAST_SUCCESS.run(dialect))
            .bind(kind)
            .fetch_one(pool)
            .await?;
        Ok(row.try_get(0)?)
    })
}
