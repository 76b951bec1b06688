//! Changing settings over HTTP.

use std::time::{Duration, Instant};

use hyper::body::Bytes;
use serde_json::{Value, json};

use crate::capture::followed::serve_with;
use crate::support::client::Answer;
use crate::support::history::Setup;
use crate::support::{Server, TestDb, both, until};

both!(
    every_replica_follows_a_change_within_five_seconds,
    what_is_not_a_setting_or_a_value_is_named_and_nothing_is_changed,
    what_is_not_named_stays_as_it_is,
    a_forced_read_path_is_not_changed,
    a_read_path_that_needs_a_history_is_refused_where_there_is_none,
    a_replica_without_a_history_says_that_it_reads_the_table,
    a_change_that_the_database_cannot_store_is_no_change,
);

pub(super) const PATH: &str = "/admin/v1/settings";

pub(crate) async fn patch(server: &Server, body: &Value) -> Answer {
    let headers = [("content-type", "application/json")];
    let body = Bytes::from(body.to_string());
    server.admin.send("PATCH", PATH, &headers, body).await
}

pub(super) async fn settings(server: &Server) -> Value {
    server.admin.get(PATH).await.expect(200).json()
}

/// Which read path the metrics show.
pub(super) async fn shown(server: &Server) -> Vec<&'static str> {
    let mut shown = Vec::new();
    for mode in ["materialized", "shadow", "history"] {
        let sample = format!(r#"recents_read_path{{mode="{mode}"}}"#);
        if server.metric(&sample).await == 1.0 {
            shown.push(mode);
        }
    }
    shown
}

async fn every_replica_follows_a_change_within_five_seconds(db: TestDb) {
    let setup = Setup::plain(db, 47, 50).await;
    let (one, other) = (serve_with(&setup, &[]).await, serve_with(&setup, &[]).await);
    let first = json!({"read_path": "history", "details_mode": "batched"});
    assert_eq!(settings(&other).await, first);
    for (read_path, details_mode) in [
        ("materialized", "off"),
        ("shadow", "per_item"),
        ("auto", "batched"),
    ] {
        let change = json!({"read_path": read_path, "details_mode": details_mode});
        let answer = patch(&one, &change).await.expect(200).json();
        let changed = Instant::now();
        let read_path = match read_path {
            // No backfill succeeded.
            "auto" => "history",
            path => path,
        };
        let expected = json!({"read_path": read_path, "details_mode": details_mode});
        assert_eq!(answer, expected);
        assert_eq!(
            settings(&one).await,
            expected,
            "whoever changes it follows at once"
        );
        until("the other one follows", async || {
            (settings(&other).await == expected).then_some(())
        })
        .await;
        assert!(
            changed.elapsed() < Duration::from_secs(5),
            "{:?}",
            changed.elapsed()
        );
        for server in [&one, &other] {
            assert_eq!(shown(server).await, [read_path]);
        }
    }
}

