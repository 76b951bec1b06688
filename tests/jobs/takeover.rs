//! A re-sync whose worker is gone is taken over, and a worker that lost it writes nothing more.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{execute, insert, job, post, post_json, reaches};
use crate::capture::followed::serve;
use crate::support::history::setup::{last_json, same};
use crate::support::history::{Gate, Setup};
use crate::support::uses::Rows;
use crate::support::{Backend, Server, TestDb, both, until};

both!(
    a_killed_services_re_sync_is_taken_over,
    a_killed_commands_re_sync_is_taken_over,
    a_service_that_slept_through_its_lease_writes_nothing_more,
    a_service_that_stops_hands_its_re_sync_on_at_once,
    a_re_sync_is_paused_while_it_waits_for_the_history_and_goes_on_when_resumed,
    an_interrupt_stops_the_command_and_the_same_goes_on,
    an_interrupt_stops_the_look_at_what_others_noted,
    what_waits_for_nobody_keeps_no_command_waiting,
    what_goes_on_goes_on_where_it_was,
);

const REBUILD: [&str; 5] = ["resync", "--all", "--mode", "rebuild", "--yes"];

/// A filled table, of which rows are missing and others too high, and a closed gate that every look at its run comes to.
async fn before_a_gate(db: TestDb) -> (Setup, Gate) {
    let setup = Gate::setup(db).await;
    setup.backfill(&[]).await;
    for wrong in [
        "delete from {recents}recent_workflow where workspace = 'w3'",
        "update {recents}recent_workflow set run = '~' where workspace = 'w5'",
    ] {
        setup.store.execute(wrong).await;
    }
    let closed = Gate::close(&setup, 500).await;
    (setup, closed)
}

/// Asks for a rebuild of everything, and waits until it came to the gate.
async fn at_the_gate(server: &Server, closed: &mut Gate) -> String {
    let body = json!({"all": true, "mode": "rebuild"});
    let asked = post_json(server, "/admin/v1/resyncs", &body)
        .await
        .expect(202);
    until("it comes to the gate", async || {
        (closed.waiting().await > 0).then_some(())
    })
    .await;
    asked.json()["id"].as_str().expect("an id").to_owned()
}

async fn fence(setup: &Setup) -> String {
    setup.job("fence").await
}

async fn a_killed_services_re_sync_is_taken_over(db: TestDb) {
    let (setup, mut closed) = before_a_gate(db).await;
    let first = serve(&setup).await;
    let id = at_the_gate(&first, &mut closed).await;
    // It is killed when dropped.
    drop(first);
    closed.open().await;
    let second = serve(&setup).await;
    assert_eq!(job(&second, &id).await["state"], "running", "by its lease");
    assert_eq!(fence(&setup).await, "1");
    setup.age_lease().await;
    let done = reaches(&second, &id, "succeeded").await;
    assert_eq!(fence(&setup).await, "2", "by another worker");
    assert_eq!(done["progress"]["percent"], 100.0);
    setup.assert_equal("after a takeover").await;
}

async fn a_killed_commands_re_sync_is_taken_over(db: TestDb) {
    let (setup, mut closed) = before_a_gate(db).await;
    let mut command = setup.start(&REBUILD);
    command
        .until("it comes to the gate", async || {
            (closed.waiting().await > 0).then_some(())
        })
        .await;
    command.kill();
    closed.open().await;
    let server = serve(&setup).await;
    let id = setup.job("id").await;
    setup.age_lease().await;
    reaches(&server, &id, "succeeded").await;
    setup.assert_equal("after a takeover").await;
}

async fn a_service_that_slept_through_its_lease_writes_nothing_more(db: TestDb) {
    let (setup, mut closed) = before_a_gate(db).await;
    let stale = serve(&setup).await;
    let id = at_the_gate(&stale, &mut closed).await;
    stale.signal("STOP");
    setup.age_lease().await;
    closed.open().await;
    let second = serve(&setup).await;
    reaches(&second, &id, "succeeded").await;
    setup.assert_equal("after a takeover").await;
    // Whatever the stale one writes now will be seen. Nobody drains meanwhile.
    drop(second);
    for table in ["recent_workflow", "note"] {
        setup
            .store
            .execute(&format!("delete from {{recents}}{table}"))
            .await;
    }
    let before = ["state", "fence", "cursor", "counts"].map(|column| setup.job(column));
    let before = futures_util::future::join_all(before).await;
    stale.signal("CONT");
    let lost = |event: &Value| {
        event["message"] == "the re-sync failed"
            && event["error"]
                .as_str()
                .is_some_and(|said| said.contains("took this one over"))
    };
    stale.log.event("it heard that it lost its job", lost).await;
    same(
        &setup.store.rows().await,
        &Rows::new(),
        "after the stale worker woke up",
    );
    let after = ["state", "fence", "cursor", "counts"].map(|column| setup.job(column));
    let after = futures_util::future::join_all(after).await;
    assert_eq!(after, before, "the job is the other's");
    let notes = "select run from {recents}note";
    assert_eq!(
        setup.store.connect().await.texts(notes).await,
        Vec::<String>::new()
    );
}

