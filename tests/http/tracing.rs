//! Requests can be followed: ids and traces.

use serde_json::{Value, json};

use crate::support::client::list_path;
use crate::support::{Backend, Server, TestDb, both};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

async fn server() -> (TestDb, Server) {
    let db = TestDb::migrated(Backend::Sqlite).await;
    let server = Server::with(&db.url, &["--log-level", "info,recents=debug"]).await;
    (db, server)
}

#[tokio::test]
async fn a_usable_request_id_comes_back_and_any_other_is_replaced() {
    let (_db, server) = server().await;
    let path = list_path("w", None);
    let longest = "x".repeat(128);
    for id in ["abc", "7f-00/~!", &longest] {
        let answer = server.public.get_with(&path, &[("x-request-id", id)]).await;
        assert_eq!(answer.header("x-request-id"), Some(id));
        let refused = server
            .public
            .get_with("/nowhere", &[("x-request-id", id)])
            .await
            .expect(404);
        assert_eq!(refused.json()["request_id"], id);
    }
    let mut seen = Vec::new();
    let too_long = "x".repeat(129);
    for id in ["", "two words", "\"\t\"", &too_long] {
        let answer = server.public.get_with(&path, &[("x-request-id", id)]).await;
        let own = answer.header("x-request-id").expect("an id").to_owned();
        assert_ne!(own, id);
        assert!(
            own.len() == 36 && !seen.contains(&own),
            "a new id each time: {own}"
        );
        seen.push(own);
    }
    for path in ["/livez", "/readyz", "/metrics", "/openapi.json", "/nowhere"] {
        let answer = server.admin.get(path).await;
        assert!(answer.header("x-request-id").is_some(), "{path}");
    }
}

/// The log's line about the request with this id.
async fn line_of(server: &Server, id: &str) -> Value {
    let about = |event: &Value| event["message"] == "answered" && event["span"]["request_id"] == id;
    server.log.event("the request is in the log", about).await
}

#[tokio::test]
async fn a_valid_traceparent_is_continued_and_any_other_ignored() {
    let (_db, server) = server().await;
    let cases = [
        (format!("00-{TRACE}-00f067aa0ba902b7-01"), true),
        (format!("00-{TRACE}-00f067aa0ba902b7-00"), true),
        (format!("cc-{TRACE}-00f067aa0ba902b7-01-later"), true),
        (format!("00-{TRACE}-00f067aa0ba902b7-01-later"), false),
        (format!("ff-{TRACE}-00f067aa0ba902b7-01"), false),
        (
            format!("00-{}-00f067aa0ba902b7-01", TRACE.to_uppercase()),
            false,
        ),
        (format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)), false),
        (format!("00-{TRACE}-{}-01", "0".repeat(16)), false),
        (format!("00-{TRACE}-00f067aa0ba902b7"), false),
        (format!("00-{TRACE}x-00f067aa0ba902b7-01"), false),
        ("garbage".into(), false),
    ];
    for (i, (traceparent, valid)) in cases.iter().enumerate() {
        let id = format!("request-{i}");
        let headers = [("x-request-id", id.as_str()), ("traceparent", traceparent)];
        server
            .public
            .get_with(&list_path("w", None), &headers)
            .await
            .expect(200);
        let line = line_of(&server, &id).await;
        let expected = if *valid { json!(TRACE) } else { json!(null) };
        assert_eq!(
            line["span"].get("trace_id").unwrap_or(&json!(null)),
            &expected,
            "{traceparent}"
        );
    }
}

#[tokio::test]
async fn a_line_in_the_log_tells_what_was_answered_without_ids_of_users() {
    let (_db, server) = server().await;
    let path = list_path("secret-workspace", Some("secret-user"));
    server
        .public
        .get_with(&path, &[("x-request-id", "good")])
        .await
        .expect(200);
    let path = path + "?limit=0&cursor=secret-cursor";
    server
        .public
        .get_with(&path, &[("x-request-id", "bad")])
        .await
        .expect(400);
    let good = line_of(&server, "good").await;
    let bad = line_of(&server, "bad").await;
    assert_eq!(
        good["span"]["route"],
        "/v1/workspaces/{workspace}/users/{uid}/recent-workflows"
    );
    assert_eq!(
        (&good["status"], &good["span"]["method"]),
        (&json!(200), &json!("GET"))
    );
    assert!(good["micros"].is_u64());
    assert_eq!(
        (&bad["status"], &bad["problem"]),
        (&json!(400), &json!("urn:recents:problem:invalid_request"))
    );
    assert!(
        !server.log.text().contains("secret"),
        "{}",
        server.log.text()
    );
}

both!(a_failure_before_the_tables_are_there_says_to_try_again_and_the_log_names_its_request);

async fn a_failure_before_the_tables_are_there_says_to_try_again_and_the_log_names_its_request(
    db: TestDb,
) {
    let server = Server::start(&db).await;
    db.execute("drop view {recents}recent_workflows").await;
    db.execute("drop table {recents}recent_workflow").await;
    let id = [("x-request-id", "early")];
    let answer = server.public.get_with(&list_path("w", None), &id).await;
    assert!(answer.header("retry-after").is_some());
    answer.expect(503);
    let about = |event: &Value| event["request_id"] == "early";
    let line = server.log.event("the failure is logged", about).await;
    assert_eq!(line["message"], "the request failed");
    assert!(
        line["error"]
            .as_str()
            .is_some_and(|error| error.contains("recents migrate"))
    );
}
