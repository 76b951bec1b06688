//! Group commit: what arrives while a write is under way is written together by the next one.

use crate::promises::counts::own;
use crate::support::meter::Fence;
use crate::support::uses::{T0, body_of};
use crate::support::{Lock, Meter, Server, TestDb, Use, both};

both!(
    requests_that_arrive_during_a_flush_are_one_statement,
    requests_of_hot_keys_fold_to_few_rows,
);

const REQUESTS: u32 = 200;

async fn requests_that_arrive_during_a_flush_are_one_statement(db: TestDb) {
    let meter = Meter::start(&db).await;
    let client = *meter.client();
    let sent = meter.statements(Fence::Read, async || {
        let lock = Lock::take(&db).await;
        let mut requests = Vec::new();
        for i in 0..REQUESTS {
            let body = body_of(&[Use::new(&format!("w{i}"), "p", 0).by("u")]);
            requests.push(tokio::spawn(
                async move { client.post("/v1/runs", &body).await },
            ));
        }
        meter.server.queued(REQUESTS).await;
        lock.release().await;
        for request in requests {
            assert_eq!(
                request.await.expect("an answer").expect(200).json()["applied"],
                1
            );
        }
    });
    // Beside each, what names it in the session token.
    let mut sent = own(sent.await);
    sent.retain(|name| name != "position");
    assert!(sent.iter().all(|name| name == "raise"), "{sent:?}");
    assert!(
        sent.len() <= 2,
        "{REQUESTS} requests took {} statements",
        sent.len()
    );
    let rows = db.rows().await;
    let theirs = rows
        .keys()
        .filter(|(workspace, ..)| workspace != "fence")
        .count();
    assert_eq!(theirs as u32, 2 * REQUESTS);
}

async fn requests_of_hot_keys_fold_to_few_rows(db: TestDb) {
    let server = Server::start(&db).await;
    let client = server.public;
    let lock = Lock::take(&db).await;
    let mut requests = Vec::new();
    // Many more uses than a statement has keys, of one workflow.
    for i in 0..10 {
        let uses: Vec<_> = (0..900)
            .map(|j| Use::new("w", "p", i * 900 + j).by("u"))
            .collect();
        requests.push(tokio::spawn(async move {
            client.post("/v1/runs", &body_of(&uses)).await
        }));
    }
    server.queued(9_000).await;
    lock.release().await;
    let mut applied = 0;
    for request in requests {
        let answer = request.await.expect("an answer").expect(200).json();
        applied += answer["applied"].as_u64().expect("a count");
    }
    let flushes = server.metric("recents_record_flush_seconds_count").await;
    assert!(flushes <= 2.0, "uses of one key took {flushes} flushes");
    assert!(
        (1..=2).contains(&applied),
        "a use for each flush, not {applied}"
    );
    let newest: Vec<_> = db
        .rows()
        .await
        .into_values()
        .map(|(micros, _)| micros)
        .collect();
    assert_eq!(newest, [T0 + 8_999; 2], "a row in each of two lists");
}
