//! The work contract: no endpoint asks more of the databases than it declares.

use std::collections::BTreeSet;

use hyper::body::Bytes;
use recents::http::work::{WORK, Work};
use serde_json::{Value, json};

use crate::jobs::{execute, insert};
use crate::promises::counts::own;
use crate::support::client::{Client, list_path};
use crate::support::meter::Fence;
use crate::support::uses::body_of;
use crate::support::{Backend, Meter, TestDb, Use, both, until};

both!(
    no_endpoint_sends_more_statements_than_it_declares,
    no_endpoint_sends_more_statements_by_the_history_than_it_declares,
);

/// Workflows of the longest list: more than a page with details reads in its three reads.
const LONG: i64 = 1_500;
/// A job that is there, and a dry run with a plan of several parts.
const JOB: &str = "0190a000-0000-7000-8000-000000000001";
const PLANNED: &str = "0190a000-0000-7000-8000-000000000002";
/// What a service with a history asks by itself, beside [`Meter`]'s.
const BY_ITSELF: [&str; 5] = [
    "take_notes",
    "identity",
    "notes_standing",
    "retry_notes_set_aside",
    "job_any_waits",
];

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

/// Whether it is none of a request's: it looks for work, or sets a connection up.
fn is_by_itself(name: &str) -> bool {
    let is_of_outbox = name.contains("recents.outbox") || name.contains("relname = 'outbox'");
    BY_ITSELF.contains(&name) || is_of_outbox || name.starts_with("PRAGMA")
}

/// The largest requests that an endpoint takes, and those that lead it the longest way, with their status.
///
/// # Panics
/// For an endpoint that is not here: it would be held to nothing.
fn largest(work: &Work) -> Vec<(String, Value, u16)> {
    let path = work
        .path
        .replace(
            "{workspace}",
            if work.method == "GET" { "w0" } else { "w9" },
        )
        .replace("{uid}", "u")
        .replace("{published_run}", "p1");
    let job = |id: &str| work.path.replace("{id}", id);
    let one = |path: String, body, status| vec![(path, body, status)];
    match (work.method, work.path) {
        ("POST", "/v1/runs") => {
            let uses = (0..1_000).map(|i| Use::new(&format!("w{i}"), "new", i).by("u").run("r"));
            one(path, body_of(&uses.collect::<Vec<_>>()), 200)
        }
        ("GET", path_of) if path_of.ends_with("/recent-workflows") => ["", "&expand=details"]
            .map(|more| (format!("{path}?limit=100{more}"), Value::Null, 200))
            .into(),
        ("POST", "/v1/recent-workflows/batch") => {
            let scope = |i| json!({"workspace": format!("w{i}"), "uid": "u"});
            let scopes: Vec<_> = (0..100).map(scope).collect();
            [json!([]), json!(["details"])]
                .map(|expand| {
                    let body = json!({"scopes": scopes, "limit": 100, "expand": expand});
                    (path.clone(), body, 200)
                })
                .into()
        }
        ("DELETE", _) => one(path, Value::Null, 204),
        ("POST", "/admin/v1/cache/invalidate") => one(path, json!({"all": true}), 204),
        ("PATCH", "/admin/v1/settings") => {
            let body = json!({"read_path": "materialized", "details_mode": "batched"});
            one(path, body, 200)
        }
        // The first one makes a job, the second one meets it.
        ("POST", "/admin/v1/resyncs") => [(json!("w1"), 202), (json!("w1"), 409)]
            .map(|(workspace, status)| (path.clone(), json!({"workspace": workspace}), status))
            .into(),
        ("GET", "/admin/v1/jobs") => one(path + "?limit=100&state=paused", Value::Null, 200),
        ("GET", "/admin/v1/jobs/{id}") => one(job(JOB), Value::Null, 200),
        ("GET", "/admin/v1/jobs/{id}/plan") => one(job(PLANNED), Value::Null, 200),
        // It is over, which is told.
        ("POST", "/admin/v1/jobs/{id}/cancel") => {
            let done = job(PLANNED);
            vec![(done, Value::Null, 409)]
        }
        ("POST", "/admin/v1/jobs/{id}/pause" | "/admin/v1/jobs/{id}/resume") => {
            vec![(job(JOB), Value::Null, 200), (job(JOB), Value::Null, 200)]
        }
        ("GET", "/admin/v1/settings" | "/livez" | "/readyz" | "/metrics" | "/openapi.json") => {
            one(path, Value::Null, 200)
        }
        (method, path) => panic!("{method} {path} is sent by no test"),
    }
}

