//! The same question asked three ways, timed.

use std::path::Path;
use std::time::{Duration, Instant};

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, SqliteConnection};

use super::sample::Workspace;
use crate::cli::Failure;
use crate::model::{Id, Scope};
use crate::read::{PageRequest, pages};
use crate::store::Store;

pub(super) const FOOTNOTE: &str = "
SQLite has no DISTINCT ON: that column is the same question by row_number(). The skip scan has an
index of its own on the history, and needs the published run in the same table.
";

/// SQLite's form of `distinct on (published_run_id) … order by published_run_id, updated_at desc`.
const DISTINCT_ON: &str = "
    select published_run_id, updated_at, id from (
        select *, row_number() over (partition by published_run_id order by updated_at desc) as nth
        from saved_run where workspace_id = $1
    ) where nth = 1 order by updated_at desc limit 4";

const SKIP_SCAN: &str = "
    with recursive item(published_run_id) as (
        select min(published_run_id) from saved_run where workspace_id = $1
        union all
        select (select min(published_run_id) from saved_run
                where workspace_id = $1 and published_run_id > item.published_run_id)
        from item where item.published_run_id is not null
    )
    select published_run_id, (
        select max(updated_at) from saved_run
        where workspace_id = $1 and published_run_id = item.published_run_id
    ) as updated_at
    from item where published_run_id is not null order by updated_at desc limit 4";

/// How long one question may be repeated for.
const REPEAT_FOR: Duration = Duration::from_millis(300);
/// And how often.
const REPEATS: usize = 101;

/// Medians.
pub(super) struct Times {
    pub(super) distinct_on: Duration,
    pub(super) skip_scan: Duration,
    pub(super) table: Duration,
}

pub(super) async fn ask(
    path: &Path,
    store: &Store,
    workspace: &Workspace,
) -> Result<Times, Failure> {
    let mut conn = SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        .connect()
        .await?;
    let id: i64 = workspace.name.parse()?;
    let distinct_on = by_sql(&mut conn, DISTINCT_ON, id).await?;
    let skip_scan = by_sql(&mut conn, SKIP_SCAN, id).await?;
    let scope = Scope {
        workspace: Id::new(workspace.name)?,
        uid: None,
    };
    let mut times = Vec::new();
    while go_on(&times) {
        let started = Instant::now();
        pages(
            store,
            vec![PageRequest {
                scope: scope.clone(),
                cursor: None,
            }],
            4,
        )
        .await?;
        times.push(started.elapsed());
    }
    Ok(Times {
        distinct_on,
        skip_scan,
        table: median(times),
    })
}

async fn by_sql(
    conn: &mut SqliteConnection,
    text: &'static str,
    workspace: i64,
) -> Result<Duration, Failure> {
    let mut times = Vec::new();
    while go_on(&times) {
        let started = Instant::now();
        sqlx::query(text)
            .bind(workspace)
            .fetch_all(&mut *conn)
            .await?;
        times.push(started.elapsed());
    }
    Ok(median(times))
}

fn go_on(times: &[Duration]) -> bool {
    times.len() < 3 || (times.len() < REPEATS && times.iter().sum::<Duration>() < REPEAT_FOR)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
