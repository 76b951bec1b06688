//! Clients that go away.

use crate::support::uses::body_of;
use crate::support::{Lock, Server, TestDb, Use, both, until};

both!(the_uses_of_a_client_that_went_away_are_recorded);

async fn the_uses_of_a_client_that_went_away_are_recorded(db: TestDb) {
    let server = Server::with(&db.url, &["--log-level", "info,recents::http=debug"]).await;
    let lock = Lock::take(&db).await;
    // One leaves while its uses are being written, one while they are queued.
    let mut streams = Vec::new();
    for (i, queued) in [("1", 2), ("2", 4)] {
        let body = body_of(&[Use::new(i, "p", 0).by("u"), Use::new(i, "q", 0)]).to_string();
        let head = "POST /v1/runs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
        let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
        streams.push(server.public.open(request).await);
        server.queued(queued).await;
    }
    drop(streams);
    until("the server noticed", async || {
        let events = server.log.events();
        let broken = events
            .iter()
            .filter(|event| event["message"] == "a connection broke");
        (broken.count() == 2).then_some(())
    })
    .await;
    lock.release().await;
    until("the uses are in the table", async || {
        (db.rows().await.len() == 6).then_some(())
    })
    .await;
    server.queued(0).await;
}