/// Sends it, with the answer that is expected.
async fn send(client: &Client, method: &str, (path, body, status): &(String, Value, u16)) {
    let key = status.to_string();
    let headers = [
        ("content-type", "application/json"),
        ("idempotency-key", key.as_str()),
    ];
    let keyed = path.ends_with("resyncs");
    let (headers, body): (&[_], Bytes) = match body.is_null() {
        true => (&[], Bytes::new()),
        false => (&headers[..1 + usize::from(keyed)], body.to_string().into()),
    };
    let answer = client.send(method, path, headers, body).await;
    assert_eq!(answer.status, *status, "{method} {path}: {}", answer.text());
}

fn client<'m>(meter: &'m Meter, work: &Work) -> &'m Client {
    match work.path.starts_with("/v1") {
        true => meter.client(),
        false => &meter.server.admin,
    }
}

/// Details of which there are none, so that pages go on looking for some.
fn no_details(backend: Backend) -> &'static str {
    match backend {
        Backend::Postgres => "select x as published_run from unnest($1) as x where false",
        Backend::Sqlite => "select value as published_run from json_each($1) where false",
    }
}

/// Numbers below `count`, as a relation `n` of one column.
fn numbers(backend: Backend, count: i64) -> String {
    match backend {
        Backend::Postgres => format!("generate_series(0, {count} - 1) as n(n)"),
        Backend::Sqlite => format!(
            "(with recursive n(n) as (select 0 union all select n + 1 from n where n + 1 < {count})
              select n from n) as n"
        ),
    }
}

async fn no_endpoint_sends_more_statements_than_it_declares(db: TestDb) {
    let time = match db.backend {
        Backend::Postgres => "now() - n * interval '1 second'",
        Backend::Sqlite => "unixepoch() * 1000000 - n",
    };
    let (long, short) = (numbers(db.backend, LONG), numbers(db.backend, 99 * 300));
    for (rows, workspace, uid) in [
        (&long, "'w0'", "''"),
        (&long, "'w0'", "'u'"),
        (&short, "'w' || (1 + n % 99)", "'u'"),
    ] {
        let fill = format!(
            "insert into {{recents}}recent_workflow (workspace, uid, published_run, last_used_at)
             select {workspace}, {uid}, 'p' || n, {time} from {rows}"
        );
        db.execute(&fill).await;
    }
    let running = json!({"state": "running", "workspace": "elsewhere"});
    let planned = json!({"options": "{\"mode\":\"merge\",\"dry_run\":true}"});
    for (id, columns) in [(JOB, running), (PLANNED, planned)] {
        execute(&db, &insert(id, &columns)).await.expect("a job");
    }
    let plan = format!(
        "insert into {{recents}}job_plan select '{PLANNED}', 'w', '', 'p' || n, '{{}}' from {}",
        numbers(db.backend, 2_500)
    );
    db.execute(&plan).await;
    let details = [
        "--read-path",
        "materialized",
        "--cache-capacity",
        "0",
        "--details-ttl",
        "1us",
        "--details-query",
        no_details(db.backend),
    ];
    let meter = Meter::with(&db, &details).await;
    // So that reads meet a dismissal.
    let dismissed = (list_path("w9", None) + "/p0", Value::Null, 204);
    send(meter.client(), "DELETE", &dismissed).await;
    // One whose history is away has nothing to do with it by itself.
    let nowhere = "postgres://127.0.0.1:1/nowhere";
    let noting = [
        "--history-url",
        nowhere,
        "--history-table",
        "runs",
        "--history-key",
        "id",
        "--history-query",
        "select id as run, id as workspace, id as uid, id as published_run, at as last_used_at from runs",
        "--audit",
        "false",
    ];
    let noting = Meter::with(&db, &[&details[..], &noting].concat()).await;
    for work in WORK {
        let meters: &[&Meter] = match work.path {
            "/v1/runs" => &[&meter, &noting],
            "/admin/v1/resyncs" => &[&noting],
            _ => &[&meter],
        };
        for meter in meters {
            let mut most = 0;
            for request in largest(work) {
                // What it sends beside a read, and beside a write.
                let reads = work.method == "GET" || work.path.ends_with("batch");
                let fence = if reads { Fence::Write } else { Fence::Read };
                // Of the sweeps behind dismissals, whose statements the meter leaves out.
                let sent = meter.statements(fence, async || {
                    send(client(meter, work), work.method, &request).await;
                });
                let mut sent = own(sent.await);
                // Every transaction of SQLite's counts the changes, also those of the sweeps.
                let of_a_sweep =
                    |name: &String| db.backend == Backend::Sqlite && name == "position";
                sent.retain(|name| !is_by_itself(name) && !of_a_sweep(name));
                let bound = work.statements as usize;
                assert!(sent.len() <= bound, "{work:?}: {sent:?}");
                most = most.max(sent.len());
            }
            // On PostgreSQL, what is forgotten is told in the background.
            let asks_nothing = work.statements == 0 || work.path.ends_with("invalidate");
            assert!(asks_nothing || most > 0, "{work:?} was not measured");
            if work.method == "GET" && work.by_history.is_some() {
                assert!(most >= 6, "three reads, each with details: {most}");
            }
        }
    }
}

