//! A window that was not read is never passed over, whatever became of its task.

use std::future::pending;

use sqlx::AssertSqlSafe;
use sqlx::sqlite::SqlitePoolOptions;

use super::*;
use crate::history::id_type::{IdType, Types};
use crate::history::mapping::Mapping;
use crate::history::types::Known;
use crate::history::{Database, order, refuse};
use crate::store::Dialect;

/// A history in memory with runs -1 to `-runs`, in the order in which they are walked.
async fn history(runs: u32) -> Arc<History> {
    let pool = SqlitePoolOptions::new().max_connections(1);
    let pool = pool.connect("sqlite::memory:").await.expect("a database");
    let table = "create table run (id integer primary key)";
    sqlx::query(table).execute(&pool).await.expect("a table");
    let fill = "with recursive n(id) as (select 1 union all select id + 1 from n where id < $1)
                insert into run select -id from n";
    sqlx::query(fill)
        .bind(runs)
        .execute(&pool)
        .await
        .expect("runs");
    let text = "select id as run, 'w' as workspace, null as uid, 'p' as published_run,
                1700000000000000 as last_used_at from runs";
    let judged = refuse::judge(text, "run", Dialect::Sqlite).expect("a good query");
    let of_ids = IdType::Other;
    let mut conn = pool.acquire().await.expect("a connection");
    let order = order::sqlite(&mut conn, "run", "id").await;
    let order = order.expect("its order");
    drop(conn);
    Arc::new(History {
        database: Database::Sqlite(pool),
        known: Known::new(Mapping {
            dialect: Dialect::Sqlite,
            table: "run".into(),
            key: "id".into(),
            types: Types {
                key: IdType::Int8,
                run: of_ids,
                uid: of_ids,
                workspace: of_ids,
                published_run: of_ids,
            },
            order,
            query: judged.text,
        }),
    })
}

type Read = Result<(Stretch, Duration), HistoryError>;

fn reading(from: Option<u32>, end: u32, task: JoinHandle<Read>) -> Reading {
    Reading {
        from: from.map_or(From::First, |key| From::Behind(format!("-{key}"))),
        end: format!("-{end}"),
        runs: u64::from(end - from.unwrap_or(0)),
        task,
    }
}

fn fine() -> JoinHandle<Read> {
    tokio::spawn(async { Ok((Stretch::default(), TARGET)) })
}

fn timed_out() -> JoinHandle<Read> {
    tokio::spawn(async { Err(HistoryError::TimedOut(Duration::from_secs(5))) })
}

/// A walk to `last` that has begun all of `reading`, which reach up to it.
async fn walk_of(last: u32, max_runs: u32, reading: Vec<Reading>) -> (Walk, Sender, Stretches) {
    let (sender, stretches) = Stretches::channel();
    let history = history(last).await;
    let walk = Walk {
        order: history.key_order(),
        history,
        next: From::Behind(format!("-{last}")),
        last: format!("-{last}"),
        runs: max_runs,
        max_runs,
        reading: reading.into(),
        all_begun: true,
        gathered: sender.gathered.clone(),
        unmappable: Unmappable::default(),
    };
    (walk, sender, stretches)
}

#[tokio::test]
async fn a_window_that_failed_panicked_or_was_cancelled_ends_the_walk_with_an_error() {
    let failed = tokio::spawn(async { Err(HistoryError::misfit("here", "by chance")) });
    let panicked = tokio::spawn(async { panic!("at the disco") });
    let cancelled = tokio::spawn(pending());
    cancelled.abort();
    for (why, task) in [
        ("by chance", failed),
        ("at the disco", panicked),
        ("cancelled", cancelled),
    ] {
        // The ones beside it were read, the later one even before it was awaited.
        let reading = vec![
            reading(None, 100, fine()),
            reading(Some(100), 200, task),
            reading(Some(200), 300, fine()),
        ];
        let (walk, sender, mut stretches) = walk_of(300, 100, reading).await;
        tokio::spawn(walk.run(sender));
        let first = stretches
            .next()
            .await
            .expect("the first window")
            .expect("no end");
        assert_eq!(first.cursor.as_deref(), Some("-100"), "{why}");
        match stretches.next().await {
            Err(HistoryError::Window {
                from, to, problem, ..
            }) => {
                assert_eq!(
                    (from.as_str(), to.as_str()),
                    ("before -100", "-200"),
                    "{why}"
                );
                assert!(problem.contains(why), "{why}: {problem}");
            }
            other => panic!("{why}: {other:?}"),
        }
        // Nothing of what comes behind, and no end.
        let after = stretches.next().await;
        assert!(
            matches!(after, Err(HistoryError::BrokenOff)),
            "{why}: {after:?}"
        );
    }
}

