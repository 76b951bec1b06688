//! Metrics: all there from the start, in OpenMetrics text, without anybody's ids.

use std::collections::BTreeSet;

use hyper::body::Bytes;
use serde_json::json;

use crate::support::client::list_path;
use crate::support::uses::body_of;
use crate::support::{Server, TestDb, Use, both};

both!(
    every_metric_is_there_before_the_first_request,
    counts_say_what_happened,
    no_metric_names_an_id,
);

async fn every_metric_is_there_before_the_first_request(db: TestDb) {
    let server = Server::start(&db).await;
    let answer = server.admin.get("/metrics").await.expect(200);
    let kind = answer.header("content-type").expect("a type");
    assert!(
        kind.starts_with("application/openmetrics-text; version=1.0.0"),
        "{kind}"
    );
    let text = answer.text();
    assert!(text.ends_with("# EOF\n"), "OpenMetrics text ends so");
    for sample in [
        r#"http_request_duration_seconds_count{method="POST",route="/v1/runs",status="200"}"#,
        r#"http_request_duration_seconds_count{method="GET",route="/v1/workspaces/{workspace}/recent-workflows",status="200"}"#,
        r#"runs_total{source="hook",outcome="applied"}"#,
        r#"runs_total{source="hook",outcome="superseded"}"#,
        r#"runs_total{source="hook",outcome="skipped"}"#,
        r#"runs_total{source="hook",outcome="rejected"}"#,
        r#"runs_total{source="resync",outcome="applied"}"#,
        r#"job_rows_total{kind="backfill"}"#,
        r#"job_rows_total{kind="resync"}"#,
        "record_flush_seconds_count",
        "record_batch_rows_count",
        "record_queue_depth",
        "backfill_last_success_timestamp_seconds",
        r#"read_path{mode="materialized"}"#,
        r#"read_path{mode="shadow"}"#,
        r#"read_path{mode="history"}"#,
        "details_failures_total",
        r#"db_statements_total{statement="details"}"#,
        "database_up",
        r#"db_pool_connections{state="idle"}"#,
        r#"db_pool_connections{state="used"}"#,
        r#"db_statements_total{statement="raise"}"#,
        r#"db_statements_total{statement="read_1"}"#,
    ] {
        let line = format!("recents_{sample} ");
        assert!(
            text.lines().any(|l| l.starts_with(&line)),
            "{sample} is missing in:\n{text}"
        );
    }
    let build = format!(
        "recents_build_info{{version=\"{}\"}} 1",
        env!("CARGO_PKG_VERSION")
    );
    assert!(text.lines().any(|line| line == build), "{text}");
}

async fn counts_say_what_happened(db: TestDb) {
    let server = Server::start(&db).await;
    let uses = [
        Use::new("w", "p", 1),
        Use::new("w", "p", 2),
        Use::new("w", "q", 1),
    ];
    let mut runs = body_of(&uses);
    runs["runs"]
        .as_array_mut()
        .expect("runs")
        .push(json!({"workspace": "w", "published_run": null}));
    server.public.post("/v1/runs", &runs).await.expect(200);
    runs["runs"][0]["workspace"] = json!(1.5);
    server.public.post("/v1/runs", &runs).await.expect(400);
    let outcomes = [
        ("applied", 2.0),
        ("superseded", 1.0),
        ("skipped", 1.0),
        ("rejected", 4.0),
    ];
    for (outcome, count) in outcomes {
        let sample = format!(r#"recents_runs_total{{source="hook",outcome="{outcome}"}}"#);
        assert_eq!(server.metric(&sample).await, count, "{outcome}");
    }
    let requests = |status| {
        format!(
            r#"recents_http_request_duration_seconds_count{{method="POST",route="/v1/runs",status="{status}"}}"#
        )
    };
    assert_eq!(server.metric(&requests(200)).await, 1.0);
    assert_eq!(server.metric(&requests(400)).await, 1.0);
    assert_eq!(
        server.metric("recents_record_flush_seconds_count").await,
        1.0
    );
    assert_eq!(
        server.metric("recents_record_batch_rows_sum").await,
        2.0,
        "folded to two rows"
    );
    assert_eq!(server.metric("recents_record_queue_depth").await, 0.0);
    assert_eq!(
        server
            .metric(r#"recents_db_statements_total{statement="raise"}"#)
            .await,
        1.0
    );
}

async fn no_metric_names_an_id(db: TestDb) {
    let server = Server::start(&db).await;
    let secret = Use::new("secret-w", "secret-p", 0)
        .by("secret-u")
        .run("secret-r");
    server
        .public
        .post("/v1/runs", &body_of(&[secret]))
        .await
        .expect(200);
    server
        .public
        .get(&list_path("secret-w", Some("secret-u")))
        .await
        .expect(200);
    server.public.get("/secret-path").await.expect(404);
    server
        .public
        .get(&(list_path("secret-w", None) + "?secret-parameter=1"))
        .await
        .expect(400);
    server
        .public
        .send("SECRET-METHOD", "/v1/runs", &[], Bytes::new())
        .await
        .expect(405);
    let metrics = server.admin.get("/metrics").await.expect(200);
    let text = metrics.text();
    assert!(!text.to_lowercase().contains("secret"), "{text}");
    let known = [
        "method",
        "route",
        "status",
        "source",
        "outcome",
        "kind",
        "le",
        "state",
        "statement",
        "version",
        "mode",
        "reason",
        "result",
    ];
    let mut labels = BTreeSet::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((_, inner)) = line.split_once('{') else {
            continue;
        };
        // A route has braces of its own, and no label's value has a quote.
        let parts: Vec<_> = inner.split('"').collect();
        labels.extend(
            parts
                .iter()
                .step_by(2)
                .filter_map(|name| name.trim_start_matches(',').strip_suffix('=')),
        );
    }
    assert_eq!(labels, BTreeSet::from(known));
}
