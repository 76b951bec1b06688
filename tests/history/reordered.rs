//! Keys of a history come into another order while it is walked: nothing is passed over without a word.

use std::sync::Arc;

use recents::history::{self, HistoryError, Stretches, Unmappable, one_pass, windows};
use serde_json::json;

use crate::capture::followed::serve;
use crate::jobs::{post_json, reaches};
use crate::support::beside::Beside;
use crate::support::history::layout::Layout;
use crate::support::history::{History, Run, Setup};
use crate::support::{Backend, TestDb, both, until};

both!(
    a_walk_ends_where_its_keys_are_in_another_order,
    a_re_sync_that_begins_after_the_keys_were_reordered_is_of_the_new_order,
);

/// Half of them begin with a great letter, which comes first by its byte and last by the alphabet.
const RUNS: usize = 600;

async fn setup(db: TestDb) -> Setup {
    let layout = Layout {
        key_type: "text",
        ..Layout::of(db.backend)
    };
    let runs = (0..RUNS).map(|at| {
        let letter = if at % 2 == 0 { 'B' } else { 'a' };
        let workspace = format!("w{}", at % 5);
        Run::new(format!("{letter}{at:04}"), &workspace, 1, 1).by(&format!("u{at}"))
    });
    Setup::of(db, History::of(layout, runs.collect())).await
}

/// Orders the keys by the alphabet.
async fn reorder(setup: &Setup) {
    let reorder = match setup.source().backend {
        Backend::Postgres => "alter table saved_run alter id type text collate \"und-x-icu\"",
        Backend::Sqlite => {
            "begin;
             alter table saved_run rename to old;
             create table saved_run (
                 id text collate nocase primary key, workspace_id text, uid text,
                 parent_version_id bigint, updated_at integer
             );
             insert into saved_run select * from old;
             drop table old;
             commit"
        }
    };
    setup.source().execute(reorder).await;
}

async fn end_of(mut stretches: Stretches) -> Result<u64, HistoryError> {
    let mut scanned = 0;
    while let Some(stretch) = stretches.next().await? {
        scanned += stretch.tally.scanned;
    }
    Ok(scanned)
}

async fn a_walk_ends_where_its_keys_are_in_another_order(db: TestDb) {
    let setup = setup(db).await;
    let of = Arc::new(history::connect(&setup.config()).await.expect("it opens"));
    // The smallest by its byte.
    let last = || "B0000".to_owned();
    let walk = || windows::walk(Arc::clone(&of), None, last(), 20, Unmappable::default());
    let mut stretches = walk();
    let first = stretches
        .next()
        .await
        .expect("it is read")
        .expect("a window");
    assert_eq!(first.tally.scanned, 20);
    reorder(&setup).await;
    let ended = end_of(stretches).await;
    assert!(matches!(ended, Err(HistoryError::Reordered)), "{ended:?}");
    let scanned = end_of(walk()).await.expect("in its new order");
    let half = RUNS as u64 / 2;
    assert_eq!(scanned, half, "the others are behind its last key now");
}

async fn a_re_sync_that_begins_after_the_keys_were_reordered_is_of_the_new_order(db: TestDb) {
    let setup = setup(db).await;
    let server = serve(&setup).await;
    let all = json!({"all": true});
    for is_reordered in [false, true] {
        if is_reordered {
            reorder(&setup).await;
            setup
                .store
                .execute("delete from {recents}recent_workflow")
                .await;
        }
        let asked = post_json(&server, "/admin/v1/resyncs", &all).await;
        let id = asked.expect(202).json()["id"].clone();
        reaches(&server, id.as_str().expect("an id"), "succeeded").await;
        setup.assert_equal("every run was read").await;
    }
}

/// A key that those behind it come through while the lock 5 is free.
const GATE: &str = "
    create function gate(id text) returns text language plpgsql stable as $$
    begin
        if id = 'a0295' then perform pg_advisory_xact_lock_shared(5); end if;
        return id;
    end $$";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backfill_that_was_stopped_begins_anew_in_the_new_order() {
    let mut setup = setup(TestDb::migrated(Backend::Postgres).await).await;
    setup.source().execute(GATE).await;
    setup.query = setup.history.layout.query_of("gate(r.id)", "join");
    let mut lock = setup.source().connect().await;
    lock.execute("select pg_advisory_lock(5)").await;
    let windows = ["backfill", "--window-runs", "50"];
    let mut worker = setup.start(&windows);
    worker
        .until("it comes to the gate", async || {
            (setup.job("cursor").await == "a0301").then_some(())
        })
        .await;
    worker.signal("INT");
    worker.ended().await.expect(4);
    drop(lock);
    reorder(&setup).await;
    let ended = setup.recents(&windows).expect(0);
    assert!(!ended.err.contains("going on behind"), "{ended:?}");
    setup.assert_equal("every run was read").await;
}

/// The workspace's runs are read in parts, because of one that cannot be mapped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workspace_that_is_read_in_parts_is_not_read_on_in_another_order() {
    let mut setup = setup(TestDb::migrated(Backend::Postgres).await).await;
    setup.source().execute(GATE).await;
    let query = setup.history.layout.query_of("gate(r.id)", "join");
    let broken = "case r.id when 'B0000' then cast(cast(r.id as integer) as text)
                  else v.published_run_id end as published_run";
    setup.query = query.replace("v.published_run_id as published_run", broken);
    let of = Arc::new(history::connect(&setup.config()).await.expect("it opens"));
    let mut lock = setup.source().connect().await;
    lock.execute("select pg_advisory_lock(5)").await;
    let read = one_pass(of, Some("w0".into()), Unmappable::default());
    let ended = tokio::spawn(end_of(read));
    waits_for(&mut lock, "advisory").await;
    let reordered = async {
        waits_for(&mut lock, "relation").await;
        lock.execute("select pg_advisory_unlock(5)").await;
    };
    tokio::join!(reorder(&setup), reordered);
    let ended = ended.await.expect("an end");
    assert!(matches!(ended, Err(HistoryError::Reordered)), "{ended:?}");
}

/// Until somebody waits for a lock of a kind in the database of this connection.
async fn waits_for(conn: &mut Beside, kind: &str) {
    let waiting = format!(
        "select pid::text from pg_locks where locktype = '{kind}' and not granted
         and database = (select oid from pg_database where datname = current_database())"
    );
    until("somebody waits", async || {
        (!conn.texts(&waiting).await.is_empty()).then_some(())
    })
    .await;
}
