//! What operators do beside a running service: verify under load, a re-sync of one workspace with an
//! index on the history and without, and the audit's share of the database's time.

use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, PgConnection};
use tokio::time::{interval, sleep};

use crate::history::TEN;
use crate::program::Program;
use crate::report::{Report, digits, grouped, median, target, time};
use crate::server::{Server, run, text};
use crate::{Failure, backfill};

/// Runs a second that arrive meanwhile.
const RATE: u32 = 500;
/// How often each is measured.
const ROUNDS: usize = 3;
/// How long the service is watched while it has nothing to do but to audit; and before, without it.
const WATCHED: Duration = Duration::from_secs(60);
/// The audit's share of the database's time at the most.
const SHARE: f64 = 0.01;

/// One of the tail, some hundred runs of it.
const SMALL: u64 = 10_010_000;

/// The index by which a workspace's runs are found; the history has it from the start.
const INDEX: &str = "saved_run_workspace_id_updated_at_idx";

pub(crate) async fn measure(
    server: &Server,
    runs: u64,
    report: &mut Report,
) -> Result<(), Failure> {
    let mut conn = server.connect().await?;
    let program = Program::new(&server.url)?;
    backfill::fill_anew(server, runs).await?;
    report.heading("Operation");
    let mut rows = vec![["", "figure", "target"].map(Into::into).into()];
    verify(server, &program, &mut rows).await?;
    audit(&mut conn, &program, &mut rows).await?;
    report.table(&rows);
    resync(&mut conn, &program, report).await
}

/// Verify alone, and while runs arrive and are followed.
async fn verify(
    server: &Server,
    program: &Program,
    rows: &mut Vec<Vec<String>>,
) -> Result<(), Failure> {
    eprintln!("operation: verify");
    let mut alone = Vec::new();
    for _ in 0..ROUNDS {
        alone.push(program.run(&["verify"]).await?.wall.as_secs_f64());
    }
    program.run_plain(&["capture", "install"])?;
    let mut conn = server.connect().await?;
    run(
        &mut conn,
        "create sequence if not exists app.run_id start 100000000",
    )
    .await?;
    let serving = program.serve_followed(&[]).await?;
    let writer = tokio::spawn(write(server.url.clone()));
    sleep(Duration::from_secs(2)).await;
    let (mut beside, mut differences, mut peak) = (Vec::new(), 0, 0.0_f64);
    for _ in 0..ROUNDS {
        let verified = program.run(&["verify"]).await?;
        beside.push(verified.wall.as_secs_f64());
        differences += verified.summary["differences"].as_u64().unwrap_or(1);
        peak = peak.max(verified.peak.unwrap_or(0.0));
    }
    writer.abort();
    drop(serving);
    program.run_plain(&["capture", "uninstall"])?;
    let (alone, beside) = (median(&mut alone), median(&mut beside));
    rows.push(vec![
        format!("`verify` of everything while {RATE} runs/s arrive; alone"),
        format!(
            "{} and {} MiB at the most; {}",
            time(beside),
            digits(peak),
            time(alone)
        ),
        target("0 differences", differences == 0),
    ]);
    Ok(())
}

/// New runs at a fixed rate, until it is aborted.
async fn write(url: String) -> Result<(), sqlx::Error> {
    use sqlx::Connection;
    let mut conn = PgConnection::connect(&url).await?;
    let mut every = interval(Duration::from_secs(1) / RATE);
    let mut random = fastrand::Rng::with_seed(5);
    loop {
        every.tick().await;
        let insert = sqlx::query(
            "insert into app.saved_run (id, workspace_id, uid, parent_version_id, updated_at)
             values (nextval('app.run_id'), $1, 'user-1', $2, clock_timestamp())",
        );
        let workspace = 10_000_000 + random.i64(..20_000);
        let insert = insert.bind(workspace).bind(random.i64(..100_000));
        insert.execute(&mut conn).await?;
    }
}

/// What the service has the database do while nobody asks it anything, with the audit and without.
async fn audit(
    conn: &mut PgConnection,
    program: &Program,
    rows: &mut Vec<Vec<String>>,
) -> Result<(), Failure> {
    let mut shares = Vec::new();
    for audit in ["false", "true"] {
        eprintln!("operation: audit = {audit}");
        let serving = program.serve_followed(&[("RECENTS_AUDIT", audit)]).await?;
        sleep(Duration::from_secs(5)).await;
        let (before, started) = (active(conn).await?, Instant::now());
        sleep(WATCHED).await;
        let active = active(conn).await? - before;
        shares.push(active / started.elapsed().as_secs_f64());
        drop(serving);
    }
    rows.push(vec![
        "the database's active time of a service that only audits; of one that does nothing".into(),
        format!("{:.2} %; {:.2} %", shares[1] * 100.0, shares[0] * 100.0),
        target("≤ 1 % more", shares[1] - shares[0] <= SHARE),
    ]);
    Ok(())
}

/// Seconds that statements took in this database, as PostgreSQL counts them.
async fn active(conn: &mut PgConnection) -> Result<f64, Failure> {
    // Sessions tell now and then.
    sleep(Duration::from_secs(2)).await;
    let sql =
        "(select active_time / 1000 from pg_stat_database where datname = current_database())";
    Ok(text(conn, sql).await?.parse()?)
}

/// The question of one workspace, as an application asks it.
fn question(workspace: u64) -> String {
    format!(
        "select count(*) from (
             select distinct on (v.published_run_id) v.published_run_id, r.updated_at
             from app.saved_run r join app.saved_run_version v on v.id = r.parent_version_id
             where r.workspace_id = {workspace}
             order by v.published_run_id, r.updated_at desc
         ) as t"
    )
}

async fn resync(
    conn: &mut PgConnection,
    program: &Program,
    report: &mut Report,
) -> Result<(), Failure> {
    report.line(&format!(
        "`recents resync --workspace … --mode rebuild`, the job's own time, beside `DISTINCT ON` over the \
         same runs; medians of {ROUNDS}."
    ));
    let mut rows = vec![
        [
            "",
            "runs",
            "re-sync",
            "`DISTINCT ON`",
            "re-sync in such queries",
        ]
        .map(Into::into)
        .into(),
    ];
    for indexed in [true, false] {
        if !indexed {
            run(conn, &format!("drop index app.{INDEX}")).await?;
        }
        for workspace in [SMALL, TEN.id] {
            eprintln!("operation: re-sync of {workspace}, indexed: {indexed}");
            let count =
                format!("(select count(*) from app.saved_run where workspace_id = {workspace})");
            let runs: u64 = text(conn, &count).await?.parse()?;
            let (mut resyncs, mut queries) = (Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                let id = workspace.to_string();
                let ran = program
                    .run(&["resync", "--workspace", &id, "--mode", "rebuild"])
                    .await?;
                resyncs.push(ran.summary["seconds"].as_f64().unwrap_or(f64::NAN));
                let started = Instant::now();
                let asked = sqlx::raw_sql(AssertSqlSafe(question(workspace)));
                asked.execute(&mut *conn).await?;
                queries.push(started.elapsed().as_secs_f64());
            }
            let (resync, query) = (median(&mut resyncs), median(&mut queries));
            let how = if indexed {
                "by the index on the workspace"
            } else {
                "without it"
            };
            rows.push(vec![
                how.into(),
                grouped(runs),
                time(resync),
                time(query),
                digits(resync / query),
            ]);
        }
    }
    report.table(&rows);
    Ok(())
}