async fn a_service_that_stops_hands_its_re_sync_on_at_once(db: TestDb) {
    let (setup, mut closed) = before_a_gate(db).await;
    let mut first = serve(&setup).await;
    let second = serve(&setup).await;
    let id = at_the_gate(&first, &mut closed).await;
    // Whichever took it.
    let of_first = first.log.text().contains(&id);
    let (stopping, other) = match of_first {
        true => (&mut first, &second),
        false => (&mut { second }, &first),
    };
    let begun = Instant::now();
    stopping.terminate();
    assert!(stopping.ended().await.success());
    until("the other takes it", async || {
        (fence(&setup).await == "2").then_some(())
    })
    .await;
    assert!(
        begun.elapsed() < Duration::from_secs(15),
        "it waited for the lease's end"
    );

    closed.open().await;
    reaches(other, &id, "succeeded").await;
    setup.assert_equal("when it was handed on").await;
}

async fn a_re_sync_is_paused_while_it_waits_for_the_history_and_goes_on_when_resumed(db: TestDb) {
    let (setup, mut closed) = before_a_gate(db).await;
    let server = serve(&setup).await;
    let id = at_the_gate(&server, &mut closed).await;
    let path = format!("/admin/v1/jobs/{id}");
    let paused = post(&server, &format!("{path}/pause")).await.expect(200);
    assert_eq!(paused.json()["state"], "paused");
    // It gives up its query, which nobody opens the gate for.
    server.log.message("the re-sync was stopped").await;
    // The worker is free for others; this one comes to the gate, too.
    let body = json!({"workspace": "w3"});
    let other = post_json(&server, "/admin/v1/resyncs", &body)
        .await
        .expect(202);
    let other = other.json()["id"].as_str().expect("an id").to_owned();
    until("it works at another one", async || {
        (job(&server, &other).await["state"] == "running").then_some(())
    })
    .await;
    let cancelled = post(&server, &format!("/admin/v1/jobs/{other}/cancel"))
        .await
        .expect(200);
    assert_eq!(cancelled.json()["state"], "cancelled");
    assert_eq!(job(&server, &id).await["state"], "paused", "it stays so");
    closed.open().await;
    post(&server, &format!("{path}/resume")).await.expect(200);
    reaches(&server, &id, "succeeded").await;
    setup.assert_equal("after a pause").await;
    assert_eq!(job(&server, &other).await["state"], "cancelled");
}

async fn an_interrupt_stops_the_command_and_the_same_goes_on(db: TestDb) {
    let (setup, mut closed) = before_a_gate(db).await;
    let rows = setup.store.rows().await;
    let mut command = setup.start(&[&REBUILD[..], &["--json"]].concat());
    command
        .until("it comes to the gate", async || {
            (closed.waiting().await > 0).then_some(())
        })
        .await;
    command.signal("INT");
    let stopped = command.ended().await.expect(4);
    assert!(
        stopped.err.contains("stopped; the same command goes on"),
        "{stopped:?}"
    );
    assert_eq!(last_json(&stopped)["complete"], false);
    assert_eq!(setup.job("state").await, "paused");
    assert_eq!(setup.store.rows().await, rows);
    closed.open().await;
    let (id, again) = (setup.job("id").await, setup.json(&REBUILD, 0));
    assert_eq!(again["job"], id, "the same job");
    setup.assert_equal("after an interrupt").await;
}

async fn an_interrupt_stops_the_look_at_what_others_noted(db: TestDb) {
    let setup = Gate::setup(db).await;
    setup.backfill(&[]).await;
    let mut closed = Gate::close(&setup, 500).await;
    setup
        .store
        .execute("insert into {recents}note (run) values ('-500')")
        .await;
    let mut command = setup.start(&["resync", "--workspace", "of nobody"]);
    command
        .until("the note is looked at", async || {
            (closed.waiting().await > 0).then_some(())
        })
        .await;
    assert_eq!(setup.job("state").await, "running");
    command.signal("INT");
    let stopped = command.ended().await.expect(4);
    assert!(
        stopped.err.contains("the same command goes on from here"),
        "{stopped:?}"
    );
    closed.open().await;
    let notes = "select cast(count(*) as text) from {recents}note";
    assert_ne!(setup.store.connect().await.texts(notes).await, ["0"]);
}

