//! What capture costs the application, against nothing and against one more index on its history; and
//! how soon a change is seen.

use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::time::{interval, sleep};

use crate::http::{Connection as Http, get};
use crate::program::{Program, Serving};
use crate::report::{Report, digits, grouped, median, percentile, target, time};
use crate::server::{Server, run, text};
use crate::{Failure, history};

/// Clients that write at the same time.
const CLIENTS: u64 = 8;
/// How long each way is measured, in turns,
const TURN: Duration = Duration::from_secs(3);
/// and how often.
const TURNS: usize = 3;
/// Rows of a large statement.
const LARGE: i64 = 10_000;
/// A workspace's and a user's.
const ROWS_OF_A_USE: f64 = 2.0;
/// Rows of the table that a statement raises, as many as the service's do,
const RAISED: u32 = 2_000;
/// and how often that is measured, each time with other rows.
const RAISINGS: u32 = 7;
/// Runs a second while it is measured how soon they are seen,
const RATE: u32 = 500;
/// for so long: autovacuum comes once a minute, and the outbox should not be larger after its second
/// visit than after its first.
const WATCHED: Duration = Duration::from_secs(130);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Nothing,
    Index,
    /// Installed, and nobody drains here: what the application's own statements pay.
    Noted,
    Captured,
}

const WAYS: [Way; 4] = [Way::Nothing, Way::Index, Way::Noted, Way::Captured];

/// A kind of writes, and the least part of the throughput without capture that it may have.
struct Load {
    name: &'static str,
    hot: bool,
    /// Each transaction takes so long.
    slow: bool,
    least: f64,
}

const LOADS: [Load; 4] = [
    Load {
        name: "5 ms transactions, hot workspace",
        hot: true,
        slow: true,
        least: 0.90,
    },
    Load {
        name: "5 ms transactions, uniform",
        hot: false,
        slow: true,
        least: 0.90,
    },
    Load {
        name: "single rows, autocommit, hot workspace",
        hot: true,
        slow: false,
        least: 0.75,
    },
    Load {
        name: "single rows, autocommit, uniform",
        hot: false,
        slow: false,
        least: 0.75,
    },
];

pub(crate) async fn measure(
    server: &Server,
    runs: u64,
    report: &mut Report,
) -> Result<(), Failure> {
    let mut conn = server.connect().await?;
    let program = Program::new(&server.url)?;
    crate::backfill::fill_anew(server, runs).await?;
    run(
        &mut conn,
        "create sequence if not exists app.run_id start 100000000",
    )
    .await?;

    let mut rates = vec![[const { Vec::new() }; WAYS.len()]; LOADS.len()];
    let mut large = [const { Vec::new() }; WAYS.len()];
    for turn in 1..=TURNS {
        for (at, way) in WAYS.into_iter().enumerate() {
            eprintln!("capture, turn {turn} of {TURNS}: {way:?}");
            let drain = prepare(&mut conn, &program, way).await?;
            for (load, rates) in LOADS.iter().zip(&mut rates) {
                rates[at].push(rate(server, load).await?);
            }
            for _ in 0..3 {
                let started = Instant::now();
                run(&mut conn, &insert(LARGE, "5")).await?;
                large[at].push(started.elapsed().as_secs_f64());
            }
            drop(drain);
        }
    }
    let drain = prepare(&mut conn, &program, Way::Captured).await?;
    let Some(serving) = &drain else {
        return Err("nobody drains".into());
    };
    settle(&mut conn).await?;
    let (mut seen, sizes) = visible(server, serving).await?;
    settle(&mut conn).await?;
    let raising = raising(&mut conn).await?;
    let [without, with, right] = nulled(&mut conn, &program, drain).await?;
    let times = [raising, without, with, right];
    tell(report, runs, rates, large, &mut seen, sizes, times);
    Ok(())
}

/// Brings the history into the state of one way; where it is captured, somebody drains.
async fn prepare(
    conn: &mut PgConnection,
    program: &Program,
    way: Way,
) -> Result<Option<Serving>, Failure> {
    run(conn, "drop index if exists app.one_more").await?;
    let command = match way {
        Way::Nothing | Way::Index => "uninstall",
        Way::Noted | Way::Captured => "install",
    };
    program.run_plain(&["capture", command])?;
    match way {
        Way::Nothing | Way::Noted => {}
        Way::Index => {
            let index = "create index one_more on app.saved_run (workspace_id, parent_version_id, updated_at desc)";
            run(conn, index).await?;
        }
        Way::Captured => {
            let followed = program
                .serve_followed(&[("RECENTS_AUDIT", "false")])
                .await?;
            // What was noted while nobody drained is not of this way.
            settle(conn).await?;
            return Ok(Some(followed));
        }
    }
    Ok(None)
}

/// `rows` new runs of a workspace, as SQL gives it.
fn insert(rows: i64, workspace: &str) -> String {
    format!(
        "insert into app.saved_run (id, workspace_id, uid, parent_version_id, updated_at)
         select nextval('app.run_id'), {workspace}, 'user-' || n % 5,
                (select min(id) from app.saved_run_version), clock_timestamp()
         from generate_series(1, {rows}) n"
    )
}

