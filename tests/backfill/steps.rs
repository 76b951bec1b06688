//! A backfill that is killed at every step of its conversation with the table's database.

use crate::support::history::layout::{POSTGRES, SQLITE};
use crate::support::history::{History, Run, Setup, Turnstile, Worker};
use crate::support::uses::Rows;
use crate::support::{Backend, TestDb, until};

/// More rows than fit into two statements, so that several are written before the cursor moves.
const RUNS: i64 = 2_200;

/// Every row is one that the history supports.
#[track_caller]
fn assert_supported(rows: &Rows, expected: &Rows, when: &str) {
    for (key, row) in rows {
        assert_eq!(Some(row), expected.get(key), "{when}: {key:?}");
    }
}

/// Kills it before the answer to each of its requests in turn: before it held the job, between
/// transaction and commit, between a row's commit and the cursor's, before it said that it was
/// done. The request itself is not carried out; that of the step before was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_every_step_the_same_command_ends_complete() {
    let runs = (1..=RUNS).map(|key| Run::new(key, "w", key, key % 9).by(&format!("u{key}")));
    let history = History::of(POSTGRES, runs.collect());
    let setup = Setup::of(TestDb::migrated(Backend::Postgres).await, history).await;
    let expected = setup.history.rows();
    let (mut cursors, mut written) = (Vec::new(), Vec::new());
    for step in 0.. {
        let turnstile = Turnstile::letting(step, &setup.store.url).await;
        let mut command = setup.command(&["backfill"]);
        command.env("RECENTS_HISTORY_URL", &setup.store.url);
        command.env("RECENTS_DATABASE_URL", &turnstile.url);
        let mut worker = Worker::start(command);
        let held = until("it is held or done", async || {
            let ended = worker.child.try_wait().expect("its state").is_some();
            (ended || turnstile.holds()).then_some(!ended)
        });
        if !held.await {
            worker.ended().await.expect(0);
            assert!(step > 20, "{step} steps are too few");
            break;
        }
        worker.kill();
        drop(turnstile);
        let rows = setup.store.rows().await;
        assert_supported(&rows, &expected, &format!("killed at step {step}"));
        let cursor = setup.job("cursor").await;
        // The cursor moves only when everything before it is written.
        if cursor == "1" {
            assert_eq!(rows.len(), expected.len(), "killed at step {step}");
        }
        written.push(rows.len());
        cursors.push(cursor);
        if setup.job("state").await == "succeeded" {
            // Only its goodbye was interrupted.
            break;
        }
        setup.age_lease().await;
    }
    assert!(written.is_sorted(), "rows were taken back: {written:?}");
    setup.assert_equal("at the end").await;
    written.dedup();
    assert_eq!(
        written,
        [0, 2_000, 4_000, 4_400],
        "each statement was interrupted"
    );
    cursors.dedup();
    assert_eq!(cursors, ["", "NULL", "1"]);
}

/// Killed while it waits to write the next of several statements: SQLite's one write lock is taken
/// from under it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_between_two_writes_the_same_command_ends_complete() {
    let runs = (1..=3 * RUNS).map(|key| Run::new(key, "w", key, key % 9).by(&format!("u{key}")));
    let history = History::of(SQLITE, runs.collect());
    let setup = Setup::of(TestDb::migrated(Backend::Sqlite).await, history).await;
    let expected = setup.history.rows();
    let mut beside = setup.store.connect().await;
    beside.execute("pragma busy_timeout = 0").await;
    let mut written = Vec::new();
    // It may slip through; most times it does not.
    for _ in 0..20 {
        let mut worker = setup.start(&["backfill"]);
        let before = setup.store.rows().await.len();
        let between = until("it is between two writes, or done", async || {
            let ended = worker.child.try_wait().expect("its state").is_some();
            let is_between = |rows: usize| rows > before && rows < expected.len();
            // Looked at before the lock is taken too: a lock at every look would starve the writer.
            let mut between = is_between(setup.store.rows().await.len())
                && beside.try_execute("begin immediate").await.is_ok();
            if between && !is_between(setup.store.rows().await.len()) {
                beside.execute("rollback").await;
                between = false;
            }
            (ended || between).then_some(between)
        });
        if !between.await {
            worker.ended().await.expect(0);
            if written.is_empty() {
                setup
                    .store
                    .execute("delete from {recents}recent_workflow")
                    .await;
                continue;
            }
            break;
        }
        worker.kill();
        beside.execute("rollback").await;
        let rows = setup.store.rows().await;
        assert_supported(&rows, &expected, "killed between two writes");
        assert_eq!(
            setup.job("cursor").await,
            "NULL",
            "not all before it was written"
        );
        written.push(rows.len());
        setup.age_lease().await;
    }
    assert!(!written.is_empty(), "it was never between two writes");
    setup.recents(&["backfill"]).expect(0);
    setup.assert_equal("at the end").await;
}
