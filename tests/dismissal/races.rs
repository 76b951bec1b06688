//! Dismissal against everybody who writes, at the worst moment. Forced by locks, so only on PostgreSQL.

use std::sync::Arc;

use hyper::body::Bytes;
use recents::dismiss::sweep;
use recents::model::Time;
use recents::store::Dialect;
use serde_json::Value;
use tokio::task::JoinHandle;

use super::{delete, swept, walk};
use crate::promises::plans::text_of;
use crate::support::client::{Answer, list_path};
use crate::support::history::layout::POSTGRES;
use crate::support::history::{History, Run, Setup};
use crate::support::uses::body_of;
use crate::support::{Backend, Beside, Lock, Server, TestDb, Use, until};

/// Waits until a statement that begins so waits for a lock.
async fn waits(db: &TestDb, statement: &str) {
    let sql = format!(
        "select pid::text from pg_stat_activity where datname = current_database()
         and wait_event_type = 'Lock' and query like '{statement}%'"
    );
    let mut beside = db.connect().await;
    until(&format!("{statement} waits"), async || {
        (!beside.texts(&sql).await.is_empty()).then_some(())
    })
    .await;
}

/// A request that is answered beside the test.
fn sending(
    server: &Server,
    method: &'static str,
    path: &str,
    body: Option<Value>,
) -> JoinHandle<Answer> {
    let (client, path) = (server.public, path.to_owned());
    tokio::spawn(async move {
        match body {
            Some(body) => client.post(&path, &body).await,
            None => client.send(method, &path, &[], Bytes::new()).await,
        }
    })
}

fn hook(server: &Server, usage: Use) -> JoinHandle<Answer> {
    sending(server, "POST", "/v1/runs", Some(body_of(&[usage])))
}

/// Begins a transaction with this statement, and leaves it open.
async fn holding(db: &TestDb, sql: &str) -> Beside {
    let mut conn = db.connect().await;
    conn.execute(&format!("begin; {sql}")).await;
    conn
}

