//! Clients that go away.

use crate::support::uses::body_of;
use crate::support::{Lock, Server, TestDb, Use, both, until};

both!(the_uses_of_a_client_that_went_away_are_recorded);

async fn the_uses_of_a_client_that_went_away_are_recorded(db: TestDb) {
    let server = Server::with(&db.url, &["--log-level", "info,recents::http=debug"]).await;
    let lock = Lock::take(&db).await;
    let body = body_of(&[Use::new("w", "p", 0).by("u"), Use::new("w", "q", 0)]).to_string();
    let head = "POST /v1/runs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
    let stream = server
        .public
        .open(format!(
            "{head}Content-Length: {}\r\n\r\n{body}",
            body.len()
        ))
        .await;
    server.queued(2).await;
    drop(stream);
    // Nobody waits for the answer any more.
    server.log.message("a connection broke").await;
    lock.release().await;
    until("the uses are in the table", async || {
        (db.rows().await.len() == 3).then_some(())
    })
    .await;
    server.queued(0).await;
}