/// Transactions a second.
async fn rate(server: &Server, load: &Load) -> Result<f64, Failure> {
    let to = Instant::now() + TURN;
    let (hot, slow) = (load.hot, load.slow);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let url = server.url.clone();
            tokio::spawn(async move {
                let mut conn = PgConnection::connect(&url).await?;
                let mut random = fastrand::Rng::with_seed(client);
                let mut done = 0_u32;
                while Instant::now() < to {
                    let workspace = match hot {
                        true => history::LONGEST,
                        false => history::of_the_tail(random.u64(..)),
                    };
                    let (user, version) = workspace.use_of(random.u64(..));
                    let insert = sqlx::query(
                        "insert into app.saved_run (id, workspace_id, uid, parent_version_id, updated_at)
                         values (nextval('app.run_id'), $1, $2, $3, clock_timestamp())",
                    );
                    let insert = insert.bind(workspace.id.cast_signed()).bind(user);
                    let insert = insert.bind(version.cast_signed());
                    if slow {
                        let mut tx = conn.begin().await?;
                        insert.execute(&mut *tx).await?;
                        sleep(Duration::from_millis(5)).await;
                        tx.commit().await?;
                    } else {
                        insert.execute(&mut conn).await?;
                    }
                    done += 1;
                }
                Ok::<_, sqlx::Error>(done)
            })
        })
        .collect();
    let mut done = 0;
    for client in clients {
        done += client.await??;
    }
    Ok(f64::from(done) / TURN.as_secs_f64())
}

