//! A handler that panics. None of ours is known to; here are some that do, within what every listener has
//! around its routes.

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use recents::http::framed;
use recents::telemetry::Metrics;

use crate::support::raw::statuses;
use crate::support::snapshot::assert_snapshot;
use crate::support::{Backend, InProcess, TestDb};

async fn with_text() -> &'static str {
    panic!("a secret");
}

async fn with_parts() -> &'static str {
    let secret = "a secret";
    panic!("{secret} in parts");
}

async fn with_anything() -> &'static str {
    std::panic::panic_any(5);
}

#[tokio::test]
async fn a_panic_is_told_as_500_and_harms_neither_its_connection_nor_others() {
    let db = TestDb::migrated(Backend::Sqlite).await;
    let metrics = Arc::new(Metrics::new(&db.store()));
    let router = Router::new()
        .route("/text", get(with_text))
        .route("/parts", get(with_parts))
        .route("/anything", get(with_anything))
        .route("/good", get(async || "good"));
    let router = framed(router, Arc::clone(&metrics));
    let service = InProcess::serving(router).await;
    for path in ["/text", "/parts", "/anything"] {
        let answer = service.client.get(path).await.expect(500);
        assert_snapshot("panic", &answer.shown());
        assert!(!answer.text().contains("secret"), "{}", answer.text());
    }
    let get = |path, more| format!("GET {path} HTTP/1.1\r\nHost: x\r\n{more}\r\n");
    let requests = get("/text", "") + &get("/good", "Connection: close\r\n");
    assert_eq!(statuses(&service.client.raw(requests).await), [500, 200]);
    // They are counted as what they are.
    let counted = metrics.encode().expect("metrics");
    let sample =
        r#"recents_http_request_duration_seconds_count{method="GET",route="/text",status="500"} 2"#;
    assert!(counted.contains(sample), "{counted}");
}
