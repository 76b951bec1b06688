//! The first backfill and the verify after it, against the least that reading the history costs.

use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Instant;

use sqlx::PgConnection;

use crate::program::{Program, Ran};
use crate::report::{Report, digits, grouped, median, target, time};
use crate::server::{Server, run, text};
use crate::{Failure, history};

/// How often each is measured, in turns; the medians are told.
const ROUNDS: usize = 3;

/// One process reading the columns that the mapping needs.
const SCAN: &str = "select count(updated_at)::text || max(workspace_id) from app.saved_run";

/// The least that any backfill outside the database costs its server: the mapping, through its join,
/// in the form in which we read it, sent to nowhere.
fn copy() -> String {
    let mapping = history::MAPPING.replace("from runs r", "from app.saved_run r");
    format!("copy ({mapping}) to '/dev/null' with (format binary)")
}

/// What one writes by hand, where history and table share a database: one statement and one
/// transaction. It keeps no run, so it neither breaks ties nor can be verified.
const INSERT: &str = "
with by_user as materialized (
    select r.workspace_id, coalesce(r.uid, '') as uid, v.published_run_id, max(r.updated_at) as at
    from app.saved_run r join app.saved_run_version v on v.id = r.parent_version_id
    group by 1, 2, 3
)
insert into peer.recent_workflow as t (workspace, uid, published_run, last_used_at)
select workspace_id::text, uid, published_run_id::text, at from by_user where uid <> ''
union all
select workspace_id::text, '', published_run_id::text, max(at) from by_user group by 1, 3
on conflict (workspace, uid, published_run) do update set last_used_at = excluded.last_used_at
where excluded.last_used_at > t.last_used_at";

/// The figures of one command.
#[derive(Default)]
struct Figures {
    walls: Vec<f64>,
    peaks: Vec<f64>,
}

impl Figures {
    fn add(&mut self, ran: &Ran) {
        self.walls.push(ran.wall.as_secs_f64());
        self.peaks.extend(ran.peak);
    }

    fn peak(&self) -> Option<f64> {
        self.peaks.iter().copied().reduce(f64::max)
    }
}

pub(crate) async fn measure(
    server: &Server,
    runs: u64,
    report: &mut Report,
) -> Result<(), Failure> {
    let mut conn = server.connect().await?;
    let program = Program::new(&server.url)?;
    let [mut one_pass, mut windows, mut verify] = [(); 3].map(|()| Figures::default());
    let [mut scans, mut copies, mut inserts] = [const { Vec::new() }; 3];
    let (mut longest, mut rows) = (None, 0);
    run(&mut conn, "set max_parallel_workers_per_gather = 0").await?;
    // Warm, with its plans made.
    text(&mut conn, SCAN).await?;
    for round in 1..=ROUNDS {
        eprintln!("backfill, round {round} of {ROUNDS}");
        let started = Instant::now();
        text(&mut conn, SCAN).await?;
        scans.push(started.elapsed().as_secs_f64());
        let started = Instant::now();
        run(&mut conn, &copy()).await?;
        copies.push(started.elapsed().as_secs_f64());

        forget(&mut conn).await?;
        // An inner join has no row for the runs that lost their version.
        let mapped = program.run(&["backfill", "--one-pass"]).await?;
        one_pass.add(&all_of(runs / 2..=runs, mapped)?);
        peer_table(&mut conn).await?;
        let started = Instant::now();
        run(&mut conn, INSERT).await?;
        inserts.push(started.elapsed().as_secs_f64());
        forget(&mut conn).await?;
        let logged = log_queries(server, &mut conn, true).await?;
        windows.add(&all_of(runs..=runs, program.run(&["backfill"]).await?)?);
        log_queries(server, &mut conn, false).await?;
        if let (Some(log), Some(from)) = (server.log(), logged) {
            longest = longest_query(&log, from)?
                .max(longest.unwrap_or(0.0))
                .into();
        }
        let verified = program.run(&["verify"]).await?;
        rows = verified.summary["rows"].as_u64().unwrap_or(0);
        verify.add(&verified);
    }
    let peers = [scans, copies, inserts];
    tell(report, rows, peers, longest, [one_pass, windows, verify]);
    Ok(())
}