/// No service runs, or none that would take it: a re-sync is a service's, a backfill that an operator
/// resumed its own command's.
async fn what_waits_for_nobody_keeps_no_command_waiting(db: TestDb) {
    let setup = Setup::plain(db, 41, 100).await;
    setup.backfill(&[]).await;
    for kind in ["resync", "backfill"] {
        let waits = insert(kind, &json!({"kind": kind, "state": "queued"}));
        execute(&setup.store, &waits).await.expect("SQL");
        setup.recents(&["resync", "--workspace", "w1"]).expect(0);
        let state = format!("select state from {{recents}}job where id = '{kind}'");
        let state = setup.store.connect().await.texts(&state).await;
        assert_eq!(state, ["paused"], "it may be resumed");
    }
    // A worker that is busy elsewhere comes to it later.
    for (id, workspace, state) in [("busy", "w2", "running"), ("next", "w3", "queued")] {
        let lease = if state == "running" {
            "={ago:-60}"
        } else {
            "={ago:20}"
        };
        let row = json!({"workspace": workspace, "state": state, "fence": 1, "lease_until": lease});
        execute(&setup.store, &insert(id, &row)).await.expect("SQL");
    }
    let refused = setup.recents(&["resync", "--workspace", "w3"]).expect(1);
    assert!(refused.err.contains("is at work"), "{refused:?}");
    setup.recents(&["resync", "--workspace", "w4"]).expect(0);
}

async fn what_goes_on_goes_on_where_it_was(db: TestDb) {
    let (setup, mut closed) = before_a_gate(db).await;
    // A merge mends what is missing, not what is too high.
    let too_high = "delete from {recents}recent_workflow where run = '~'";
    setup.store.execute(too_high).await;
    let mut command = setup.start(&["resync", "--all", "--json"]);
    command
        .until("it comes to the gate", async || {
            (closed.waiting().await > 0).then_some(())
        })
        .await;
    // As if it had come this far.
    let cursor = json!({"runs": "-400"}).to_string();
    let counts = json!({"tally": {"scanned": 400}}).to_string();
    command.signal("INT");
    command.ended().await.expect(4);
    closed.open().await;
    let came = format!(
        "update {{recents}}job set cursor = '{cursor}', counts = '{counts}', scanned = 400
         where state = 'paused'"
    );
    setup.store.execute(&came).await;
    let ended = setup.recents(&["resync", "--all", "--json"]).expect(0);
    assert!(ended.err.contains("going on behind 400 runs"), "{ended:?}");
    assert_eq!(last_json(&ended)["scanned"], 1_000, "each run once");
    let expected = setup.history.rows();
    let of = |run: &Option<String>| run.as_ref().and_then(|run| run.parse::<i64>().ok());
    let lacking: Vec<_> = {
        let found = setup.store.rows().await;
        expected
            .iter()
            .filter(|(key, row)| found.get(*key) != Some(row))
            .map(|(_, row)| of(&row.1))
            .collect()
    };
    assert!(
        !lacking.is_empty() && lacking.iter().all(|run| *run >= Some(-400)),
        "{lacking:?}"
    );
    // With --restart, and with another history, it begins anew.
    setup.store.execute("update {recents}job set state = 'paused' where state = 'succeeded' and kind = 'resync'").await;
    setup.store.execute(&came).await;
    let restarted = setup.json(&["resync", "--all", "--restart"], 0);
    assert_eq!(restarted["scanned"], 1_000);
    setup.assert_equal("after --restart").await;
}

/// Its session rests in a transaction that holds the job's row, until the database ends it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_frozen_in_a_transaction_is_waited_for() {
    let setup = Setup::plain(TestDb::migrated(Backend::Postgres).await, 42, 100).await;
    setup.backfill(&[]).await;
    let gone =
        "update {recents}job set state = 'running', finished_at = null, lease_until = {ago:11}";
    execute(&setup.store, gone).await.expect("SQL");
    let mut frozen = setup.store.connect().await;
    frozen
        .execute("begin; select from recents.job for update")
        .await;
    let command = setup.start(&["backfill", "--statement-timeout", "300ms"]);
    let waits = "select '' from pg_stat_activity where datname = current_database()
                 and wait_event_type = 'Lock' and query like '%recents.job%'";
    let mut beside = setup.store.connect().await;
    for is_waiting in [true, false, true] {
        until("it waits, gives up, and waits again", async || {
            (beside.texts(waits).await.is_empty() != is_waiting).then_some(())
        })
        .await;
    }
    frozen.execute("rollback").await;
    command.ended().await.expect(0);
}
