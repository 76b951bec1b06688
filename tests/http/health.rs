//! Liveness and readiness.

use serde_json::json;

use crate::support::client::list_path;
use crate::support::uses::body_of;
use crate::support::{Backend, Lock, Server, TestDb, Use, both, recents, until};

both!(it_is_ready_and_says_so, it_drains_before_it_stops);

async fn it_is_ready_and_says_so(db: TestDb) {
    let server = Server::start(&db).await;
    let live = server.admin.get("/livez").await.expect(200);
    assert_eq!(live.text(), "alive\n");
    let ready = until("the database was asked", async || {
        let ready = server.admin.get("/readyz").await.expect(200).json();
        (ready["database"] == "up").then_some(ready)
    })
    .await;
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        ready,
        json!({"status": "ready", "database": "up", "version": version})
    );
}

async fn starts_when_someone_else_migrated(backend: Backend) {
    let db = TestDb::empty(backend).await;
    let mut server = Server::spawn(&db.url, &["--migrate-on-start", "false"]).await;
    server.admin.get("/livez").await.expect(200);
    let waiting = server.log.message("not ready yet; trying again").await;
    assert!(
        waiting["error"]
            .as_str()
            .expect("why")
            .contains("run `recents migrate`"),
        "{waiting}"
    );
    let starting = server.admin.get("/readyz").await.expect(503);
    assert_eq!(starting.json()["status"], "starting");
    assert_eq!(starting.header("retry-after"), Some("1"));
    recents(&["migrate", "--database-url", &db.url]).expect(0);
    server.ready().await;
    server.public.get(&list_path("w", None)).await.expect(200);
}

#[tokio::test]
async fn it_is_not_ready_before_the_schema_is_there_postgres() {
    starts_when_someone_else_migrated(Backend::Postgres).await;
}

#[tokio::test]
async fn it_is_not_ready_before_the_schema_is_there_sqlite() {
    starts_when_someone_else_migrated(Backend::Sqlite).await;
}

async fn it_drains_before_it_stops(db: TestDb) {
    let mut server = Server::start(&db).await;
    let lock = Lock::take(&db).await;
    let client = server.public;
    let write = tokio::spawn(async move {
        client
            .post("/v1/runs", &body_of(&[Use::new("w", "p", 0)]))
            .await
            .status
    });
    server.queued(1).await;
    server.terminate();
    // A request is under way: until it ends, whoever asks is told not to send more.
    let draining = until("it says that it drains", async || {
        let answer = server.admin.get("/readyz").await;
        let drains = answer.status == 503 && answer.json()["status"] == "draining";
        drains.then_some(answer)
    })
    .await;
    assert_eq!(draining.header("retry-after"), Some("1"));
    lock.release().await;
    assert_eq!(write.await.expect("an answer"), 200);
    assert_eq!(server.ended().await.code(), Some(0));
}