fn tell(
    report: &mut Report,
    rows: u64,
    mut peers: [Vec<f64>; 3],
    longest: Option<f64>,
    [mut one_pass, mut windows, mut verify]: [Figures; 3],
) {
    let [scan, copy, insert] = [0, 1, 2].map(|at| median(&mut peers[at]));
    let [first, walk, check] =
        [&mut one_pass, &mut windows, &mut verify].map(|figures| median(&mut figures.walls));
    let row = |what: &str, wall: f64, figures: Option<&Figures>, mut targets: Vec<String>| {
        let peak = figures.and_then(Figures::peak);
        targets.extend(peak.map(|peak| target("≤ 100 MiB", peak <= 100.0)));
        let peak = peak.map_or("–".into(), |peak| format!("{} MiB", digits(peak)));
        vec![
            what.into(),
            time(wall),
            digits(wall / scan),
            digits(wall / copy),
            peak,
            targets.join(", "),
        ]
    };
    let mut of_windows = vec![target("≤ 8 scans", walk <= 8.0 * scan)];
    of_windows.extend(longest.map(|longest| {
        target(
            &format!("longest query {}, ≤ 500 ms", time(longest)),
            longest <= 0.5,
        )
    }));
    report.heading("Backfill and verify");
    report.line(&format!(
        "Whole commands, from their start to their end, into an empty table of {} rows; the \
         medians of {ROUNDS} rounds in turns.",
        grouped(rows)
    ));
    report.table(&[
        ["", "time", "in scans", "in COPYs", "peak memory", "target"]
            .map(Into::into)
            .into(),
        row("sequential scan, one process", scan, None, Vec::new()),
        row("COPY of the mapping, to nowhere", copy, None, Vec::new()),
        row(
            "one `insert … select … group by … on conflict`, no run",
            insert,
            None,
            Vec::new(),
        ),
        row(
            "`backfill --one-pass`",
            first,
            Some(&one_pass),
            vec![target("≤ 4 scans", first <= 4.0 * scan)],
        ),
        row("`backfill`, by windows", walk, Some(&windows), of_windows),
        row(
            "`verify`",
            check,
            Some(&verify),
            vec![target("≤ 2 backfills by windows", check <= 2.0 * walk)],
        ),
    ]);
}

/// Fills the table in whatever way is fast, where it is empty.
pub(crate) async fn fill(server: &Server, runs: u64) -> Result<(), Failure> {
    let mut conn = server.connect().await?;
    if text(&mut conn, "to_regclass('recents.recent_workflow') is null").await? == "true" {
        all_of(
            runs / 2..=runs,
            Program::new(&server.url)?
                .run(&["backfill", "--one-pass"])
                .await?,
        )?;
    }
    run(&mut conn, "vacuum analyze recents.recent_workflow").await
}

/// Fills the table anew: what other parts wrote into it is not of the history.
pub(crate) async fn fill_anew(server: &Server, runs: u64) -> Result<(), Failure> {
    forget(&mut server.connect().await?).await?;
    fill(server, runs).await
}

/// As before the first backfill.
async fn forget(conn: &mut PgConnection) -> Result<(), Failure> {
    run(conn, "drop schema if exists recents cascade").await
}

/// The peer's table, empty, like ours is now.
async fn peer_table(conn: &mut PgConnection) -> Result<(), Failure> {
    run(
        conn,
        "drop schema if exists peer cascade; create schema peer;
         create table peer.recent_workflow (like recents.recent_workflow including all)",
    )
    .await
}

/// A backfill that scanned as many runs as it should.
fn all_of(runs: RangeInclusive<u64>, ran: Ran) -> Result<Ran, Failure> {
    let scanned = ran.summary["scanned"].as_u64().unwrap_or(0);
    if !runs.contains(&scanned) {
        return Err(format!("{scanned} of {runs:?} runs were scanned").into());
    }
    Ok(ran)
}

/// Has the server log every statement of new sessions; gives the length of its log.
async fn log_queries(
    server: &Server,
    conn: &mut PgConnection,
    on: bool,
) -> Result<Option<u64>, Failure> {
    let Some(log) = server.log() else {
        return Ok(None);
    };
    let database = text(conn, "current_database()").await?;
    let least = if on { 0 } else { -1 };
    run(
        conn,
        &format!("alter database {database} set log_min_duration_statement = {least}"),
    )
    .await?;
    Ok(Some(std::fs::metadata(log)?.len()))
}

/// The longest query of the history in what was logged behind `from`, in seconds.
fn longest_query(log: &Path, from: u64) -> Result<f64, Failure> {
    let log = std::fs::read(log)?;
    let behind = log.get(usize::try_from(from)?..).unwrap_or_default();
    let behind = String::from_utf8_lossy(behind);
    let durations = behind
        .lines()
        .filter(|line| line.contains("app.saved_run"))
        .filter_map(|line| line.split_once("duration: ")?.1.split_once(" ms"))
        .filter_map(|(millis, _)| millis.parse::<f64>().ok());
    durations
        .reduce(f64::max)
        .map(|millis| millis / 1000.0)
        .ok_or_else(|| "no query of the history was logged".into())
}
