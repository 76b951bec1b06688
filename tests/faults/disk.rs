//! A full disk.

use std::str::FromStr;
use std::sync::Arc;

use hyper::body::Bytes;
use recents::store::Store;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};

use crate::support::client::{Client, list_path};
use crate::support::uses::body_of;
use crate::support::{Backend, InProcess, Server, TestDb, Use};

fn uses(workspace: usize) -> Vec<Use> {
    (0..1_000)
        .map(|i| Use::new(&format!("w{workspace}"), &format!("p{i}"), i))
        .collect()
}

/// Writes say that the disk is full; reads go on.
async fn assert_full(client: &Client) {
    let refused = client
        .post("/v1/runs", &body_of(&uses(999)))
        .await
        .expect(503);
    assert_eq!(refused.problem(), "storage_full");
    assert_eq!(refused.header("retry-after"), Some("1"));
    let list = client.get(&list_path("w0", None)).await.expect(200);
    assert_eq!(list.published_runs().len(), 4, "reads go on");
    let list = client.get(&list_path("w999", None)).await.expect(200);
    assert_eq!(
        list.published_runs().len(),
        0,
        "nothing of what was refused"
    );
}

/// A service whose file may grow no more.
pub(crate) async fn on_full_file(db: &TestDb) -> (InProcess, SqlitePool) {
    let options = SqliteConnectOptions::from_str(&db.url)
        .expect("a good url")
        .pragma("max_page_count", "100");
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .connect_lazy_with(options);
    let service = InProcess::on(Store::Sqlite(pool.clone(), Arc::default())).await;
    for workspace in 0..100 {
        let uses = body_of(&uses(workspace));
        if service.client.post("/v1/runs", &uses).await.status != 200 {
            return (service, pool);
        }
    }
    panic!("100,000 rows fit in 400 KiB");
}

/// PostgreSQL says what it says where it cannot extend a file.
pub(crate) async fn fill(db: &TestDb, table: &str) {
    let sql = format!(
        "create function no_room() returns trigger language plpgsql as
         $$ begin raise exception 'could not extend file' using errcode = '53100'; end $$;
         create trigger no_room before insert on recents.{table}
         for each row execute function no_room()"
    );
    db.execute(&sql).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_told_and_writes_go_on_when_there_is_room_sqlite() {
    let db = TestDb::migrated(Backend::Sqlite).await;
    let (service, pool) = on_full_file(&db).await;
    assert_full(&service.client).await;
    sqlx::query("pragma max_page_count = 100000")
        .execute(&pool)
        .await
        .expect("room");
    service
        .client
        .post("/v1/runs", &body_of(&uses(999)))
        .await
        .expect(200);
}

/// SQLite rolls back by itself where a commit cannot be written. The connection is as good as any other then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_disk_that_takes_nothing_broke_off_spoils_no_connection() {
    let db = TestDb::migrated(Backend::Sqlite).await;
    let server = Server::start(&db).await;
    let client = server.public;
    client
        .post("/v1/runs", &body_of(&uses(0)))
        .await
        .expect(200);
    server.limit_files("0");
    for at in 1..4 {
        client
            .post("/v1/runs", &body_of(&uses(at)))
            .await
            .expect(503);
        let dismissed = list_path("w0", None) + "/p0";
        client
            .send("DELETE", &dismissed, &[], Bytes::new())
            .await
            .expect(503);
        let list = client.get(&list_path("w0", None)).await.expect(200);
        assert_eq!(list.published_runs().len(), 4, "reads go on");
    }
    server.limit_files("unlimited");
    // One after the other, so that every connection has its turn.
    for at in 1..20 {
        client
            .post("/v1/runs", &body_of(&uses(at)[..1]))
            .await
            .expect(200);
    }
}

#[tokio::test]
async fn a_full_disk_is_told_and_writes_go_on_when_there_is_room_postgres() {
    let db = TestDb::migrated(Backend::Postgres).await;
    let server = Server::start(&db).await;
    server
        .public
        .post("/v1/runs", &body_of(&uses(0)))
        .await
        .expect(200);
    fill(&db, "recent_workflow").await;
    assert_full(&server.public).await;
    db.execute("drop trigger no_room on recents.recent_workflow")
        .await;
    server
        .public
        .post("/v1/runs", &body_of(&uses(999)))
        .await
        .expect(200);
}
