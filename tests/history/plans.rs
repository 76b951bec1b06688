//! Parts of a PostgreSQL history are read by index: by the database's own counts of its scans.

use crate::support::beside::Beside;
use crate::support::history::layout::POSTGRES;
use crate::support::history::{At, History, Layout, Run, Setup};
use crate::support::{Backend, TestDb, until};

/// Runs of a large history: a plan that reads all of it is never the best one.
const RUNS: i64 = 30_000;

/// How the table of runs was read so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Scans {
    /// Times that all of it was read, or all of one partition.
    whole: i64,
    by_index: i64,
    /// Rows that were found by index.
    rows: i64,
}

async fn scans(conn: &mut Beside) -> Scans {
    // What a session did is counted for certain when it is gone.
    until("the sessions are gone", async || {
        let sessions = "select count(*)::text from pg_stat_activity
                        where datname = current_database() and pid <> pg_backend_pid()";
        (conn.texts(sessions).await == ["0"]).then_some(())
    })
    .await;
    let mut count = async |expression: &str| {
        let sum = format!(
            "select coalesce(sum({expression}), 0)::text from pg_stat_user_tables
             where relname like 'saved_run%' and relname <> 'saved_run_version'"
        );
        conn.texts(&sum).await.remove(0).parse().expect("a count")
    };
    Scans {
        whole: count("seq_scan").await,
        by_index: count("idx_scan").await,
        rows: count("idx_tup_fetch").await,
    }
}

/// A large history in 500 workspaces, with an index on its workspace, and its statistics.
async fn large(layout: Layout) -> Setup {
    let key = |at: i64| match layout.key_type {
        "uuid" => format!("{:08x}-0000-0000-0000-{:012x}", at * 7_919 % 1_000_003, at),
        "text" => format!("run-{:05}", at * 7_919 % 100_003),
        _ => at.to_string(),
    };
    let workspace = |at: i64| match layout.id_type {
        "text" => format!("w{}", at % 500),
        _ => (at % 500).to_string(),
    };
    let runs = (1..=RUNS).map(|at| Run::new(key(at), &workspace(at), at % 3, at).by("u"));
    let mut history = History::of(layout, runs.collect());
    let number = |version: &i64| Some(version.to_string());
    history.versions = history
        .versions
        .keys()
        .map(|version| (*version, number(version)))
        .collect();
    let setup = Setup::of(TestDb::migrated(Backend::Postgres).await, history).await;
    let table = layout.table;
    setup
        .store
        .execute(&format!("create index on {table} (workspace_id)"))
        .await;
    setup.store.execute("vacuum analyze").await;
    setup
}

/// Rows as far apart as those of a real table, which are some hundred bytes long.
const SPARSE: Layout = Layout {
    after: "with (fillfactor = 20)",
    ..POSTGRES
};

const LAYOUTS: [Layout; 4] = [
    SPARSE,
    Layout {
        name: "numbers for ids",
        id_type: "bigint",
        ..SPARSE
    },
    Layout {
        name: "uuid keys",
        key_type: "uuid",
        ..SPARSE
    },
    Layout {
        name: "text keys",
        key_type: "text",
        ..SPARSE
    },
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn windows_lists_of_runs_and_workspaces_are_read_by_index() {
    for layout in LAYOUTS {
        println!("{}", layout.name);
        let setup = large(layout).await;
        let mut conn = setup.store.connect().await;
        let before = scans(&mut conn).await;

        setup.backfill(&["--window-runs", "1000"]).await;
        let after = scans(&mut conn).await;
        assert_eq!(after.whole, before.whole, "windows: {before:?}, {after:?}");
        assert!(after.rows - before.rows >= RUNS, "{before:?}, {after:?}");

        // One row of 60 runs and of one user's: looked up by run, and by workspace.
        let before = after;
        let workspace = setup.history.runs[0].workspace.clone().expect("it has one");
        let verified = setup.json(&["verify", "--workspace", &workspace], 0);
        assert_eq!(verified["runs"], 60);
        let after = scans(&mut conn).await;
        assert_eq!(
            after.whole, before.whole,
            "a workspace: {before:?}, {after:?}"
        );
        let rows = after.rows - before.rows;
        assert!(
            rows < 1_000,
            "of one workspace and of the sample, not {rows}"
        );

        // A row that differs: its pair is computed again.
        let wrong = format!(
            "update recents.recent_workflow set last_used_at = '2030-01-01Z' where workspace = '{workspace}'"
        );
        setup.store.execute(&wrong).await;
        let before = scans(&mut conn).await;
        let repaired = setup.json(&["verify", "--workspace", &workspace, "--repair"], 3);
        assert_eq!(repaired["differences"], 6);
        let after = scans(&mut conn).await;
        assert_eq!(after.whole, before.whole, "pairs: {before:?}, {after:?}");
        setup.assert_equal("after the repair").await;
    }
}

/// What the counts show where an index does not serve; without it the test above might see nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_pass_reads_all_of_it_once() {
    let setup = large(POSTGRES).await;
    let mut conn = setup.store.connect().await;
    let before = scans(&mut conn).await;
    setup.backfill(&["--one-pass"]).await;
    let after = scans(&mut conn).await;
    assert_eq!(after.whole - before.whole, 1, "{before:?}, {after:?}");
}

/// Only the partitions with a window's keys are read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_are_read_by_index_too() {
    let layout = Layout {
        after: "partition by range (id)",
        parts:
            "create table saved_run_0 partition of saved_run for values from (minvalue) to (10000)
                    with (fillfactor = 20);
                create table saved_run_1 partition of saved_run for values from (10000) to (20000)
                    with (fillfactor = 20);
                create table saved_run_2 partition of saved_run default with (fillfactor = 20);",
        ..POSTGRES
    };
    let mut setup = large(layout).await;
    let mut conn = setup.store.connect().await;
    let before = scans(&mut conn).await;
    setup.backfill(&["--window-runs", "1000"]).await;
    let after = scans(&mut conn).await;
    assert_eq!(after.whole, before.whole, "{before:?}, {after:?}");
    // A run of the default partition, later than all.
    let mut run = Run::new(RUNS + 1, "w1", 1, 0);
    run.at = Some(At::Micros(1_800_000_000_000_000));
    setup
        .store
        .execute(&setup.history.insert(std::slice::from_ref(&run)))
        .await;
    setup.history.runs.push(run);
    setup.backfill(&["--restart"]).await;
}
