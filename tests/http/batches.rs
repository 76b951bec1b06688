//! Several lists at once.

use serde_json::json;

use crate::support::client::{list_path, published_runs};
use crate::support::snapshot::{assert_snapshot, places, sections};
use crate::support::uses::body_of;
use crate::support::{Server, TestDb, Use, both};

const BATCH: &str = "/v1/recent-workflows/batch";

both!(
    a_batch_is_answered_in_order_as_each_list_alone,
    bad_batches_are_named,
);

async fn a_batch_is_answered_in_order_as_each_list_alone(db: TestDb) {
    let server = Server::start(&db).await;
    let uses: Vec<_> = (0..300)
        .map(|i| Use::new(&format!("w{}", i % 30), &format!("p{i}"), i).by(&format!("u{}", i % 2)))
        .collect();
    server
        .public
        .post("/v1/runs", &body_of(&uses))
        .await
        .expect(200);
    // In no order, with one twice and some never seen.
    let scope = |i: usize| match i % 3 {
        0 => json!({"workspace": format!("w{}", 40 - i % 41)}),
        1 => json!({"workspace": format!("w{}", i % 30), "uid": "u1"}),
        _ => json!({"workspace": "w7", "uid": null}),
    };
    for count in [0, 1, 2, 10, 11, 100] {
        let scopes: Vec<_> = (0..count).map(scope).collect();
        let body = json!({"scopes": scopes, "limit": 3, "expand": ["details"]});
        let answer = server.public.post(BATCH, &body).await.expect(200);
        assert_eq!(answer.header("cache-control"), Some("private, no-cache"));
        let answer = answer.json();
        let lists = answer["lists"].as_array().expect("lists");
        assert_eq!(lists.len(), count);
        for (scope, list) in scopes.iter().zip(lists) {
            let uid = scope["uid"].as_str().filter(|uid| !uid.is_empty());
            assert_eq!(list["workspace"], scope["workspace"]);
            assert_eq!(list.get("uid").and_then(|uid| uid.as_str()), uid);
            let path = list_path(scope["workspace"].as_str().expect("text"), uid) + "?limit=3";
            let alone = server.public.get(&path).await.expect(200);
            assert_eq!(published_runs(list), alone.published_runs());
            assert_eq!(list["recent_workflows"], alone.json()["recent_workflows"]);
        }
    }
}

async fn bad_batches_are_named(db: TestDb) {
    let server = Server::start(&db).await;
    let one = json!([{"workspace": "w"}]);
    let bodies = [
        ("no scopes", json!({})),
        ("scopes null", json!({"scopes": null})),
        ("scopes no array", json!({"scopes": "w"})),
        (
            "101 scopes",
            json!({"scopes": vec![json!({"workspace": "w"}); 101]}),
        ),
        (
            "bad scopes",
            json!({"scopes": ["w", {}, {"workspace": "a\0"}, {"workspace": "w", "uid": 1.5}, {"workspace": "w", "uid": ""}, {"workspace": "w", "user": "u"}]}),
        ),
        ("limit 0", json!({"scopes": one, "limit": 0})),
        ("limit 101", json!({"scopes": one, "limit": 101})),
        ("limit 1.5", json!({"scopes": one, "limit": 1.5})),
        ("limit as text", json!({"scopes": one, "limit": "4"})),
        (
            "expand unknown",
            json!({"scopes": one, "expand": ["details", "all"]}),
        ),
        (
            "expand as text",
            json!({"scopes": one, "expand": "details"}),
        ),
        ("unknown field", json!({"scopes": one, "cursor": "x"})),
        ("an array", json!([])),
    ];
    let mut answers = Vec::new();
    for (what, body) in bodies {
        answers.push((
            what,
            places(&server.public.post(BATCH, &body).await.expect(400)),
        ));
    }
    assert_snapshot("invalid_batches", &sections(answers));
}
