//! A stop loses nothing that was taken.

use std::time::Instant;

use crate::support::uses::body_of;
use crate::support::{Lock, Server, TestDb, Use, both};

both!(
    what_was_taken_before_a_stop_is_in_the_table,
    a_stop_does_not_wait_longer_than_its_grace_period,
    an_idle_server_stops_at_once,
    a_client_that_stalls_is_broken_off_and_is_no_failure,
);

async fn what_was_taken_before_a_stop_is_in_the_table(db: TestDb) {
    let mut server = Server::start(&db).await;
    let client = server.public;
    let lock = Lock::take(&db).await;
    let mut requests = Vec::new();
    for i in 0..20 {
        let body = body_of(&[Use::new("w", &format!("p{i}"), 0)]);
        requests.push(tokio::spawn(async move {
            client.post("/v1/runs", &body).await.status
        }));
    }
    server.queued(20).await;
    // One more, whose client does not wait.
    let body = body_of(&[Use::new("w", "went away", 0)]).to_string();
    let head = "POST /v1/runs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
    let stream = client
        .open(format!(
            "{head}Content-Length: {}\r\n\r\n{body}",
            body.len()
        ))
        .await;
    server.queued(21).await;
    drop(stream);

    server.terminate();
    server
        .log
        .message("stopping: requests under way may end, what is queued will be written")
        .await;
    lock.release().await;
    for request in requests {
        assert_eq!(request.await.expect("an answer"), 200);
    }
    assert_eq!(
        server.ended().await.code(),
        Some(0),
        "{}",
        server.log.text()
    );
    assert_eq!(db.rows().await.len(), 21);
}

async fn a_stop_does_not_wait_longer_than_its_grace_period(db: TestDb) {
    let mut server = Server::with(&db.url, &["--shutdown-grace", "1s"]).await;
    let client = server.public;
    let lock = Lock::take(&db).await;
    let request = tokio::spawn(async move {
        let body = body_of(&[Use::new("w", "p", 0)]).to_string();
        let headers = [("content-type", "application/json")];
        client
            .try_send("POST", "/v1/runs", &headers, body.into())
            .await
            .map(|a| a.status)
            .ok()
    });
    server.queued(1).await;
    let started = Instant::now();
    server.terminate();
    assert_eq!(
        server.ended().await.code(),
        Some(1),
        "{}",
        server.log.text()
    );
    let took = started.elapsed().as_secs_f64();
    assert!((1.0..4.0).contains(&took), "it had 1 s, and took {took} s");
    let last = server.log.lines().pop().expect("a last line");
    assert_eq!(
        last,
        "recents: queued uses could not be written within the grace period"
    );
    assert_ne!(
        request.await.expect("an outcome"),
        Some(hyper::StatusCode::OK),
        "not durable, not 200"
    );
    lock.release().await;
}

async fn an_idle_server_stops_at_once(db: TestDb) {
    let mut server = Server::start(&db).await;
    // Connections that rest hold nothing up.
    let resting = server.public.open("").await;
    let started = Instant::now();
    server.terminate();
    assert_eq!(
        server.ended().await.code(),
        Some(0),
        "{}",
        server.log.text()
    );
    assert!(
        started.elapsed().as_secs() < 5,
        "it had nothing to wait for"
    );
    drop(resting);
}

async fn a_client_that_stalls_is_broken_off_and_is_no_failure(db: TestDb) {
    let mut server = Server::with(&db.url, &["--shutdown-grace", "1s"]).await;
    let head = "POST /v1/runs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
    let _stalled = server
        .public
        .open(format!("{head}Content-Length: 100\r\n\r\n{{"))
        .await;
    let body = body_of(&[Use::new("w", "p", 0)]);
    server.public.post("/v1/runs", &body).await.expect(200);
    server.terminate();
    let code = server.ended().await.code();
    assert_eq!(code, Some(0), "{}", server.log.text());
}
