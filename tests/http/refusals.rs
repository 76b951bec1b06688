//! Invalid runs: each place is named, and nothing is changed.

use serde_json::{Value, json};

use crate::support::snapshot::{assert_snapshot, places, sections};
use crate::support::{Server, TestDb, both};

both!(
    every_invalid_field_is_named_and_nothing_is_changed,
    every_invalid_body_is_named,
    one_invalid_item_rejects_the_batch_and_every_invalid_item_is_named,
    a_problem_document_has_all_its_parts,
);

fn with(field: &str, value: Value) -> Value {
    let mut run = json!({"workspace": "w", "published_run": "p", "run": "r", "uid": "u"});
    run[field] = value;
    json!({"runs": [run]})
}

async fn every_invalid_field_is_named_and_nothing_is_changed(db: TestDb) {
    let server = Server::start(&db).await;
    let long = "é".repeat(64) + "x";
    let mut sent = Vec::new();
    for field in ["workspace", "published_run", "uid", "run"] {
        for (what, value) in [
            ("of 129 bytes", json!(long)),
            ("with NUL", json!("a\0b")),
            ("with a line feed", json!("a\n")),
            ("with DEL", json!("\u{7f}")),
            ("with U+0085", json!("a\u{85}b")),
            (".", json!(".")),
            ("..", json!("..")),
            ("a float", json!(5.0)),
            ("a great float", json!(1e300)),
            ("true", json!(true)),
            ("an array", json!(["w"])),
            ("an object", json!({})),
        ] {
            sent.push((format!("{field} {what}"), with(field, value)));
        }
    }
    for field in ["workspace", "published_run", "run"] {
        sent.push((format!("{field} empty"), with(field, json!(""))));
    }
    for (what, value) in [
        ("not a time", json!("yesterday")),
        ("without an offset", json!("2026-11-20T10:00:00")),
        ("as SQL writes it", json!("2026-11-20 10:00:00+00")),
        ("a number", json!(1_700_000_000)),
        ("on 30 February", json!("2024-02-30T00:00:00Z")),
        ("before 1970", json!("1969-12-31T23:59:59.999999Z")),
        (
            "before 1970 by its offset",
            json!("1970-01-01T00:59:59+01:00"),
        ),
        ("after 9999", json!("9999-12-31T23:59:59-00:01")),
        ("in the year 10000", json!("10000-01-01T00:00:00Z")),
        ("far in the future", json!("9999-12-31T23:59:59Z")),
    ] {
        sent.push((format!("last_used_at {what}"), with("last_used_at", value)));
    }
    let mut answers = Vec::new();
    for (what, body) in &sent {
        let answer = server.public.post("/v1/runs", body).await.expect(400);
        answers.push((what.as_str(), places(&answer)));
    }
    assert_snapshot("invalid_fields", &sections(answers));
    assert_eq!(db.rows().await.len(), 0, "a refused batch changes nothing");
}

async fn every_invalid_body_is_named(db: TestDb) {
    let server = Server::start(&db).await;
    let runs = |count: usize| json!({"runs": vec![json!({"workspace": "w", "published_run": "p"}); count]});
    let bodies = [
        ("no JSON", "runs".into()),
        ("nothing", String::new()),
        ("half a body", r#"{"runs":["#.into()),
        ("two bodies", "{} {}".into()),
        (
            "half a surrogate pair",
            r#"{"runs":[{"workspace":"\ud800","published_run":"p"}]}"#.into(),
        ),
        (
            "an integer of 65 bits",
            r#"{"runs":[{"workspace":18446744073709551616,"published_run":"p"}]}"#.into(),
        ),
        ("nested a million deep", "[".repeat(1_000_000)),
        ("an array", "[]".into()),
        ("no runs", "{}".into()),
        ("runs null", r#"{"runs":null}"#.into()),
        ("runs no array", r#"{"runs":{}}"#.into()),
        ("no items", runs(0).to_string()),
        ("1,001 items", runs(1_001).to_string()),
        ("an item that is no object", r#"{"runs":["w"]}"#.into()),
        (
            "unknown fields",
            r#"{"runs":[{"workspace":"w","published_run":"p","a/b~c":1,"5 % é":2}],"dry_run":true}"#.into(),
        ),
        ("an item without anything", r#"{"runs":[{}]}"#.into()),
    ];
    let mut answers = Vec::new();
    for (what, body) in bodies {
        let answer = server.public.post_text("/v1/runs", body).await.expect(400);
        answers.push((what, places(&answer)));
    }
    let not_utf8 = b"{\"runs\":[{\"workspace\":\"\xff\",\"published_run\":\"p\"}]}".as_slice();
    answers.push((
        "not UTF-8",
        places(
            &server
                .public
                .post_text("/v1/runs", not_utf8)
                .await
                .expect(400),
        ),
    ));
    assert_snapshot("invalid_bodies", &sections(answers));
    assert_eq!(db.rows().await.len(), 0, "a refused batch changes nothing");
    server
        .public
        .post("/v1/runs", &runs(1_000))
        .await
        .expect(200);
}

async fn one_invalid_item_rejects_the_batch_and_every_invalid_item_is_named(db: TestDb) {
    let server = Server::start(&db).await;
    let mut runs = vec![json!({"workspace": "w", "published_run": "p"}); 1_000];
    runs[0]["uid"] = json!(1.5);
    runs[500]["last_used_at"] = json!("9000-01-01T00:00:00Z");
    runs[999]["workspace"] = json!("");
    runs[999]["run"] = json!("..");
    let answer = server
        .public
        .post("/v1/runs", &json!({"runs": runs}))
        .await
        .expect(400);
    let document = answer.json();
    let errors = document["errors"].as_array().expect("errors");
    let named: Vec<_> = errors
        .iter()
        .map(|e| (e["pointer"].as_str(), e["code"].as_str()))
        .collect();
    let expected = [
        ("#/runs/0/uid", "wrong_type"),
        ("#/runs/500/last_used_at", "in_future"),
        ("#/runs/999/workspace", "empty"),
        ("#/runs/999/run", "dots"),
    ];
    assert_eq!(
        named,
        expected.map(|(pointer, code)| (Some(pointer), Some(code)))
    );
    assert_eq!(db.rows().await.len(), 0, "all or nothing");
}

async fn a_problem_document_has_all_its_parts(db: TestDb) {
    let server = Server::start(&db).await;
    let answer = server
        .public
        .post("/v1/runs", &json!({"runs": [{"workspace": 1.5}]}))
        .await;
    assert_snapshot("problem", &answer.shown());
    assert_eq!(
        answer.json()["request_id"].as_str(),
        answer.header("x-request-id")
    );
}