#[tokio::test]
async fn a_walk_that_is_dropped_broke_off() {
    let (walk, sender, mut stretches) = walk_of(100, 100, vec![reading(None, 100, fine())]).await;
    drop((walk, sender));
    let next = stretches.next().await;
    assert!(matches!(next, Err(HistoryError::BrokenOff)), "{next:?}");

    let reading = vec![
        reading(None, 50, fine()),
        reading(Some(50), 100, tokio::spawn(pending())),
    ];
    let (walk, sender, mut stretches) = walk_of(100, 100, reading).await;
    let walking = tokio::spawn(walk.run(sender));
    stretches
        .next()
        .await
        .expect("the first window")
        .expect("no end");
    walking.abort();
    let next = stretches.next().await;
    assert!(matches!(next, Err(HistoryError::BrokenOff)), "{next:?}");
}

#[tokio::test]
async fn an_end_is_said_only_behind_the_last_window() {
    let reading = vec![reading(None, 60, fine()), reading(Some(60), 100, fine())];
    let (walk, sender, mut stretches) = walk_of(100, 60, reading).await;
    tokio::spawn(walk.run(sender));
    for (cursor, scanned) in [("-60", 60), ("-100", 40)] {
        let stretch = stretches.next().await.expect("a window").expect("no end");
        assert_eq!(
            (stretch.cursor.as_deref(), stretch.tally.scanned),
            (Some(cursor), scanned)
        );
    }
    assert!(stretches.next().await.expect("the end").is_none());
}

#[tokio::test]
async fn a_window_that_took_too_long_is_read_in_halves_and_so_are_all_behind_it() {
    let reading = vec![
        reading(None, 100, fine()),
        reading(Some(100), 900, timed_out()),
        // Begun with the old size: read again.
        reading(Some(900), 1_000, tokio::spawn(pending())),
    ];
    let (walk, sender, mut stretches) = walk_of(1_000, 800, reading).await;
    tokio::spawn(walk.run(sender));
    let mut windows = Vec::new();
    while let Some(stretch) = stretches.next().await.expect("a window or the end") {
        windows.push((stretch.cursor.unwrap_or_default(), stretch.tally.scanned));
    }
    let windows: Vec<_> = windows
        .iter()
        .map(|(end, runs)| (end.as_str(), *runs))
        .collect();
    assert_eq!(
        windows,
        [("-100", 100), ("-500", 400), ("-900", 400), ("-1000", 100)]
    );
}

#[tokio::test]
async fn a_small_window_that_takes_too_long_is_an_error() {
    let reading = vec![reading(None, MIN_RUNS, timed_out())];
    let (walk, sender, mut stretches) = walk_of(MIN_RUNS, MIN_RUNS, reading).await;
    tokio::spawn(walk.run(sender));
    match stretches.next().await {
        Err(HistoryError::Window { problem, .. }) => {
            assert!(problem.contains("longer than 5s"), "{problem}")
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn windows_approach_their_target_but_never_more_than_twofold_at_once() {
    let (mut walk, ..) = walk_of(1, MAX_RUNS, Vec::new()).await;
    let mut sizes = Vec::new();
    for (runs, took) in [
        (20_000, TARGET),
        (20_000, TARGET / 10),
        (40_000, TARGET * 20),
        (20_000, Duration::ZERO),
    ] {
        walk.runs = runs;
        walk.adapt(u64::from(runs), took, 0);
        sizes.push(walk.runs);
    }
    assert_eq!(sizes, [20_000, 40_000, 20_000, 40_000]);
    (walk.runs, walk.max_runs) = (7, 7);
    walk.adapt(7, TARGET * 100, 0);
    assert_eq!(walk.runs, 7, "never more than asked for");
    (walk.runs, walk.max_runs) = (MAX_RUNS, MAX_RUNS);
    walk.adapt(u64::from(MAX_RUNS), Duration::ZERO, 0);
    assert_eq!(walk.runs, MAX_RUNS);
    walk.adapt(u64::from(MAX_RUNS), Duration::ZERO, 2 * MAX_WINDOW_BYTES);
    assert_eq!(
        walk.runs,
        MAX_RUNS / 2,
        "what they take in memory counts, too"
    );
}

/// Each window is read with the statement that was prepared for the first one.
#[tokio::test]
async fn a_table_that_gets_other_columns_is_walked_to_its_end() {
    let history = history(100).await;
    let Database::Sqlite(pool) = history.database.clone() else {
        panic!("it is in SQLite")
    };
    let mut stretches = walk(history, None, "-100".into(), 10, Unmappable::default());
    let (mut scanned, mut windows) = (0, 0);
    while let Some(stretch) = stretches.next().await.expect("a window") {
        scanned += stretch.tally.scanned;
        windows += 1;
        let rebuild = format!(
            "begin; create table another (before_{windows}, id integer primary key, behind);
             insert into another (id) select id from run;
             drop table run; alter table another rename to run;
             alter table run add column behind_{windows}; commit"
        );
        let rebuilt = sqlx::raw_sql(AssertSqlSafe(rebuild)).execute(&pool).await;
        rebuilt.expect("other columns");
    }
    assert!(windows >= 10, "many windows: {windows}");
    assert_eq!(scanned, 100);
}
