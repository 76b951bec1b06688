//! A backfill that was killed or stopped goes on where it was, and passes over nothing.

use serde_json::json;

use crate::support::history::setup::{last_json, same};
use crate::support::history::{Gate, Setup, Worker, maximum};
use crate::support::uses::Rows;
use crate::support::{Backend, TestDb, both};

both!(
    killed_at_every_checkpoint_the_same_command_goes_on_from_there,
    an_interrupt_pauses_it_and_the_same_command_goes_on_at_once,
    an_interrupt_of_one_pass_writes_what_was_read_and_the_next_begins_again,
    restart_begins_anew_and_the_old_cursor_is_forgotten,
    a_cursor_is_never_applied_to_another_history,
    another_mapping_query_begins_anew,
);

const WINDOWS: [&str; 3] = ["backfill", "--window-runs", "50"];

/// What the table must be when so many runs were read, and no others.
fn rows_of_first(setup: &Setup, runs: i64) -> Rows {
    let uses = setup.history.uses();
    let key = |run: &Option<String>| run.as_ref().and_then(|run| run.parse::<i64>().ok());
    maximum(uses.iter().filter(|usage| key(&usage.run) >= Some(-runs)))
}

/// Starts a backfill, and waits until everything before a closed gate is written.
async fn start_up_to(setup: &Setup, args: &[&str], gate: i64) -> (Worker, Gate) {
    let closed = Gate::close(setup, gate).await;
    let mut worker = setup.start(args);
    let cursor = (50 - gate).to_string();
    worker
        .until("the cursor stands before the gate", async || {
            (setup.job("cursor").await == cursor).then_some(())
        })
        .await;
    (worker, closed)
}

async fn killed_at_every_checkpoint_the_same_command_goes_on_from_there(db: TestDb) {
    let setup = Gate::setup(db).await;
    let mut before = None;
    for gate in [200, 300, 600, 800] {
        let (worker, closed) = start_up_to(&setup, &WINDOWS, gate).await;
        if let Some(cursor) = before {
            let said = format!("going on behind {cursor} runs");
            assert!(worker.said().contains(&said), "{}", worker.said());
        }
        worker.kill();
        closed.open().await;
        let cursor = gate - 50;
        same(
            &setup.store.rows().await,
            &rows_of_first(&setup, cursor),
            "at the checkpoint",
        );
        let (state, scanned) = (setup.job("state").await, setup.job("scanned").await);
        assert_eq!((state.as_str(), scanned), ("running", cursor.to_string()));
        setup.age_lease().await;
        before = Some(cursor);
    }
    let summary = setup.backfill(&WINDOWS[1..]).await;
    // Every run once: none was passed over, and none read again.
    assert_eq!(summary["scanned"], 1_000);
    let jobs = setup
        .store
        .connect()
        .await
        .texts("select state from {recents}job")
        .await;
    assert_eq!(jobs, ["succeeded"], "one job from the beginning to the end");
}

async fn an_interrupt_pauses_it_and_the_same_command_goes_on_at_once(db: TestDb) {
    let setup = Gate::setup(db).await;
    for (signal, gate, cursor) in [("INT", 400, 350), ("TERM", 800, 750)] {
        let mut closed = Gate::close(&setup, gate).await;
        let mut worker = setup.start(&[&WINDOWS[..], &["--json"]].concat());
        // Both windows that are read ahead wait, so all before them was handed over.
        worker
            .until("it comes to the gate", async || {
                (closed.waiting().await == 2).then_some(())
            })
            .await;
        worker.signal(signal);
        let stopped = worker.ended().await.expect(4);
        closed.open().await;
        assert!(
            stopped
                .err
                .contains("stopped; the same command goes on from here"),
            "{stopped:?}"
        );
        let summary = last_json(&stopped);
        assert_eq!(
            (&summary["complete"], &summary["scanned"]),
            (&json!(false), &json!(cursor))
        );
        same(
            &setup.store.rows().await,
            &rows_of_first(&setup, cursor),
            "where it was stopped",
        );
        assert_eq!(setup.job("state").await, "paused");
        assert_eq!(setup.job("cursor").await, (-cursor).to_string());
    }
    let ended = setup
        .recents(&[&WINDOWS[..], &["--json"]].concat())
        .expect(0);
    assert!(ended.err.contains("going on behind 750 runs"), "{ended:?}");
    assert!(
        !ended.err.contains("waiting"),
        "nobody holds the job: {ended:?}"
    );
    assert_eq!(last_json(&ended)["scanned"], 1_000);
    setup.assert_equal("after two interrupts").await;
}

