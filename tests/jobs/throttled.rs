//! A re-sync gives way to a database that is unwell, and comes back after one that was away.

use serde_json::json;

use super::{job, post_json, reaches};
use crate::capture::followed::{serve, serve_with};
use crate::support::history::{Gate, Setup};
use crate::support::{Backend, Cluster, Server, TestDb, both, until};

both!(
    a_re_sync_waits_while_the_query_says_true,
    a_query_that_is_none_fails_the_re_sync_and_is_told,
);

async fn ask(server: &Server, body: &serde_json::Value) -> String {
    let asked = post_json(server, "/admin/v1/resyncs", body)
        .await
        .expect(202);
    asked.json()["id"].as_str().expect("an id").to_owned()
}

async fn a_re_sync_waits_while_the_query_says_true(db: TestDb) {
    let setup = Setup::plain(db, 140, 200).await;
    let source = setup.source();
    source
        .execute("create table unwell (since integer); insert into unwell values (1)")
        .await;
    let query = "select count(*) > 0 from unwell; ";
    let logging = ["--log-level", "info,sqlx::query=debug"];
    let flags = [&["--resync-pause-while", query][..], &logging].concat();
    let server = serve_with(&setup, &flags).await;
    let id = ask(&server, &json!({"all": true})).await;
    server
        .log
        .message("resync.pause_while says true; the re-sync waits")
        .await;
    until("it asked several times", async || {
        let asked = server
            .log
            .lines()
            .into_iter()
            .filter(|line| line.contains("from unwell"));
        (asked.count() >= 3).then_some(())
    })
    .await;
    let mut command = setup.start(&["resync", "--workspace", "w1", "--resync-pause-while", query]);
    let refused = until("the command is refused", async || {
        command.child.try_wait().expect("its state")
    });
    assert_eq!(refused.await.code(), Some(1), "one of a scope");
    let waiting = job(&server, &id).await;
    assert_eq!(
        (&waiting["state"], &waiting["progress"]["scanned"]),
        (&json!("running"), &json!(0))
    );
    assert!(setup.store.rows().await.is_empty());
    source.execute("delete from unwell").await;
    reaches(&server, &id, "succeeded").await;
    setup.assert_equal("when it was well again").await;
    source.execute("insert into unwell values (1)").await;
    let waits = setup.start(&["resync", "--all", "--resync-pause-while", query]);
    until("a command says that it waits", async || {
        let said = waits.said();
        said.contains("resync.pause_while says true").then_some(())
    })
    .await;
    source.execute("delete from unwell").await;
    waits.ended().await.expect(0);
    setup
        .recents(&["resync", "--all", "--resync-pause-while", query])
        .expect(0);
}

async fn a_query_that_is_none_fails_the_re_sync_and_is_told(db: TestDb) {
    let setup = Setup::plain(db, 141, 50).await;
    let query = "select x from nowhere";
    let refused = setup
        .recents(&["resync", "--all", "--resync-pause-while", query])
        .expect(2);
    assert!(
        refused.one_line().starts_with("resync.pause_while: "),
        "{refused:?}"
    );
    assert!(refused.err.contains("nowhere"), "{refused:?}");
    let server = serve_with(&setup, &["--resync-pause-while", query]).await;
    let id = ask(&server, &json!({"all": true})).await;
    let failed = reaches(&server, &id, "failed").await;
    let said = failed["error"].as_str().expect("an error");
    assert!(
        said.starts_with("resync.pause_while: ") && said.contains("nowhere"),
        "{said}"
    );
    assert!(failed["finished_at"].is_string());
    assert!(setup.store.rows().await.is_empty());
}

/// The history's server is killed while a rebuild waits for it, and is back some seconds later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_that_was_away_for_a_moment_is_read_again() {
    let cluster = Cluster::start();
    let mut setup = Gate::setup(TestDb::migrated(Backend::Postgres).await).await;
    // The same history once more, on a server that may crash.
    let mut history = TestDb::empty(Backend::Postgres).await;
    history.url.clone_from(&cluster.url);
    setup.history.create(&history).await;
    history.execute(Gate::FUNCTION).await;
    setup.apart = Some(history);
    setup.recents(&["backfill"]).expect(0);
    let server = serve(&setup).await;
    let closed = Gate::close(&setup, 500).await;
    let id = ask(&server, &json!({"all": true, "mode": "rebuild"})).await;
    reaches(&server, &id, "running").await;
    cluster.crash();
    drop(closed);
    server.log.message("the re-sync tries again").await;
    cluster.restart();
    reaches(&server, &id, "succeeded").await;
    setup.assert_equal("after a crash of the history").await;
}