async fn what_is_not_a_setting_or_a_value_is_named_and_nothing_is_changed(db: TestDb) {
    let server = Server::start(&db).await;
    let before = settings(&server).await;
    for (body, errors) in [
        (json!([]), vec![("#", "wrong_type")]),
        (
            json!({"readpath": "history"}),
            vec![("#/readpath", "unknown_field")],
        ),
        (
            json!({"read_path": "table"}),
            vec![("#/read_path", "unknown_value")],
        ),
        (
            json!({"read_path": "History"}),
            vec![("#/read_path", "unknown_value")],
        ),
        (
            json!({"read_path": null}),
            vec![("#/read_path", "wrong_type")],
        ),
        (
            json!({"read_path": "off"}),
            vec![("#/read_path", "unknown_value")],
        ),
        (
            json!({"details_mode": true}),
            vec![("#/details_mode", "wrong_type")],
        ),
        (
            json!({"read_path": 1, "details_mode": "auto", "x": 0}),
            vec![
                ("#/x", "unknown_field"),
                ("#/read_path", "wrong_type"),
                ("#/details_mode", "unknown_value"),
            ],
        ),
        (
            json!({"read_path": "history", "details_mode": "on"}),
            vec![("#/details_mode", "unknown_value")],
        ),
    ] {
        let answer = patch(&server, &body).await.expect(400);
        assert_eq!(answer.problem(), "invalid_request");
        let named = answer.json()["errors"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let named: Vec<_> = named
            .iter()
            .filter_map(|error| Some((error["pointer"].as_str()?, error["code"].as_str()?)))
            .collect();
        assert_eq!(named, errors, "{body}");
    }
    assert_eq!(settings(&server).await, before);
    let put = server
        .admin
        .send("PUT", PATH, &[], Bytes::new())
        .await
        .expect(405);
    assert_eq!(put.header("allow"), Some("GET,HEAD,PATCH"));
}

async fn what_is_not_named_stays_as_it_is(db: TestDb) {
    let setup = Setup::plain(db, 48, 50).await;
    let server = serve_with(&setup, &[]).await;
    patch(&server, &json!({"details_mode": "off"}))
        .await
        .expect(200);
    let answer = patch(&server, &json!({"read_path": "shadow"}))
        .await
        .expect(200);
    let both = json!({"read_path": "shadow", "details_mode": "off"});
    assert_eq!(answer.json(), both);
    assert_eq!(patch(&server, &json!({})).await.expect(200).json(), both);
}

async fn a_forced_read_path_is_not_changed(db: TestDb) {
    let setup = Setup::plain(db, 49, 50).await;
    let forcing = serve_with(&setup, &["--force-read-path", "materialized"]).await;
    let following = serve_with(&setup, &[]).await;
    patch(&following, &json!({"read_path": "shadow"}))
        .await
        .expect(200);
    for body in [
        json!({"read_path": "history"}),
        json!({"read_path": "materialized"}),
        json!({"read_path": "history", "details_mode": "off"}),
    ] {
        let answer = patch(&forcing, &body).await.expect(409);
        assert_eq!(answer.problem(), "read_path_forced");
        assert!(
            answer.text().contains("force_read_path"),
            "it says why: {}",
            answer.text()
        );
    }
    // The other setting is free.
    let answer = patch(&forcing, &json!({"details_mode": "per_item"}))
        .await
        .expect(200);
    assert_eq!(
        answer.json(),
        json!({"read_path": "materialized", "details_mode": "per_item"})
    );
    let elsewhere = json!({"read_path": "shadow", "details_mode": "per_item"});
    until("who forces nothing follows", async || {
        (settings(&following).await == elsewhere).then_some(())
    })
    .await;
    assert_eq!(settings(&forcing).await["read_path"], "materialized");
    assert_eq!(shown(&forcing).await, ["materialized"]);
}

async fn a_read_path_that_needs_a_history_is_refused_where_there_is_none(db: TestDb) {
    let server = Server::start(&db).await;
    let before = settings(&server).await;
    for path in ["history", "shadow"] {
        let change = json!({"read_path": path, "details_mode": "off"});
        let answer = patch(&server, &change).await.expect(400);
        assert_eq!(answer.problem(), "invalid_request");
        let error = &answer.json()["errors"][0];
        assert_eq!(error["pointer"], "#/read_path");
        assert_eq!(error["code"], "no_history");
    }
    assert_eq!(settings(&server).await, before);
    assert_eq!(shown(&server).await, ["materialized"]);
    let stored = "select value from {recents}setting order by name";
    let stored = db.connect().await.texts(stored).await;
    assert_eq!(stored, ["batched", "auto"]);
}

async fn a_replica_without_a_history_says_that_it_reads_the_table(db: TestDb) {
    let setup = Setup::plain(db, 50, 50).await;
    let with = serve_with(&setup, &[]).await;
    let change = json!({"read_path": "shadow", "details_mode": "off"});
    assert_eq!(patch(&with, &change).await.expect(200).json(), change);
    let without = Server::start(&setup.store).await;
    let expected = json!({"read_path": "materialized", "details_mode": "off"});
    assert_eq!(settings(&without).await, expected);
    assert_eq!(shown(&without).await, ["materialized"]);
    let said = "there is no [history] to read from; lists come from the table";
    without.log.message(said).await;
    // It stays stored for those that have one.
    assert_eq!(settings(&with).await, change);
}

async fn a_change_that_the_database_cannot_store_is_no_change(db: TestDb) {
    let server = Server::start(&db).await;
    let before = settings(&server).await;
    db.execute("drop table {recents}setting").await;
    let answer = patch(&server, &json!({"details_mode": "off"}))
        .await
        .expect(503);
    assert_eq!(answer.problem(), "database_unavailable");
    assert_eq!(settings(&server).await, before);
}
