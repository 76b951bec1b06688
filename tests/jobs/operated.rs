//! A backfill of the command line, as operators see it and stop it.

use serde_json::json;

use super::{job, post, reaches};
use crate::support::history::setup::{last_json, same};
use crate::support::history::{Gate, Setup, Worker, maximum};
use crate::support::uses::Rows;
use crate::support::{Server, TestDb, both, until};

both!(
    a_backfill_is_paused_and_goes_on_when_it_was_resumed,
    a_backfill_that_was_cancelled_begins_anew,
    what_is_over_is_not_changed_any_more,
    a_backfill_is_refused_while_another_job_is_active,
);

const WINDOWS: [&str; 4] = ["backfill", "--window-runs", "50", "--json"];

/// A backfill that wrote everything before a closed gate, and the rows of that.
async fn up_to_a_gate(setup: &Setup) -> (Worker, Gate, Rows, String) {
    let closed = Gate::close(setup, 400).await;
    let mut worker = setup.start(&WINDOWS);
    worker
        .until("the cursor stands before the gate", async || {
            (setup.job("cursor").await == "-350").then_some(())
        })
        .await;
    let uses = setup.history.uses();
    let is_before = |run: &Option<String>| {
        let key = run.as_ref().and_then(|run| run.parse::<i64>().ok());
        key >= Some(-350)
    };
    let rows = maximum(uses.iter().filter(|usage| is_before(&usage.run)));
    (worker, closed, rows, setup.job("id").await)
}

async fn a_backfill_is_paused_and_goes_on_when_it_was_resumed(db: TestDb) {
    let setup = Gate::setup(db).await;
    let server = Server::start(&setup.store).await;
    let (worker, closed, rows, id) = up_to_a_gate(&setup).await;
    let running = job(&server, &id).await;
    assert_eq!(
        (
            &running["kind"],
            &running["state"],
            &running["progress"]["scanned"]
        ),
        (&json!("backfill"), &json!("running"), &json!(350))
    );
    assert_eq!(running["result"]["added"], rows.len());
    let path = format!("/admin/v1/jobs/{id}");
    // Said twice, as by a client that heard no answer.
    for _ in 0..2 {
        let paused = post(&server, &format!("{path}/pause")).await.expect(200);
        assert_eq!(paused.json()["state"], "paused");
    }
    let stopped = worker.ended().await.expect(4);
    let said = format!("an operator paused job {id}; once it is resumed");
    assert!(stopped.err.contains(&said), "{stopped:?}");
    closed.open().await;
    same(&setup.store.rows().await, &rows, "when it was paused");
    // Whoever starts it again and again does not undo what the operator did.
    let held_back = setup.recents(&WINDOWS).expect(4);
    assert!(held_back.err.contains(&said), "{held_back:?}");
    same(&setup.store.rows().await, &rows, "while it is paused");

    for _ in 0..2 {
        let resumed = post(&server, &format!("{path}/resume")).await.expect(200);
        assert_eq!(
            resumed.json()["state"],
            "queued",
            "it waits for its command"
        );
    }
    let ended = setup.recents(&WINDOWS).expect(0);
    assert!(ended.err.contains("going on behind 350 runs"), "{ended:?}");
    assert_eq!(last_json(&ended)["scanned"], 1_000);
    setup.assert_equal("at the end").await;
    let done = reaches(&server, &id, "succeeded").await;
    assert_eq!(done["progress"]["percent"], 100.0);
    assert!(done["finished_at"].is_string(), "{done}");
    let jobs = server.admin.get("/admin/v1/jobs").await.expect(200).json();
    assert_eq!(jobs["jobs"], json!([done]), "one job all the time");
}

async fn a_backfill_that_was_cancelled_begins_anew(db: TestDb) {
    let setup = Gate::setup(db).await;
    let server = Server::start(&setup.store).await;
    let (worker, closed, rows, id) = up_to_a_gate(&setup).await;
    let path = format!("/admin/v1/jobs/{id}");
    let cancelled = post(&server, &format!("{path}/cancel")).await.expect(200);
    assert_eq!(cancelled.json()["state"], "cancelled");
    let stopped = worker.ended().await.expect(4);
    let said = format!("an operator cancelled job {id}");
    assert!(stopped.err.contains(&said), "{stopped:?}");
    closed.open().await;
    same(&setup.store.rows().await, &rows, "when it was cancelled");
    for change in ["pause", "resume"] {
        let refused = post(&server, &format!("{path}/{change}")).await.expect(409);
        assert_eq!(refused.problem(), "job_state", "{change}");
    }
    let ended = setup.recents(&WINDOWS).expect(0);
    assert!(!ended.err.contains("going on"), "{ended:?}");
    assert_eq!(last_json(&ended)["scanned"], 1_000, "all of it");
    setup.assert_equal("at the end").await;
    assert_eq!(job(&server, &id).await["state"], "cancelled", "it stays so");
}

async fn what_is_over_is_not_changed_any_more(db: TestDb) {
    let setup = Setup::plain(db, 121, 50).await;
    setup.recents(&["backfill"]).expect(0);
    let server = Server::start(&setup.store).await;
    let id = setup.job("id").await;
    let before = job(&server, &id).await;
    for change in ["pause", "resume", "cancel"] {
        let path = format!("/admin/v1/jobs/{id}/{change}");
        let refused = post(&server, &path).await.expect(409);
        assert_eq!(refused.problem(), "job_state", "{change}");
    }
    assert_eq!(job(&server, &id).await, before);
}

async fn a_backfill_is_refused_while_another_job_is_active(db: TestDb) {
    let setup = Setup::plain(db, 122, 50).await;
    let active = json!({"state": "running", "workspace": "w1", "lease_until": "={ago:-20}"});
    let active = super::insert("other", &active);
    super::execute(&setup.store, &active).await.expect("a job");
    let refused = setup.start(&["backfill"]);
    until("it says that it waits", async || {
        refused.said().contains("waiting up to").then_some(())
    })
    .await;
    let alive = "update {recents}job set lease_until = {ago:-30} where id = 'other'";
    super::execute(&setup.store, alive).await.expect("SQL");
    let refused = refused.ended().await.expect(1);
    assert!(
        refused
            .err
            .contains("another re-sync of this table is at work (job other)"),
        "{refused:?}"
    );
    assert_eq!(setup.store.rows().await, Rows::new());
    // One whose worker has been gone for a while is nobody's; it may go on later.
    let gone = "update {recents}job set state = 'running', lease_until = {ago:11}";
    super::execute(&setup.store, gone)
        .await
        .expect("it is gone");
    setup.recents(&["backfill"]).expect(0);
    setup
        .assert_equal("beside a job that nobody works at")
        .await;
    let state = "select state from {recents}job where id = 'other'";
    assert_eq!(setup.store.connect().await.texts(state).await, ["paused"]);
}