/// Waits until the outbox and the notes are empty.
async fn settle(conn: &mut PgConnection) -> Result<(), Failure> {
    let waiting = "(select count(*) from recents.outbox) + (select count(*) from recents.note)";
    while text(conn, waiting).await? != "0" {
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Writes at a fixed rate; gives the times from commits to their being seen over HTTP, and the sizes
/// of the outbox after half of the time and at the end.
async fn visible(server: &Server, serving: &Serving) -> Result<(Vec<f64>, [u64; 2]), Failure> {
    let url = server.url.clone();
    let writer = tokio::spawn(async move {
        let mut conn = PgConnection::connect(&url).await?;
        let mut every = interval(Duration::from_secs(1) / RATE);
        let (mut random, to) = (fastrand::Rng::with_seed(9), Instant::now() + WATCHED);
        while Instant::now() < to {
            every.tick().await;
            let workspace = history::of_the_tail(random.u64(..));
            let insert = insert(1, &workspace.id.to_string());
            sqlx::raw_sql(AssertSqlSafe(insert))
                .execute(&mut conn)
                .await?;
        }
        Ok::<_, sqlx::Error>(())
    });
    let mut conn = server.connect().await?;
    let mut http = Http::open(serving.address).await?;
    let size = "pg_total_relation_size('recents.outbox')";
    let (mut seen, mut run_id, mut first) = (Vec::new(), 900_000_000_u64, None);
    let began = Instant::now();
    while !writer.is_finished() {
        run_id += 1;
        let insert = format!(
            "insert into app.saved_run (id, workspace_id, parent_version_id, updated_at)
             values ({run_id}, 6, (select min(id) from app.saved_run_version),
                     clock_timestamp() + interval '1 second')"
        );
        run(&mut conn, &insert).await?;
        let committed = Instant::now();
        let mark = format!("\"run\":\"{run_id}\"");
        let list = get("/v1/workspaces/6/recent-workflows");
        while !std::str::from_utf8(http.send(&list).await?)?.contains(&mark) {
            sleep(Duration::from_millis(1)).await;
        }
        seen.push(committed.elapsed().as_secs_f64());
        if first.is_none() && began.elapsed() > WATCHED / 2 {
            first = Some(text(&mut conn, size).await?.parse()?);
        }
        sleep(Duration::from_millis(7)).await;
    }
    writer.await??;
    let last = text(&mut conn, size).await?.parse()?;
    Ok((seen, [first.unwrap_or(last), last]))
}

/// What a row of the table costs PostgreSQL, raised by a plain statement of [`RAISED`] rows with nothing else at
/// work: seconds.
async fn raising(conn: &mut PgConnection) -> Result<f64, Failure> {
    let mut times = Vec::new();
    for round in 0..RAISINGS {
        let raised = format!(
            "drop table if exists raised; create temp table raised as
             select * from recents.recent_workflow where abs(hashtext(workspace)) % {RAISINGS} = {round}
             order by hashtext(workspace) limit {RAISED}; analyze raised"
        );
        run(conn, &raised).await?;
        let raise = "insert into recents.recent_workflow
             select workspace, uid, published_run, clock_timestamp(), nextval('app.run_id')::text
             from raised order by 1, 2, 3
             on conflict (workspace, uid, published_run) do update
             set last_used_at = excluded.last_used_at, run = excluded.run";
        run(conn, "begin").await?;
        let started = Instant::now();
        run(conn, raise).await?;
        times.push(started.elapsed().as_secs_f64() / f64::from(RAISED));
        run(conn, "rollback").await?;
    }
    Ok(median(&mut times))
}

/// The versions of the longest history's runs set to NULL, in one statement: its time without capture
/// and with it, and how long the table took to be right.
async fn nulled(
    conn: &mut PgConnection,
    program: &Program,
    drain: Option<Serving>,
) -> Result<[f64; 3], Failure> {
    let null = "update app.saved_run set parent_version_id = null where workspace_id = 5";
    drop(drain);
    // Rolled back, so that all find the same, and once more for good.
    let timed = async |conn: &mut PgConnection| {
        run(conn, "vacuum app.saved_run").await?;
        run(conn, "checkpoint").await?;
        let started = Instant::now();
        run(conn, &format!("begin; {null}; rollback")).await?;
        Ok::<_, Failure>(started.elapsed().as_secs_f64())
    };
    timed(conn).await?;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        for (command, times) in [("uninstall", &mut without), ("install", &mut with)] {
            program.run_plain(&["capture", command])?;
            times.push(timed(conn).await?);
        }
    }
    let _drain = program
        .serve_followed(&[("RECENTS_AUDIT", "false")])
        .await?;
    run(conn, null).await?;
    let started = Instant::now();
    settle(conn).await?;
    let right = started.elapsed().as_secs_f64();
    Ok([median(&mut without), median(&mut with), right])
}

fn tell(
    report: &mut Report,
    runs: u64,
    rates: Vec<[Vec<f64>; WAYS.len()]>,
    mut large: [Vec<f64>; WAYS.len()],
    seen: &mut [f64],
    [first, last]: [u64; 2],
    [raising, without, with, right]: [f64; 4],
) {
    report.heading("Capture");
    report.line(&format!(
        "Writes of the application, {CLIENTS} clients, {TURNS} turns of {} s each, medians: without \
         capture, with one more index on the history (the skip scan's), noted by the triggers while \
         nobody drains, and captured, with the service draining on the same cores. Hot: users of the \
         longest history use its workflow; uniform: those of one of {} workspaces use one of its \
         workflows. In brackets, the part of what there is without.",
        TURN.as_secs(),
        grouped(history::TAIL),
    ));
    let mut rows = vec![
        [
            "",
            "nothing",
            "one more index",
            "noted",
            "captured",
            "target",
        ]
        .map(Into::into)
        .into(),
    ];
    let cores = std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64);
    let mut bound = 0.0;
    for (load, mut rates) in LOADS.iter().zip(rates) {
        let [nothing, index, noted, captured] = [0, 1, 2, 3].map(|at| median(&mut rates[at]));
        if !load.slow && !load.hot {
            bound = 1.0 / (nothing / noted + ROWS_OF_A_USE * raising * nothing / cores);
        }
        rows.push(vec![
            load.name.into(),
            format!("{} tx/s", digits(nothing)),
            format!("{} ({:.2})", digits(index), index / nothing),
            format!("{} ({:.2})", digits(noted), noted / nothing),
            format!("{} ({:.2})", digits(captured), captured / nothing),
            target(
                &format!("≥ {:.2}", load.least),
                captured >= load.least * nothing,
            ),
        ]);
    }
    let [nothing, index, noted, captured] = [0, 1, 2, 3].map(|at| median(&mut large[at]));
    rows.push(vec![
        format!("a statement of {} rows", grouped(LARGE.unsigned_abs())),
        time(nothing),
        format!("{} ({:.2})", time(index), index / nothing),
        format!("{} ({:.2})", time(noted), noted / nothing),
        format!("{} ({:.2})", time(captured), captured / nothing),
        target("≤ 1.3", captured <= 1.3 * nothing),
    ]);
    rows.push(vec![
        format!("{} runs set to NULL", grouped(history::LONGEST.runs(runs))),
        time(without),
        String::new(),
        String::new(),
        format!("{} ({:.2})", time(with), with / without),
        target("≤ 1.2", with <= 1.2 * without),
    ]);
    report.table(&rows);
    report.line(&format!(
        "A row of the table that a plain statement of {} raises takes PostgreSQL {}, and a use has two: where these \
         share cores that are never idle with single rows in autocommit, uniform, these can have {bound:.2}, if nobody \
         maps a run or takes a note.",
        grouped(u64::from(RAISED)),
        time(raising),
    ));
    let (p50, p99) = (percentile(seen, 0.5), percentile(seen, 0.99));
    report.table(&[
        ["", "figure", "target"].map(Into::into).into(),
        vec![
            format!("commit to visible over HTTP, at {RATE} runs/s"),
            format!("median {}, 99th percentile {}", time(p50), time(p99)),
            target("p99 ≤ 100 ms", p99 <= 0.1),
        ],
        vec![
            format!(
                "size of the outbox and its index after {} s, and after {} s",
                WATCHED.as_secs() / 2,
                WATCHED.as_secs()
            ),
            format!("{} KiB, {} KiB", first / 1024, last / 1024),
            target("does not grow", last <= first + first / 10),
        ],
        vec![
            "the table right after the NULLs".into(),
            time(right),
            target("≤ 60 s", right <= 60.0),
        ],
    ]);
}
