//! How many statements a request costs: one, however much it asks for. Counted by the driver's log.

use hyper::body::Bytes;
use serde_json::{Value, json};

use crate::support::client::list_path;
use crate::support::meter::Fence;
use crate::support::uses::body_of;
use crate::support::{Backend, Meter, TestDb, Use, both};

const BATCH: &str = "/v1/recent-workflows/batch";

both!(
    a_batch_of_any_number_of_scopes_is_one_statement,
    a_post_of_any_number_of_runs_is_one_statement,
    a_list_is_one_statement_and_what_is_refused_none,
    the_meter_sees_a_loop,
);

/// Without the beginnings and ends of transactions, which the driver names in its own way.
pub(crate) fn own(mut sent: Vec<String>) -> Vec<String> {
    sent.retain(|name| {
        !name.to_lowercase().starts_with("begin") && !name.to_lowercase().starts_with("commit")
    });
    sent
}

fn runs(count: i64) -> Value {
    let usage = |i| {
        Use::new(&format!("w{i}"), &format!("p{}", i % 90), i)
            .by(&format!("u{i}"))
            .run("r")
    };
    body_of(&(0..count).map(usage).collect::<Vec<_>>())
}

fn scopes(count: usize) -> Value {
    let scope = |i| json!({"workspace": format!("w{i}"), "uid": format!("u{i}")});
    json!({"scopes": (0..count).map(scope).collect::<Vec<_>>(), "limit": 100})
}

async fn a_batch_of_any_number_of_scopes_is_one_statement(db: TestDb) {
    let meter = Meter::start(&db).await;
    meter
        .client()
        .post("/v1/runs", &runs(1_000))
        .await
        .expect(200);
    for (count, statement) in [(1, "read_1"), (10, "read_16"), (100, "read_100")] {
        let fence = Fence::Write;
        let sent = meter.statements(fence, async || {
            let answer = meter
                .client()
                .post(BATCH, &scopes(count))
                .await
                .expect(200)
                .json();
            let lists = answer["lists"].as_array().expect("lists");
            assert!(
                lists
                    .iter()
                    .all(|list| list["recent_workflows"].as_array().map(Vec::len) == Some(1))
            );
            assert_eq!(lists.len(), count);
        });
        assert_eq!(sent.await, [statement], "{count} scopes");
    }
}

async fn a_post_of_any_number_of_runs_is_one_statement(db: TestDb) {
    let meter = Meter::start(&db).await;
    for count in [1, 100, 1_000] {
        let sent = meter.statements(Fence::Read, async || {
            let answer = meter
                .client()
                .post("/v1/runs", &runs(count))
                .await
                .expect(200)
                .json();
            let sum: i64 = ["applied", "superseded"]
                .iter()
                .filter_map(|name| answer[name].as_i64())
                .sum();
            assert_eq!(sum, count);
        });
        let expected: &[&str] = match db.backend {
            // Without a replica, its session token needs no position behind the commit.
            Backend::Postgres => &["raise"],
            // Changes are counted in the transaction that makes them.
            Backend::Sqlite => &["position", "raise", "position", "position"],
        };
        assert_eq!(own(sent.await), expected, "{count} runs");
    }
}

async fn a_list_is_one_statement_and_what_is_refused_none(db: TestDb) {
    let meter = Meter::start(&db).await;
    meter
        .client()
        .post("/v1/runs", &runs(1_000))
        .await
        .expect(200);
    let path = list_path("w1", Some("u1"));
    let lists = [
        path.clone(),
        list_path("never", None),
        path.clone() + "?limit=100",
    ];
    for path in lists {
        let sent = meter.statements(Fence::Write, async || {
            drop(meter.client().get(&path).await.expect(200))
        });
        assert_eq!(sent.await, ["read_1"], "{path}");
    }
    let sent = meter.statements(Fence::Write, async || {
        let client = meter.client();
        client.get(&(path + "?limit=0")).await.expect(400);
        client.post(BATCH, &scopes(101)).await.expect(400);
        client.post(BATCH, &scopes(0)).await.expect(200);
        client
            .send("PUT", BATCH, &[], Bytes::new())
            .await
            .expect(405);
    });
    assert_eq!(sent.await, Vec::<String>::new());
    let sent = meter.statements(Fence::Read, async || {
        meter
            .client()
            .post("/v1/runs", &json!({"runs": [{"workspace": "w"}]}))
            .await
            .expect(400);
        let skipped = json!({"runs": [{"workspace": "w", "published_run": null}]});
        meter.client().post("/v1/runs", &skipped).await.expect(200);
    });
    // What is skipped writes nothing; in SQLite the position of now names it.
    let expected: &[&str] = match db.backend {
        Backend::Postgres => &[],
        Backend::Sqlite => &["position"],
    };
    assert_eq!(sent.await, expected);
}

/// The control of the tests above: the same work, item by item, is as many statements.
async fn the_meter_sees_a_loop(db: TestDb) {
    let meter = Meter::start(&db).await;
    let reads = meter.statements(Fence::Write, async || {
        for i in 0..10 {
            meter
                .client()
                .get(&list_path(&format!("w{i}"), None))
                .await
                .expect(200);
        }
    });
    assert_eq!(reads.await, ["read_1"; 10]);
    let writes = meter.statements(Fence::Read, async || {
        for i in 0..10 {
            let body = body_of(&[Use::new(&format!("w{i}"), "p", 0).by("u")]);
            meter.client().post("/v1/runs", &body).await.expect(200);
        }
    });
    let writes = own(writes.await);
    assert_eq!(writes.iter().filter(|name| *name == "raise").count(), 10);
}