async fn an_interrupt_of_one_pass_writes_what_was_read_and_the_next_begins_again(db: TestDb) {
    let setup = Gate::setup(db).await;
    let mut closed = Gate::close(&setup, 500).await;
    let mut worker = setup.start(&["backfill", "--one-pass"]);
    worker
        .until("it comes to the gate", async || {
            (closed.waiting().await == 1).then_some(())
        })
        .await;
    worker.signal("INT");
    worker.ended().await.expect(4);
    closed.open().await;
    assert_eq!(
        (setup.job("state").await, setup.job("cursor").await),
        ("paused".into(), "NULL".into())
    );
    let ended = setup
        .recents(&["backfill", "--one-pass", "--json"])
        .expect(0);
    assert!(
        !ended.err.contains("going on"),
        "a snapshot is gone, there is nothing to go on from: {ended:?}"
    );
    assert_eq!(last_json(&ended)["scanned"], 1_000);
    setup.assert_equal("after an interrupt").await;
}

async fn restart_begins_anew_and_the_old_cursor_is_forgotten(db: TestDb) {
    let setup = Gate::setup(db).await;
    let (worker, closed) = start_up_to(&setup, &WINDOWS, 500).await;
    worker.signal("INT");
    worker.ended().await.expect(4);
    closed.open().await;
    setup
        .store
        .execute("delete from {recents}recent_workflow")
        .await;
    let ended = setup
        .recents(&["backfill", "--restart", "--json"])
        .expect(0);
    assert!(!ended.err.contains("going on"), "{ended:?}");
    assert_eq!(last_json(&ended)["scanned"], 1_000);
    setup.assert_equal("after --restart").await;
    let jobs = "select state from {recents}job order by id";
    assert_eq!(
        setup.store.connect().await.texts(jobs).await,
        ["cancelled", "succeeded"]
    );
}

async fn a_cursor_is_never_applied_to_another_history(db: TestDb) {
    // Two histories of one shape, one behind the other's url.
    let mut setup = Gate::setup(TestDb::migrated(db.backend).await).await;
    let (worker, closed) = start_up_to(&setup, &WINDOWS, 500).await;
    worker.signal("INT");
    worker.ended().await.expect(4);
    closed.open().await;
    let other = Gate::setup(TestDb::migrated(Backend::Sqlite).await).await;
    setup
        .store
        .execute("delete from {recents}recent_workflow")
        .await;
    setup.apart = other.apart;
    let ended = setup
        .recents(&[&WINDOWS[..], &["--json"]].concat())
        .expect(0);
    assert!(!ended.err.contains("going on"), "{ended:?}");
    assert_eq!(last_json(&ended)["scanned"], 1_000);
    setup.assert_equal("from another database").await;
}

async fn another_mapping_query_begins_anew(db: TestDb) {
    let mut setup = Gate::setup(db).await;
    let (worker, closed) = start_up_to(&setup, &WINDOWS, 500).await;
    worker.signal("INT");
    worker.ended().await.expect(4);
    closed.open().await;
    setup
        .store
        .execute("delete from {recents}recent_workflow")
        .await;
    setup.query = setup.query.replace("gate(r.id)", "gate(r.id) + 0");
    let ended = setup
        .recents(&[&WINDOWS[..], &["--json"]].concat())
        .expect(0);
    assert_eq!(last_json(&ended)["scanned"], 1_000);
    setup.assert_equal("by another query").await;
}
