//! The description of the API says what the server does.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::settings::changed::patch;
use crate::support::client::Answer;
use crate::support::{Backend, Server, TestDb};

async fn server() -> (TestDb, Server, Value) {
    let db = TestDb::migrated(Backend::Sqlite).await;
    let server = Server::start(&db).await;
    let description = server.admin.get("/openapi.json").await.expect(200).json();
    (db, server, description)
}

fn codes(answer: &Answer) -> Vec<String> {
    let document = answer.json();
    let errors = document["errors"].as_array().expect("invalid places");
    let code = |error: &Value| error["code"].as_str().expect("a code").to_owned();
    errors.iter().map(code).collect()
}

#[tokio::test]
async fn the_codes_of_invalid_places_are_those_that_are_listed() {
    let (_db, server, description) = server().await;
    let listed = &description["components"]["schemas"]["FieldCode"]["enum"];
    let listed: BTreeSet<String> =
        serde_json::from_value(listed.clone()).expect("the list of codes");

    let run = |fields: Value| {
        let mut run = json!({"workspace": "w", "published_run": "p"});
        let fields = fields.as_object().expect("fields").clone();
        run.as_object_mut().expect("a run").extend(fields);
        run
    };
    let runs = json!({"runs": [
        run(json!({"workspace": ""})),
        run(json!({"workspace": "x".repeat(129)})),
        run(json!({"workspace": "\u{7}"})),
        run(json!({"workspace": ".."})),
        run(json!({"workspace": true})),
        run(json!({"workspace": null})),
        run(json!({"more": 1})),
        run(json!({"last_used_at": "yesterday"})),
        run(json!({"last_used_at": "1969-01-01T00:00:00Z"})),
        run(json!({"last_used_at": "9999-01-01T00:00:00Z"})),
    ]});
    let lists = "/v1/workspaces/w/recent-workflows";
    let batch = json!({"scopes": vec![json!({"workspace": "w"}); 101]});
    let broken = "POST /v1/runs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
                  Transfer-Encoding: chunked\r\nConnection: close\r\n\r\nnot a chunk\r\n";
    let broken = server.public.raw(broken).await;
    let (_, document) = broken.split_once("\r\n\r\n").expect("a body");
    let document: Value = serde_json::from_str(document).expect("a document");
    let broken = document["errors"][0]["code"].as_str().expect("a code");

    let mut seen = BTreeSet::from([broken.to_owned()]);
    for answer in [
        server.public.post("/v1/runs", &runs).await,
        server.public.post("/v1/runs", &json!({"runs": []})).await,
        server.public.post_text("/v1/runs", "{").await,
        server
            .public
            .post("/v1/recent-workflows/batch", &batch)
            .await,
        server
            .public
            .get(&format!("{lists}?limit=0&cursor=x&expand=x&y=1&limit=2"))
            .await,
        server
            .public
            .get("/v1/workspaces/%FF/recent-workflows")
            .await,
        server.public.get("/v1/workspaces/%/recent-workflows").await,
        server
            .public
            .get_with(lists, &[("recents-session-token", "made-up")])
            .await,
        server
            .admin
            .post("/admin/v1/cache/invalidate", &json!({}))
            .await,
        server.admin.get("/admin/v1/jobs?state=lost").await,
        server
            .admin
            .send(
                "POST",
                "/admin/v1/resyncs",
                &[
                    ("content-type", "application/json"),
                    ("idempotency-key", ""),
                ],
                json!({"workspace": "5", "all": true, "mode": "other"})
                    .to_string()
                    .into(),
            )
            .await,
        server
            .admin
            .send(
                "PATCH",
                "/admin/v1/settings",
                &[("content-type", "application/json")],
                json!({"read_path": "elsewhere"}).to_string().into(),
            )
            .await,
        patch(&server, &json!({"read_path": "history"})).await,
    ] {
        seen.extend(codes(&answer.expect(400)));
    }
    assert_eq!(seen, listed);
}

/// Whether a value is what a schema says, as far as ids go.
fn is_described(whole: &Value, schema: &Value, value: &Value) -> bool {
    if let Some(target) = schema["$ref"].as_str() {
        let pointer = target.strip_prefix('#').expect("within the document");
        return is_described(whole, whole.pointer(pointer).expect("it is there"), value);
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let fitting = choices.iter().filter(|one| is_described(whole, one, value));
        return fitting.count() == 1;
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let kinds = match &schema["type"] {
        Value::Array(kinds) => kinds.clone(),
        one => vec![one.clone()],
    };
    let length = value.as_str().map_or(1, |text| text.chars().count());
    let within = |name: &str, of: fn(u64, u64) -> bool| {
        schema[name]
            .as_u64()
            .is_none_or(|limit| of(length as u64, limit))
    };
    let in_range = |number: &Value| {
        let number = number
            .as_i64()
            .map_or(i128::from(number.as_u64().unwrap_or(0)), i128::from);
        let limit = |name: &str| {
            let limit = &schema[name];
            limit
                .as_i64()
                .map(i128::from)
                .or(limit.as_u64().map(i128::from))
        };
        limit("minimum").is_none_or(|least| number >= least)
            && limit("maximum").is_none_or(|most| number <= most)
    };
    kinds.contains(&kind.into())
        && within("minLength", |length, limit| length >= limit)
        && within("maxLength", |length, limit| length <= limit)
        && (kind != "integer" || in_range(value))
}

#[tokio::test]
async fn ids_are_accepted_as_they_are_described() {
    let (_db, server, description) = server().await;
    let properties = |name: &str| description["components"]["schemas"][name]["properties"].clone();
    let values = [
        json!("x"),
        json!("5"),
        json!(5),
        json!(-5),
        json!(i64::MIN),
        json!(u64::MAX),
        json!(1.5),
        json!(1e300),
        json!(true),
        json!([]),
        json!({}),
        json!(null),
        json!(""),
        json!("x".repeat(128)),
        json!("x".repeat(129)),
    ];
    for field in ["workspace", "published_run", "uid", "run"] {
        let schema = &properties("RunItem")[field];
        for value in &values {
            let mut run = json!({"workspace": "w", "published_run": "p"});
            run[field] = value.clone();
            let answer = server
                .public
                .post("/v1/runs", &json!({"runs": [run]}))
                .await;
            let accepted = answer.status == 200;
            assert_eq!(
                accepted,
                is_described(&description, schema, value),
                "{field}: {value}: {}",
                answer.text()
            );
        }
    }
    for field in ["workspace", "uid"] {
        let schema = &properties("BatchScope")[field];
        for value in &values {
            let mut scope = json!({"workspace": "w"});
            scope[field] = value.clone();
            let batch = json!({"scopes": [scope]});
            let answer = server
                .public
                .post("/v1/recent-workflows/batch", &batch)
                .await;
            let accepted = answer.status == 200;
            assert_eq!(
                accepted,
                is_described(&description, schema, value),
                "{field}: {value}: {}",
                answer.text()
            );
        }
    }
    for (schema, required) in [
        ("RunItem", json!(["workspace", "published_run"])),
        ("BatchScope", json!(["workspace"])),
        ("SettingsChange", Value::Null),
        ("ResyncRequest", Value::Null),
        ("InvalidateRequest", Value::Null),
    ] {
        let schema = &description["components"]["schemas"][schema];
        assert_eq!(schema["required"], required);
        assert_eq!(schema["additionalProperties"], false);
    }
}