async fn no_endpoint_sends_more_statements_by_the_history_than_it_declares(db: TestDb) {
    let (time, now) = match db.backend {
        Backend::Postgres => (
            "timestamptz",
            "now() + interval '1 hour' - n * interval '1 second'",
        ),
        Backend::Sqlite => ("text", "datetime('now', '+1 hour', -n || ' seconds')"),
    };
    db.execute(&format!(
        "create table run (id text primary key, workspace text, uid text, used text, at {time});
         insert into run select 'long' || n, 'w0', 'u', 'p' || n, {now} from {long};
         insert into run select 'short' || n, 'w' || (1 + n % 99), 'u', 'p' || n, {now} from {short};
         create index run_workspace on run (workspace, uid);
         analyze",
        long = numbers(db.backend, LONG),
        short = numbers(db.backend, 99 * 30),
    ))
    .await;
    let flags = [
        "--history-table",
        "run",
        "--history-key",
        "id",
        "--history-query",
        "select id as run, workspace, uid, used as published_run, at as last_used_at from runs",
        "--read-path",
        "history",
        "--audit",
        "false",
        "--cache-capacity",
        "0",
        "--details-ttl",
        "1us",
        "--details-query",
        no_details(db.backend),
    ];
    let meter = Meter::with(&db, &flags).await;
    let mut beside = db.connect().await;
    until("what it noted is worked off", async || {
        let notes = beside
            .texts("select cast(count(*) as text) from {recents}note")
            .await;
        (notes == ["0"]).then_some(())
    })
    .await;
    // Connected, and once more while something is dismissed.
    let dismissed = (list_path("w9", None) + "/p0", Value::Null, 204);
    send(meter.client(), "DELETE", &dismissed).await;
    send(
        meter.client(),
        "GET",
        &(list_path("w9", None), Value::Null, 200),
    )
    .await;
    for work in WORK.iter().filter(|work| work.by_history.is_some()) {
        let (mut most, writes) = (0, work.method == "DELETE");
        for request in largest(work) {
            let sent = meter.statements(Fence::Jobs, async || {
                send(client(&meter, work), work.method, &request).await;
            });
            let mut sent = own(sent.await);
            // Sweeps behind dismissals count SQLite's changes; reads do not.
            let of_a_sweep = |name: &String| !writes && name == "position";
            sent.retain(|name| !is_by_itself(name) && !of_a_sweep(name));
            let bound = work.by_history.unwrap_or_default() as usize;
            assert!(sent.len() <= bound, "{work:?}: {sent:?}");
            most = most.max(sent.len());
        }
        let least = if writes { 3 } else { 9 };
        assert!(most >= least, "{work:?} was measured with {most} only");
    }
}
