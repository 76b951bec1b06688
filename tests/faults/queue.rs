//! A queue that is full says so, and nothing that it took is lost.

use crate::support::client::list_path;
use crate::support::uses::body_of;
use crate::support::{Lock, Server, TestDb, Use, both};

both!(a_full_queue_answers_503_and_what_it_took_is_written);

async fn a_full_queue_answers_503_and_what_it_took_is_written(db: TestDb) {
    let server = Server::start(&db).await;
    let client = server.public;
    client
        .post("/v1/runs", &body_of(&[Use::new("w", "before", 0)]))
        .await
        .expect(200);
    let lock = Lock::take(&db).await;
    let body = |i: usize| {
        body_of(
            &(0..1_000)
                .map(|j| Use::new("w", &format!("p{i}-{j}"), 1))
                .collect::<Vec<_>>(),
        )
    };
    let mut taken = Vec::new();
    for i in 0..10 {
        taken.push(tokio::spawn(async move {
            client.post("/v1/runs", &body(i)).await.status
        }));
    }
    server.queued(10_000).await;

    let refused = client
        .post("/v1/runs", &body_of(&[Use::new("w", "refused", 1)]))
        .await
        .expect(503);
    assert_eq!(refused.problem(), "queue_full");
    assert_eq!(refused.header("retry-after"), Some("1"));
    let list = client.get(&list_path("w", None)).await.expect(200);
    assert_eq!(list.published_runs(), ["before"], "reads go on");

    lock.release().await;
    for request in taken {
        assert_eq!(request.await.expect("an answer"), 200);
    }
    let rows = db.rows().await;
    assert_eq!(rows.len(), 10_001);
    assert!(
        !rows
            .keys()
            .any(|(_, _, published_run)| published_run == "refused")
    );
    server.queued(0).await;
    client
        .post("/v1/runs", &body_of(&[Use::new("w", "refused", 1)]))
        .await
        .expect(200);
}
