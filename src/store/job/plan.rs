//! Plans: what a dry run would change, beside the jobs, so that every service can tell it.

use sqlx::Row;

use crate::model::Key;
use crate::store::rows::{BindRows, Rows};
use crate::store::statement::Statement;
use crate::store::{Conn, Store, StoreError, on_both};

pub(super) const STATEMENTS: [&Statement; 3] = [&ADD_TO_PLAN, &CLEAR_PLAN, &PLAN_AFTER];

static ADD_TO_PLAN: Statement = Statement::new("plan_add", || {
    "insert into {recents}job_plan (job, workspace, uid, published_run, line)
     select l.job, l.workspace, l.uid, l.published_run, l.line from {lines} as l where true
     on conflict (job, workspace, uid, published_run) do update set line = excluded.line"
        .into()
});

static CLEAR_PLAN: Statement = Statement::new("plan_clear", || {
    "delete from {recents}job_plan where job = $1".into()
});

static PLAN_AFTER: Statement = Statement::new("plan_after", || {
    "select workspace, uid, published_run, line from {recents}job_plan
     where job = $1 and (workspace, uid, published_run) > ($2, $3, $4)
     order by workspace, uid, published_run limit $5"
        .into()
});

/// A row that would change, and the line that says how.
#[derive(Debug, Clone)]
pub(crate) struct PlanLine {
    pub(crate) key: Key,
    /// JSON.
    pub(crate) line: String,
}

/// Adds lines to a job's plan, instead of those of the same rows.
pub(crate) async fn add_to_plan(
    conn: Conn<'_>,
    job: &str,
    lines: &[PlanLine],
) -> Result<(), StoreError> {
    let rows = Rows::keys(lines.iter().map(|line| &line.key))
        .texts(lines.iter().map(|line| line.line.as_str()))
        .texts(lines.iter().map(|_| job));
    on_both!(Conn, conn, |conn, dialect| {
        let query = sqlx::query(ADD_TO_PLAN.run(dialect)).bind_rows(rows);
        query.execute(conn).await?;
    });
    Ok(())
}

/// Empties a job's plan.
pub(crate) async fn clear_plan(conn: Conn<'_>, job: &str) -> Result<(), StoreError> {
    on_both!(Conn, conn, |conn, dialect| {
        let query = sqlx::query(CLEAR_PLAN.run(dialect)).bind(job);
        query.execute(conn).await?;
    });
    Ok(())
}

/// The next lines of a job's plan, in the order of keys, behind `after`.
pub(crate) async fn plan_after(
    store: &Store,
    job: &str,
    after: Option<&Key>,
    limit: u32,
) -> Result<Vec<PlanLine>, StoreError> {
    let (workspace, uid, published_run) = after.map_or(("", "", ""), Key::parts);
    on_both!(Store, store, |pool, dialect| {
        let query = sqlx::query(PLAN_AFTER.run(dialect)).bind(job);
        let query = query.bind(workspace).bind(uid).bind(published_run);
        let mut lines = Vec::new();
        for row in query.bind(i64::from(limit)).fetch_all(pool).await? {
            lines.push(PlanLine {
                key: Key::new(row.try_get(0)?, row.try_get(1)?, row.try_get(2)?),
                line: row.try_get(3)?,
            });
        }
        Ok(lines)
    })
}
