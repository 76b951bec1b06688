//! The database goes away and comes back.

use std::time::Instant;

use hyper::body::Bytes;

use crate::support::client::list_path;
use crate::support::uses::body_of;
use crate::support::{Cluster, Server, TestDb, Use, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_is_told_and_ends_by_itself() {
    let cluster = Cluster::start();
    let server = Server::with(&cluster.url, &[]).await;
    let client = server.public;
    let path = list_path("w", None);
    client
        .post("/v1/runs", &body_of(&[Use::new("w", "acknowledged", 0)]))
        .await
        .expect(200);

    cluster.crash();
    let read = client.get(&path).await.expect(503);
    let write = client
        .post("/v1/runs", &body_of(&[Use::new("w", "during", 1)]))
        .await
        .expect(503);
    for answer in [read, write] {
        assert_eq!(answer.problem(), "database_unavailable");
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    database(&server, "down").await;
    assert_eq!(server.metric("recents_database_up").await, 0.0);

    // A replica that is started meanwhile waits.
    let mut late = Server::spawn(&cluster.url, &[]).await;
    assert_eq!(
        late.admin.get("/readyz").await.expect(503).json()["status"],
        "starting"
    );

    cluster.restart();
    let list = until("lists are answered again", async || {
        let answer = client.get(&path).await;
        (answer.status == 200).then_some(answer)
    })
    .await;
    assert_eq!(
        list.published_runs(),
        ["acknowledged"],
        "200 means durable, 503 was not recorded"
    );
    client
        .post("/v1/runs", &body_of(&[Use::new("w", "after", 2)]))
        .await
        .expect(200);
    database(&server, "up").await;
    assert_eq!(server.metric("recents_database_up").await, 1.0);
    late.ready().await;
    assert_eq!(
        late.public.get(&path).await.expect(200).published_runs(),
        ["after", "acknowledged"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_hangs_is_an_outage_too() {
    let cluster = Cluster::start();
    // Nothing is kept, so that each read asks.
    let server = Server::with(&cluster.url, &["--cache-capacity", "0"]).await;
    let client = server.public;
    let path = list_path("w", None);
    let write = |after| async move {
        client
            .post("/v1/runs", &body_of(&[Use::new("w", "p", after)]))
            .await
    };
    write(0).await.expect(200);
    client.get(&path).await.expect(200);
    // Right after an answer: the connections are believed to be alive.
    let frozen = cluster.freeze();
    let started = Instant::now();
    let written = tokio::spawn(write(1));
    let read = client.get(&path).await.expect(503);
    assert_eq!(read.problem(), "database_unavailable");
    assert_eq!(read.header("retry-after"), Some("1"));
    let took = started.elapsed().as_secs();
    assert!(took < 15, "a client was left waiting for {took} s");
    database(&server, "down").await;
    drop(frozen);
    database(&server, "up").await;
    // Whatever became of the write that met it, the next ones are recorded.
    written.await.expect("an answer");
    write(2).await.expect(200);
    let list = client.get(&path).await.expect(200).json();
    let newest = &list["recent_workflows"][0]["last_used_at"];
    assert_eq!(*newest, Use::new("w", "p", 2).time().to_string());
}

/// A transaction whose beginning was given up must not swallow what is written on its connection afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_after_a_hang_is_durable_on_every_connection() {
    let cluster = Cluster::start();
    let db = TestDb::apart(&cluster.url).await;
    let server = Server::start(&db).await;
    let client = server.public;
    let write = |at: i64| async move {
        let uses = body_of(&[Use::new("w", &format!("p{at}"), at)]);
        client.post("/v1/runs", &uses).await
    };
    write(0).await.expect(200);
    let frozen = cluster.freeze();
    // Each begins a transaction.
    let dismissed = (0..3).map(|at| {
        let path = list_path("w", None) + &format!("/other{at}");
        tokio::spawn(async move { client.send("DELETE", &path, &[], Bytes::new()).await })
    });
    for dismissed in dismissed.collect::<Vec<_>>() {
        let answer = dismissed.await.expect("an answer").expect(503);
        assert_eq!(answer.problem(), "database_unavailable");
    }
    drop(frozen);
    database(&server, "up").await;
    // One after the other they take every connection of the pool in turn.
    let acknowledged: Vec<_> = (1..=20).collect();
    for at in &acknowledged {
        write(*at).await.expect(200);
    }
    assert_eq!(db.rows().await.len(), 1 + acknowledged.len());
}

/// Waits until the server, which stays ready, says that of its database.
async fn database(server: &Server, state: &str) {
    until(&format!("the database is {state}"), async || {
        let health = server.admin.get("/readyz").await.expect(200).json();
        (health["database"] == state).then_some(())
    })
    .await;
}
