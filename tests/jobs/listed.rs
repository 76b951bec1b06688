//! The list of jobs: every job once, newest first, page by page.

use serde_json::{Value, json};

use super::{execute, insert, post};
use crate::support::snapshot::places;
use crate::support::{Server, TestDb, both};

both!(
    every_job_is_listed_once_newest_first,
    what_is_no_job_is_404_and_what_is_no_page_is_400,
    a_job_tells_how_far_it_came,
);

fn id(number: usize) -> String {
    format!("0190a000-0000-7000-8000-{number:012}")
}

const STATES: [&str; 4] = ["paused", "succeeded", "failed", "cancelled"];

async fn every_job_is_listed_once_newest_first(db: TestDb) {
    for number in 0..53 {
        let sql = insert(&id(number), &json!({"state": STATES[number % 4]}));
        execute(&db, &sql).await.expect("a job");
    }
    let server = Server::start(&db).await;
    let newest = |state: Option<&str>| -> Vec<String> {
        let is = |number: &usize| state.is_none_or(|state| STATES[number % 4] == state);
        (0..53).rev().filter(is).map(id).collect()
    };
    for (query, state, pages) in [
        ("?limit=10", None, 6),
        ("?limit=53", None, 1),
        ("?limit=52", None, 2),
        ("?", None, 3),
        ("?limit=5&state=failed", Some("failed"), 3),
        ("?state=running", Some("running"), 1),
    ] {
        let (mut found, mut cursor, mut read) = (Vec::new(), String::new(), 0);
        loop {
            let path = format!("/admin/v1/jobs{query}{cursor}");
            let page = server.admin.get(&path).await.expect(200).json();
            read += 1;
            for job in page["jobs"].as_array().expect("jobs") {
                found.push(job["id"].as_str().expect("an id").to_owned());
            }
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(found, newest(state), "{query}");
        assert_eq!(read, pages, "{query}");
    }
}

async fn what_is_no_job_is_404_and_what_is_no_page_is_400(db: TestDb) {
    let server = Server::start(&db).await;
    for unknown in [id(1), "no-uuid".into(), "..%2f".into()] {
        let path = format!("/admin/v1/jobs/{unknown}");
        assert_eq!(
            server.admin.get(&path).await.expect(404).problem(),
            "not_found"
        );
        for change in ["cancel", "pause", "resume"] {
            let answer = post(&server, &format!("{path}/{change}")).await.expect(404);
            assert_eq!(answer.problem(), "not_found");
        }
    }
    for (bad, place) in [
        ("a%00b", "parameter id: control_character"),
        ("%ff", "parameter path: not_utf8"),
    ] {
        let path = format!("/admin/v1/jobs/{bad}");
        let plan = server.admin.get(&format!("{path}/plan")).await;
        let cancel = post(&server, &format!("{path}/cancel")).await;
        for answer in [server.admin.get(&path).await, plan, cancel] {
            let named = places(&answer.expect(400));
            assert!(named.contains(place), "{bad}: {named}");
        }
    }
    for (query, place) in [
        ("limit=0", "parameter limit: bad_limit"),
        ("limit=101", "parameter limit: bad_limit"),
        ("limit=+1", "parameter limit: bad_limit"),
        ("cursor=x", "parameter cursor: bad_cursor"),
        ("state=done", "parameter state: bad_state"),
        ("states=failed", "parameter states: unknown_parameter"),
        (
            "state=failed&state=failed",
            "parameter state: repeated_parameter",
        ),
    ] {
        let answer = server.admin.get(&format!("/admin/v1/jobs?{query}")).await;
        let named = places(&answer.expect(400));
        assert!(named.contains(place), "{query}: {named}");
    }
}

async fn a_job_tells_how_far_it_came(db: TestDb) {
    let counts = json!({
        "changes": {"added": 1, "raised": 2, "lowered": 3, "removed": 4}, "per_second": 50.0,
    });
    let job = json!({
        "kind": "resync", "workspace": "5", "state": "running", "scanned": 250, "total": 1_000,
        "counts": counts.to_string(), "options": r#"{"mode":"rebuild","dry_run":true}"#,
    });
    execute(&db, &insert(&id(1), &job)).await.expect("a job");
    let server = Server::start(&db).await;
    let mut told = super::job(&server, &id(1)).await;
    let started_at = told["started_at"].take();
    assert!(
        started_at.as_str().is_some_and(|at| at.ends_with('Z')),
        "{started_at}"
    );
    let expected = json!({
        "id": id(1), "kind": "resync", "state": "running", "workspace": "5", "mode": "rebuild",
        "dry_run": true, "started_at": null,
        "progress": {"scanned": 250, "total": 1_000, "percent": 25.0, "eta_seconds": 15},
        "result": {"added": 1, "raised": 2, "lowered": 3, "removed": 4, "unmappable": 0},
    });
    assert_eq!(told, expected);
    for (change, progress) in [
        (
            "total = null",
            json!({"scanned": 250, "total": null, "percent": null, "eta_seconds": null}),
        ),
        (
            "total = 100, state = 'paused'",
            json!({"scanned": 250, "total": 100, "percent": 100.0, "eta_seconds": null}),
        ),
        (
            "total = 0, scanned = 0, state = 'succeeded'",
            json!({"scanned": 0, "total": 0, "percent": 100.0, "eta_seconds": null}),
        ),
    ] {
        let sql = format!("update {{recents}}job set {change}");
        execute(&db, &sql).await.expect("it changed");
        let told: Value = super::job(&server, &id(1)).await;
        assert_eq!(told["progress"], progress, "{change}");
    }
}
