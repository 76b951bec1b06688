//! The work contract: no endpoint asks more of the database than it declares.

use std::collections::BTreeSet;

use hyper::body::Bytes;
use recents::http::work::WORK;
use serde_json::{Value, json};

use crate::promises::counts::own;
use crate::support::client::list_path;
use crate::support::meter::Fence;
use crate::support::uses::body_of;
use crate::support::{Meter, TestDb, Use, both};

both!(no_endpoint_sends_more_statements_than_it_declares);

#[test]
fn every_endpoint_declares_its_work() {
    let description = serde_json::to_value(recents::http::openapi()).expect("JSON");
    let mut described = BTreeSet::new();
    for (path, item) in description["paths"].as_object().expect("paths") {
        for method in item.as_object().expect("methods").keys() {
            if ["get", "post", "patch", "delete", "put"].contains(&method.as_str()) {
                described.insert((method.to_uppercase(), path.clone()));
            }
        }
    }
    let declared = WORK.iter();
    let declared = declared.map(|work| (work.method.to_owned(), work.path.to_owned()));
    assert_eq!(declared.collect::<BTreeSet<_>>(), described);
}

/// The largest request that each endpoint takes.
fn largest(method: &str, path: &str) -> Option<(String, Value)> {
    let filled = path
        .replace("{workspace}", "w0")
        .replace("{uid}", "u")
        .replace("{published_run}", "p1");
    let body = match path {
        "/v1/runs" => {
            let uses = (0..1_000).map(|i| Use::new(&format!("w{i}"), "new", i).by("u"));
            body_of(&uses.collect::<Vec<_>>())
        }
        "/v1/recent-workflows/batch" => {
            let scope = |i| json!({"workspace": format!("w{i}"), "uid": "u"});
            json!({"scopes": (0..100).map(scope).collect::<Vec<_>>(), "limit": 100})
        }
        "/admin/v1/cache/invalidate" => json!({"all": true}),
        "/admin/v1/settings" if method == "PATCH" => {
            json!({"read_path": "materialized", "details_mode": "batched"})
        }
        // They need a history, or a job.
        _ if path.starts_with("/admin/v1/resyncs") || path.contains("{id}") => return None,
        _ => Value::Null,
    };
    let filled = match method == "GET" && path.ends_with("recent-workflows") {
        true => filled + "?limit=100",
        false => filled,
    };
    Some((filled, body))
}

async fn no_endpoint_sends_more_statements_than_it_declares(db: TestDb) {
    let meter = Meter::start(&db).await;
    let uses: Vec<_> = (0..1_000)
        .map(|i| Use::new(&format!("w{}", i % 100), &format!("p{}", i / 100), i).by("u"))
        .collect();
    let client = meter.client();
    client.post("/v1/runs", &body_of(&uses)).await.expect(200);
    // So that reads meet a dismissal.
    let dismissed = list_path("w9", None) + "/p0";
    client
        .send("DELETE", &dismissed, &[], Bytes::new())
        .await
        .expect(204);
    let mut asked = 0;
    for work in WORK {
        let Some((path, body)) = largest(work.method, work.path) else {
            continue;
        };
        let client = match work.path.starts_with("/v1") {
            true => *meter.client(),
            false => meter.server.admin,
        };
        let send = async |fence: Fence| {
            let sent = meter.statements(fence, async || {
                let headers = [("content-type", "application/json")];
                let (headers, body): (&[_], Bytes) = match body.is_null() {
                    true => (&[], Bytes::new()),
                    false => (&headers, body.to_string().into()),
                };
                let answer = client.send(work.method, &path, headers, body).await;
                assert!(answer.status.is_success(), "{path}: {}", answer.text());
            });
            sent.await
        };
        // What it sends beside a read, and beside a write.
        let reads = work.method == "GET" || work.path.ends_with("batch");
        let sent = send(if reads { Fence::Write } else { Fence::Read }).await;
        // Of the sweeps behind dismissals, whose statements the meter leaves out.
        let sent = own(sent);
        let most = work.statements as usize;
        assert!(
            sent.len() <= most,
            "{} {}: {sent:?}",
            work.method,
            work.path
        );
        assert!(
            most == 0 || !sent.is_empty(),
            "{} {} was not measured",
            work.method,
            work.path
        );
        asked += 1;
    }
    assert!(asked >= 15, "{asked} endpoints were asked");
}
