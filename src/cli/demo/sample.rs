//! The sample history: the shape of a real one, in SQLite.

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, SqliteConnection};

use crate::config::HistoryConfig;
use crate::model::Time;

/// A workspace of the sample.
pub(super) struct Workspace {
    pub(super) name: &'static str,
    pub(super) runs: u64,
    pub(super) published_runs: u64,
}

/// Five workspaces as they were measured: name, runs, distinct published runs.
const MEASURED: [(&str, u64, u64); 5] = [
    ("5", 1_780_569, 1),
    ("232791", 231_343, 3),
    ("3206451", 69_119, 1),
    ("3764345", 53_981, 3),
    ("3466675", 52_471, 10),
];
/// Everyone else has this share of the sample's runs,
const TAIL_SHARE: u64 = 20;
/// over so many small workspaces.
const TAIL_WORKSPACES: u64 = 1_000;
/// The runs lie within this time before now.
const SPAN: Duration = Duration::from_secs(180 * 24 * 3_600);

const SCHEMA: &str = "
    create table saved_run (
        id integer primary key, workspace_id integer, uid text,
        published_run_id integer, updated_at integer
    ) strict;";

// What an application has, and what the skip scan needs.
const INDEXES: &str = "
    create index saved_run_workspace on saved_run (workspace_id, updated_at);
    create index saved_run_skip_scan on saved_run (workspace_id, published_run_id, updated_at);
    analyze;";

// The times are spread by a multiplicative hash, so that they do not follow the keys.
const RUNS: &str = "
    with recursive n(i) as (select 1 union all select i + 1 from n where i < $1)
    insert into saved_run (workspace_id, uid, published_run_id, updated_at)
    select $2 + i % $3, 'u' || (i * 7919 % 11), $2 * 100 + i % $4,
           $5 - (i * 2654435761 % 1000003) * ($6 / 1000003)
    from n";

/// The history's configuration.
pub(super) fn history(path: &Path) -> HistoryConfig {
    HistoryConfig {
        url: format!("sqlite://{}", path.display()),
        table: "saved_run".into(),
        key: "id".into(),
        query: "select r.id as run, r.workspace_id as workspace, r.uid, \
                r.published_run_id as published_run, r.updated_at as last_used_at from runs r"
            .into(),
    }
}

/// Writes about `runs` runs; returns the five workspaces as they came out.
pub(super) async fn write(path: &Path, runs: u64) -> Result<Vec<Workspace>, sqlx::Error> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        // A sample may be lost.
        .journal_mode(SqliteJournalMode::Off)
        .synchronous(SqliteSynchronous::Off);
    let mut conn = options.connect().await?;
    sqlx::raw_sql(SCHEMA).execute(&mut conn).await?;
    let measured: u64 = MEASURED.iter().map(|(_, runs, _)| runs).sum();
    let (tail, mut samples) = (runs / TAIL_SHARE, Vec::new());
    for (name, share, published_runs) in MEASURED {
        let runs = ((runs - tail) * share / measured).max(published_runs);
        insert(
            &mut conn,
            runs,
            name.parse().unwrap_or(0),
            1,
            published_runs,
        )
        .await?;
        samples.push(Workspace {
            name,
            runs,
            published_runs,
        });
    }
    insert(&mut conn, tail.max(1), 10_000_000, TAIL_WORKSPACES, 7).await?;
    sqlx::raw_sql(INDEXES).execute(&mut conn).await?;
    sqlx::Connection::close(conn).await?;
    Ok(samples)
}

async fn insert(
    conn: &mut SqliteConnection,
    runs: u64,
    workspace: i64,
    workspaces: u64,
    published_runs: u64,
) -> Result<(), sqlx::Error> {
    let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    sqlx::query(RUNS)
        .bind(signed(runs))
        .bind(workspace)
        .bind(signed(workspaces))
        .bind(signed(published_runs))
        .bind(Time::now().micros())
        .bind(i64::try_from(SPAN.as_micros()).unwrap_or(i64::MAX))
        .execute(conn)
        .await?;
    Ok(())
}
