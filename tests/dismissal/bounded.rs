//! What is hidden does not pile up in the table, where pages would step over it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hyper::body::Bytes;
use recents::dismiss::sweep;

use super::{delete, hidden, hide_rows, serve, swept, walk};
use crate::promises::fold::{record, recorder};
use crate::promises::lists::scope;
use crate::support::client::list_path;
use crate::support::uses::body_of;
use crate::support::{Backend, Lock, Server, TestDb, Use, both, recents};

both!(
    items_dismissed_while_they_are_written_again_are_swept,
    a_cleared_list_is_swept_soon,
    a_start_sweeps_what_is_left,
    a_sweep_of_a_list_takes_nothing_else,
);

/// Rows of two lists of a workspace.
fn uses(count: i64) -> Vec<Use> {
    let usage = |i| Use::new("w", &format!("p{i:04}"), i).by("u");
    (0..count).map(usage).collect()
}

async fn items_dismissed_while_they_are_written_again_are_swept(db: TestDb) {
    const ITEMS: i64 = 200;
    let server = serve(&db).await;
    let (client, body) = (server.public, body_of(&uses(ITEMS)));
    client.post("/v1/runs", &body).await.expect(200);
    // A hook that repeats itself all the time: some of its statements began before a watermark was
    // there, and write after the row was swept.
    let done = Arc::new(AtomicBool::new(false));
    let writing = tokio::spawn({
        let done = Arc::clone(&done);
        async move {
            while !done.load(Ordering::Relaxed) {
                client.post("/v1/runs", &body).await.expect(200);
            }
        }
    });
    let path = list_path("w", None);
    for item in 0..ITEMS {
        delete(&server, &format!("{path}/p{item:04}")).await;
    }
    done.store(true, Ordering::Relaxed);
    writing.await.expect("the hook");
    assert!(walk(&server, "w", None, 4).await.is_empty());
    swept(&db).await;
    assert_eq!(walk(&server, "w", Some("u"), 100).await.len(), 200);
}

async fn a_cleared_list_is_swept_soon(db: TestDb) {
    let server = serve(&db).await;
    server
        .public
        .post("/v1/runs", &body_of(&uses(1_000)))
        .await
        .expect(200);
    delete(&server, &list_path("w", None)).await;
    assert!(walk(&server, "w", None, 4).await.is_empty());
    swept(&db).await;
    assert_eq!(db.rows().await.len(), 1_000, "the user's list stays");
}

async fn a_start_sweeps_what_is_left(db: TestDb) {
    record(&recorder(&db), &uses(1_000)).await;
    db.execute(&hide_rows("w", "<> 'p0500'")).await;
    assert_eq!(hidden(&db).await, 999);
    let _server = Server::start(&db).await;
    swept(&db).await;
    assert_eq!(db.rows().await.len(), 1_001);
}

async fn a_sweep_of_a_list_takes_nothing_else(db: TestDb) {
    let recorder = recorder(&db);
    for workspace in ["v", "w", "x"] {
        let of = |usage: Use| Use {
            workspace: workspace.into(),
            ..usage
        };
        let uses: Vec<_> = uses(1_000).into_iter().map(of).collect();
        record(&recorder, &uses).await;
        db.execute(&hide_rows(workspace, "like '%7'")).await;
    }
    let swept = sweep::list(&db.store(), &scope("w", None)).await;
    assert_eq!((swept.expect("swept"), hidden(&db).await), (100, 200));
    let swept = sweep::list(&db.store(), &scope("w", Some("u"))).await;
    assert_eq!((swept.expect("swept"), hidden(&db).await), (0, 200));
    recents(&["dismiss", "x", "--database-url", &db.url]).expect(0);
    assert_eq!(hidden(&db).await, 100);
    let swept = sweep::everything(&db.store()).await;
    assert_eq!((swept.expect("swept"), hidden(&db).await), (100, 0));
    assert_eq!(db.rows().await.len(), 3_000 + 900 + 900);
}

/// Locking every row would write the whole table, and keep its writers waiting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_locks_no_row_that_stays() {
    let db = TestDb::migrated(Backend::Postgres).await;
    record(&recorder(&db), &uses(1_000)).await;
    db.execute(&hide_rows("w", "like '%7'")).await;
    let swept = sweep::everything(&db.store()).await.expect("swept");
    assert_eq!(swept, 100);
    let locked = "select count(*)::text from recents.recent_workflow where xmax <> 0";
    assert_eq!(db.connect().await.texts(locked).await, ["0"]);
}

/// The number of rows that a page steps over is bounded, also while no sweep succeeds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn published_runs_dismissed_everywhere_wait_while_too_many_are_unswept() {
    const UNSWEPT: usize = 1_000;
    let db = TestDb::migrated(Backend::Postgres).await;
    let server = serve(&db).await;
    for part in 0..2 {
        let all = uses(2_000);
        let body = body_of(&all[part * 1_000..][..1_000]);
        server.public.post("/v1/runs", &body).await.expect(200);
    }
    // Rows cannot be deleted meanwhile, and watermarks be written.
    let lock = Lock::take(&db).await;
    let client = server.public;
    let dismiss = async |item: usize| {
        let path = format!("/v1/published-runs/p{item:04}");
        client.send("DELETE", &path, &[], Bytes::new()).await
    };
    for item in 0..UNSWEPT {
        dismiss(1_999 - item).await.expect(204);
    }
    let refused = dismiss(0).await.expect(503);
    assert_eq!(refused.problem(), "queue_full");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(hidden(&db).await, 2 * UNSWEPT, "of both lists");
    // The newest of them all are hidden, and the page is full.
    let page = client.get(&list_path("w", None)).await.expect(200);
    assert_eq!(page.published_runs(), ["p0999", "p0998", "p0997", "p0996"]);
    // An item is no published run: it does not wait.
    delete(&server, &format!("{}/p0998", list_path("w", None))).await;
    lock.release().await;
    swept(&db).await;
    dismiss(0).await.expect(204);
    swept(&db).await;
    assert_eq!(walk(&server, "w", None, 100).await.len(), 998);
}
