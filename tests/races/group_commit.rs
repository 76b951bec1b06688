//! Group commit: what arrives while a write is under way is written together by the next one.

use crate::support::meter::Fence;
use crate::support::uses::body_of;
use crate::support::{Lock, Meter, TestDb, Use, both};

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
    let sent = sent.await;
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
    let meter = Meter::start(&db).await;
    let client = *meter.client();
    let lock = Lock::take(&db).await;
    let mut requests = Vec::new();
    // More uses than a statement has keys, of one workflow.
    for i in 0..10 {
        let uses: Vec<_> = (0..900)
            .map(|j| Use::new("w", "p", i * 900 + j).by("u"))
            .collect();
        requests.push(tokio::spawn(async move {
            client.post("/v1/runs", &body_of(&uses)).await
        }));
    }
    meter.server.queued(9_000).await;
    lock.release().await;
    let mut applied = 0;
    for request in requests {
        applied += request.await.expect("an answer").expect(200).json()["applied"]
            .as_u64()
            .expect("a count");
    }
    // Two flushes at the most, and only the newest use of each changes the list.
    assert!(
        (1..=2).contains(&applied),
        "{applied} of 9,000 uses of one key applied"
    );
    let mut rows = db.rows().await;
    rows.retain(|(workspace, ..), _| workspace == "w");
    let newest: Vec<_> = rows.into_values().map(|(micros, _)| micros).collect();
    assert_eq!(
        newest,
        [Use::new("w", "p", 8_999).micros; 2],
        "a row in each of two lists"
    );
}