/// So many microseconds from now.
fn in_micros(micros: i64) -> i64 {
    Time::now().micros() + micros
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_use_of_the_hook_that_was_under_way_stays_hidden_and_is_swept() {
    let db = TestDb::migrated(Backend::Postgres).await;
    let server = Server::start(&db).await;
    hook(&server, Use::new("w", "p1", 0))
        .await
        .expect("sent")
        .expect(200);
    let row = holding(&db, "select from recents.recent_workflow for update").await;
    let late = hook(&server, Use::new("w", "p1", 1));
    waits(&db, "insert into recents.recent_workflow").await;
    // The hook's statement began before the watermark is there.
    delete(&server, &format!("{}/p1", list_path("w", None))).await;
    drop(row);
    let answer = late.await.expect("an answer").expect(200).json();
    assert_eq!(answer["applied"], 1, "it did not see the watermark");
    assert!(walk(&server, "w", None, 4).await.is_empty());
    swept(&db).await;
    assert!(db.rows().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_use_that_comes_while_a_dismissal_waits_is_a_newer_one() {
    let db = TestDb::migrated(Backend::Postgres).await;
    let server = Server::start(&db).await;
    let (list, ahead) = (list_path("w", None), in_micros(200_000_000));
    hook(&server, Use::new("w", "p1", 0))
        .await
        .expect("sent")
        .expect(200);
    // Another dismissal of the same, of a clock that is ahead.
    let other = format!(
        "insert into recents.dismissal values
         ('w', '', 'p1', timestamptz 'epoch' + {ahead} * interval '1 microsecond')"
    );
    let mut other = holding(&db, &other).await;
    let dismissal = sending(&server, "DELETE", &format!("{list}/p1"), None);
    waits(&db, "insert into recents.dismissal").await;
    let newer = Use::new("w", "p1", 0).at(ahead + 1);
    hook(&server, newer).await.expect("sent").expect(200);
    other.execute("commit").await;
    dismissal.await.expect("an answer").expect(204);
    assert_eq!(walk(&server, "w", None, 4).await, ["p1"]);
    // The watermark of the other one has not shrunk.
    let until = "select (extract(epoch from until) * 1000000)::bigint::text from recents.dismissal";
    assert_eq!(other.texts(until).await, [ahead.to_string()]);
    // Dismissed now, it hides what is there.
    delete(&server, &format!("{list}/p1")).await;
    assert_eq!(other.texts(until).await, [(ahead + 1).to_string()]);
    assert!(walk(&server, "w", None, 4).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backfill_that_was_under_way_brings_nothing_back() {
    let runs = (1..=4).map(|n| Run::new(n, "w", n, 100).by("u"));
    let history = History::of(POSTGRES, runs.collect());
    let setup = Setup::of(TestDb::migrated(Backend::Postgres).await, history).await;
    let server = Server::start(&setup.store).await;
    let lock = Lock::take(&setup.store).await;
    let worker = setup.start(&["backfill"]);
    // It has read its window.
    waits(&setup.store, "insert into recents.recent_workflow").await;
    delete(&server, "/v1/published-runs/p1").await;
    delete(&server, &format!("{}/p2", list_path("w", None))).await;
    delete(&server, &list_path("w", Some("u"))).await;
    lock.release().await;
    worker.ended().await.expect(0);
    assert_eq!(walk(&server, "w", None, 4).await, ["p4", "p3"]);
    assert!(walk(&server, "w", Some("u"), 4).await.is_empty());
    setup.recents(&["verify"]).expect(0);
    swept(&setup.store).await;
    setup.recents(&["verify"]).expect(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_neither_waits_for_a_row_nor_takes_one_that_rises() {
    let db = TestDb::migrated(Backend::Postgres).await;
    let server = Server::start(&db).await;
    for item in ["p1", "p2"] {
        hook(&server, Use::new("w", item, 0))
            .await
            .expect("sent")
            .expect(200);
    }
    let mut writer = holding(
        &db,
        "update recents.recent_workflow set last_used_at = now() + interval '1 minute'
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_use_that_waits_for_a_sweep_is_there_after_it() {
    let db = TestDb::migrated(Backend::Postgres).await;
    let server = Server::start(&db).await;
    hook(&server, Use::new("w", "p1", 0))
        .await
        .expect("sent")
        .expect(200);
    db.execute("insert into recents.dismissal values ('w', '', 'p1', now())")
        .await;
    let sweep = format!("prepare sweep as {}", text_of("sweep", Dialect::Postgres));
    let mut sweep = holding(&db, &sweep).await;
    sweep
        .execute("execute sweep (array['w'], array[''], array['p1'])")
        .await;
    let newer = hook(&server, Use::new("w", "p1", 0).at(in_micros(1)));
    waits(&db, "insert into recents.recent_workflow").await;
    sweep.execute("commit").await;
    let answer = newer.await.expect("an answer").expect(200).json();
    assert_eq!(answer["applied"], 1);
    assert_eq!(walk(&server, "w", None, 4).await, ["p1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watermark_that_is_pruned_while_it_grows_is_not_lost() {
    let db = TestDb::migrated(Backend::Postgres).await;
    let server = Server::start(&db).await;
    let path = format!("{}/p1", list_path("w", None));
    let prune = format!(
        "prepare prune as {}",
        text_of("prune_dismissals", Dialect::Postgres)
    );
    let execute = "execute prune (array['w'], array[''], array['p1'])";
    let needless = "insert into recents.dismissal values
        ('w', '', 'p1', now() - interval '2 minutes'), ('w', '', '', now() - interval '1 minute')";
    // The prune is first, and the dismissal waits.
    db.execute(needless).await;
    let mut first = holding(&db, &prune).await;
    first.execute(execute).await;
    let dismissal = sending(&server, "DELETE", &path, None);
    waits(&db, "insert into recents.dismissal").await;
    first.execute("commit").await;
    dismissal.await.expect("an answer").expect(204);
    hook(&server, Use::new("w", "p1", 0).at(in_micros(-30_000_000)))
        .await
        .expect("sent")
        .expect(200);
    assert!(walk(&server, "w", None, 4).await.is_empty());
    // The other way round.
    db.execute("delete from recents.dismissal").await;
    db.execute(needless).await;
    let mut grows = holding(
        &db,
        "update recents.dismissal set until = now() where published_run = 'p1'",
    )
    .await;
    let store = db.store();
    let pruning = tokio::spawn(async move { sweep::watermarks(&store).await });
    waits(&db, "delete from recents.dismissal").await;
    grows.execute("commit").await;
    assert_eq!(pruning.await.expect("it ends").expect("pruned"), 0);
    hook(&server, Use::new("w", "p1", 0).at(in_micros(-20_000_000)))
        .await
        .expect("sent")
        .expect(200);
    assert!(walk(&server, "w", None, 4).await.is_empty());
}

/// In the order in which every writer locks them, not in that in which they lie.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forgetting_a_user_locks_rows_as_every_writer_does() {
    let db = TestDb::migrated(Backend::Postgres).await;
    let mut conn = db.connect().await;
    for workspace in ["b", "a"] {
        let row = format!(
            "insert into recents.recent_workflow (workspace, uid, published_run, last_used_at)
             values ('{workspace}', 'u', 'p', now())"
        );
        conn.execute(&row).await;
    }
    let first = holding(
        &db,
        "select from recents.recent_workflow where workspace = 'a' for update",
    )
    .await;
    let store = db.store();
    let forgetting = tokio::spawn(async move {
        let uid = recents::model::Id::new("u").expect("an id");
        recents::store::user::forget(&store, &uid).await
    });
    waits(&db, "delete from recents.recent_workflow").await;
    let other = "select from recents.recent_workflow where workspace = 'b' for update nowait";
    assert!(
        conn.try_execute(other).await.is_ok(),
        "it holds no later row"
    );
    drop(first);
    let forgotten = forgetting.await.expect("a task").expect("forgotten");
    assert_eq!(forgotten.rows, 2);
}
