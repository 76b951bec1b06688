//! Jobs: one worker at a time, whatever happens to it, and operators who see and stop it.

mod alone;
mod command;
mod listed;
mod live;
mod mended;
mod operated;
mod pruned;
mod requests;
mod settling;
mod takeover;
mod throttled;
mod unmappable;

use serde_json::{Value, json};

use crate::support::client::Answer;
use crate::support::{Server, TestDb, until};

/// Posts to the admin listener, with nothing to say.
pub(crate) async fn post(server: &Server, path: &str) -> Answer {
    let nothing = hyper::body::Bytes::new();
    server.admin.send("POST", path, &[], nothing).await
}

/// Posts JSON to the admin listener.
pub(crate) async fn post_json(server: &Server, path: &str, body: &Value) -> Answer {
    server.admin.post(path, body).await
}

/// Asks for a re-sync with an idempotency key.
pub(crate) async fn post_with_key(server: &Server, key: &str, body: &Value) -> Answer {
    let headers = [
        ("content-type", "application/json"),
        ("idempotency-key", key),
    ];
    let path = "/admin/v1/resyncs";
    server
        .admin
        .send("POST", path, &headers, body.to_string().into())
        .await
}

/// A job, as the admin listener tells it.
async fn job(server: &Server, id: &str) -> Value {
    let path = format!("/admin/v1/jobs/{id}");
    server.admin.get(&path).await.expect(200).json()
}

/// Waits until a job is in this state.
pub(crate) async fn reaches(server: &Server, id: &str, state: &str) -> Value {
    until(&format!("the job is {state}"), async || {
        let job = job(server, id).await;
        let is_over = ["succeeded", "failed", "cancelled"].map(Value::from);
        assert!(
            job["state"] == state || !is_over.contains(&job["state"]),
            "the job is over: {job}"
        );
        (job["state"] == state).then_some(job)
    })
    .await
}

/// A statement that inserts a job, `NULL` where a column is not named.
pub(crate) fn insert(id: &str, columns: &Value) -> String {
    let mut row = json!({"id": id, "kind": "resync", "source": "x", "state": "succeeded"});
    let object = row.as_object_mut().expect("an object");
    object.extend(columns.as_object().expect("an object").clone());
    let value = |value: &Value| match value {
        Value::String(text) if text.starts_with('=') => text[1..].to_owned(),
        Value::String(text) => format!("'{text}'"),
        other => other.to_string(),
    };
    object.entry("started_at").or_insert(json!("={ago:60}"));
    let names: Vec<_> = object.keys().cloned().collect();
    let values: Vec<_> = object.values().map(value).collect();
    format!(
        "insert into {{recents}}job ({}) values ({})",
        names.join(", "),
        values.join(", ")
    )
}

/// Runs a statement, in which `{ago:N}` is the time so many seconds ago.
pub(crate) async fn execute(db: &TestDb, sql: &str) -> Result<(), sqlx::Error> {
    let mut text = sql.to_owned();
    while let Some((before, rest)) = text.split_once("{ago:") {
        let (seconds, after) = rest.split_once('}').expect("a number of seconds");
        let time = match db.backend {
            crate::support::Backend::Postgres => format!("now() - {seconds} * interval '1 second'"),
            crate::support::Backend::Sqlite => format!("(unixepoch() - {seconds}) * 1000000"),
        };
        text = format!("{before}{time}{after}");
    }
    db.connect().await.try_execute(&text).await
}
