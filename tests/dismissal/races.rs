//! Dismissal against everybody who writes, at the worst moment. Forced by locks, so only on PostgreSQL.

use std::sync::Arc;

use recents::dismiss::sweep;

use super::{delete, walk};
use crate::capture::followed::Followed;
use crate::support::client::list_path;
use crate::support::history::layout::POSTGRES;
use crate::support::history::{History, Run, Setup};
use crate::support::uses::{T0, body_of};
use crate::support::{Backend, Lock, Server, TestDb, Use, until};

async fn setup() -> Setup {
    let runs = vec![
        Run::new(1, "w", 1, 100),
        Run::new(2, "w", 1, 50),
        Run::new(3, "w", 2, 100),
    ];
    let store = TestDb::migrated(Backend::Postgres).await;
    Setup::of(store, History::of(POSTGRES, runs)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_use_of_the_hook_that_was_under_way_stays_hidden() {
    let db = TestDb::migrated(Backend::Postgres).await;
    let server = Server::start(&db).await;
    let client = server.public;
    let body = |micros| body_of(&[Use::new("w", "p1", micros)]);
    client.post("/v1/runs", &body(0)).await.expect(200);
    let mut row = db.connect().await;
    row.execute("begin; select from recents.recent_workflow for update")
        .await;
    let late = body(1);
    let late = tokio::spawn(async move { client.post("/v1/runs", &late).await });
    let mut beside = db.connect().await;
    let waits = "select pid::text from pg_stat_activity where datname = current_database()
                 and wait_event_type = 'Lock' and query like 'insert into recents.recent_workflow%'";
    until("the hook waits", async || {
        (!beside.texts(waits).await.is_empty()).then_some(())
    })
    .await;
    // Its statement began before the watermark was there.
    db.execute(
        "insert into recents.dismissal values ('w', '', 'p1', now()), ('w', '', 'p0', now())",
    )
    .await;
    row.execute("commit").await;
    late.await.expect("an answer").expect(200);
    let written: Vec<_> = db.rows().await.into_values().collect();
    assert_eq!(written, [(T0 + 1, None)], "it did not see the watermark");
    assert!(walk(&server, "w", None, 4).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backfill_that_was_under_way_brings_nothing_back() {
    let setup = setup().await;
    let server = Server::start(&setup.store).await;
    let mut beside = setup.store.connect().await;
    let lock = Lock::take(&setup.store).await;
    let worker = setup.start(&["backfill"]);
    let waits = "select pid::text from pg_stat_activity where datname = current_database()
                 and application_name = 'recents' and wait_event_type = 'Lock'";
    until("it waits to write", async || {
        (!beside.texts(waits).await.is_empty()).then_some(())
    })
    .await;
    delete(&server, "/v1/published-runs/p1").await;
    lock.release().await;
    worker.ended().await.expect(0);
    assert_eq!(walk(&server, "w", None, 4).await, ["p2"]);
    setup.recents(&["verify"]).expect(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retraction_does_not_uncover_what_is_older() {
    let followed = Followed::start(setup().await).await;
    let server = &followed.server;
    delete(server, &format!("{}/p1", list_path("w", None))).await;
    followed
        .app("insert into saved_run values (9, 'w', null, 1, now() + interval '1 minute')")
        .await;
    followed.quiet().await;
    assert_eq!(walk(server, "w", None, 4).await, ["p1", "p2"]);
    followed.app("delete from saved_run where id = 9").await;
    followed.quiet().await;
    // Runs 1 and 2 are still there, and still dismissed.
    assert_eq!(walk(server, "w", None, 4).await, ["p2"]);
    followed.setup.recents(&["verify"]).expect(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_neither_waits_for_a_row_nor_takes_one_that_rises() {
    let db = TestDb::migrated(Backend::Postgres).await;
    let server = Server::start(&db).await;
    let uses = [Use::new("w", "p1", 0), Use::new("w", "p2", 0)];
    server
        .public
        .post("/v1/runs", &body_of(&uses))
        .await
        .expect(200);
    let mut writer = db.connect().await;
    writer
        .execute(
            "begin; update recents.recent_workflow set last_used_at = now() + interval '1 minute'
             where published_run = 'p1'",
        )
        .await;
    let path = list_path("w", None);
    for item in ["p1", "p2"] {
        delete(&server, &format!("{path}/{item}")).await;
    }
    let store = Arc::new(db.store());
    sweep::everything(&store).await.expect("swept");
    writer.execute("commit").await;
    sweep::everything(&store).await.expect("swept");
    assert_eq!(
        walk(&server, "w", None, 4).await,
        ["p1"],
        "it was used later"
    );
    assert_eq!(db.rows().await.len(), 1);
}
