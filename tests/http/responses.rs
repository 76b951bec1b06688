//! Every answer that the description of the API names, as clients see it.

use std::collections::BTreeSet;

use hyper::body::Bytes;
use serde_json::{Value, json};

use crate::capture::followed::serve;
use crate::jobs::{execute, insert, reaches};
use crate::support::client::{Answer, Client, list_path};
use crate::support::history::{History, Layout, Run, Setup};
use crate::support::snapshot::{assert_snapshot, sections};
use crate::support::uses::body_of;
use crate::support::{Backend, Server, TestDb, Use, both, until};

both!(every_answer_that_is_described_looks_the_same_on_both_databases);

const LIST: &str = "/v1/workspaces/{workspace}/recent-workflows";
const USER_LIST: &str = "/v1/workspaces/{workspace}/users/{uid}/recent-workflows";
const JOB: &str = "/admin/v1/jobs/{id}";

/// What was answered, by the route and the status.
#[derive(Default)]
struct Answers(Vec<(String, String)>);

impl Answers {
    /// Asks, and shows the answer, which has this status.
    async fn ask(
        &mut self,
        client: Client,
        method: &str,
        route: &str,
        path: &str,
        status: u16,
    ) -> Answer {
        self.ask_with(client, method, (route, path), status, &[], None)
            .await
    }

    async fn ask_with(
        &mut self,
        client: Client,
        method: &str,
        (route, path): (&str, &str),
        status: u16,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> Answer {
        let mut headers = headers.to_vec();
        let body = body.map_or(Bytes::new(), |body| {
            headers.push(("content-type", "application/json"));
            body.to_string().into()
        });
        let answer = client
            .send(method, path, &headers, body)
            .await
            .expect(status);
        self.show(method, route, &answer);
        answer
    }

    fn show(&mut self, method: &str, route: &str, answer: &Answer) {
        let heading = format!("{method} {route} {}", answer.status.as_u16());
        self.0.push((heading, answer.shown()));
    }
}

/// Those that the description names: `GET /livez 200`.
fn described(description: &Value) -> BTreeSet<String> {
    let paths = description["paths"].as_object().expect("paths");
    let mut described = BTreeSet::new();
    for (path, item) in paths {
        for (method, operation) in item.as_object().expect("operations") {
            let responses = operation["responses"].as_object().expect("responses");
            for status in responses.keys().filter(|status| *status != "default") {
                described.insert(format!("{} {path} {status}", method.to_uppercase()));
            }
        }
    }
    described
}

async fn every_answer_that_is_described_looks_the_same_on_both_databases(db: TestDb) {
    let backend = db.backend;
    let mut answers = Answers::default();
    lists(&db, &mut answers).await;
    let description = service(backend, &mut answers).await;
    jobs(backend, &mut answers).await;
    resync(db, &mut answers).await;
    let shown: BTreeSet<_> = answers
        .0
        .iter()
        .map(|(heading, _)| heading.clone())
        .collect();
    assert_eq!(shown, described(&description));
    let shown = answers
        .0
        .iter()
        .map(|(heading, shown)| (heading.as_str(), shown.clone()));
    assert_snapshot("responses", &sections(shown));
}

async fn lists(db: &TestDb, answers: &mut Answers) {
    let server = Server::start(db).await;
    let client = server.public;
    let runs = body_of(&[
        Use::new("5", "88", 0).by("u").run("991"),
        Use::new("5", "89", 1).by("u"),
        Use::new("5", "90", 2).by("u"),
    ]);
    answers
        .ask_with(
            client,
            "POST",
            ("/v1/runs", "/v1/runs"),
            200,
            &[],
            Some(runs),
        )
        .await;
    let batch = "/v1/recent-workflows/batch";
    let scopes = json!({"scopes": [{"workspace": "5", "uid": "u"}], "limit": 1});
    answers
        .ask_with(client, "POST", (batch, batch), 200, &[], Some(scopes))
        .await;
    for (route, path) in [
        (LIST, list_path("5", None)),
        (USER_LIST, list_path("5", Some("u"))),
    ] {
        let list = answers.ask(client, "GET", route, &path, 200).await;
        let known = [("if-none-match", list.header("etag").expect("a tag"))];
        answers
            .ask_with(client, "GET", (route, &path), 304, &known, None)
            .await;
        let item = format!("{route}/{{published_run}}");
        answers
            .ask(client, "DELETE", &item, &format!("{path}/90"), 204)
            .await;
        answers.ask(client, "DELETE", route, &path, 204).await;
    }
    let everywhere = "/v1/published-runs/{published_run}";
    answers
        .ask(client, "DELETE", everywhere, "/v1/published-runs/88", 204)
        .await;
}

async fn service(backend: Backend, answers: &mut Answers) -> Value {
    let db = TestDb::empty(backend).await;
    let starting = Server::spawn(&db.url, &["--migrate-on-start", "false"]).await;
    let (readyz, ready) = ("/readyz", json!("up"));
    let up = async |server: &Server| {
        until("the database was asked", async || {
            let answer = server.admin.get(readyz).await;
            (answer.json()["database"] == ready).then_some(answer)
        })
        .await
    };
    answers.show("GET", readyz, &up(&starting).await.expect(503));

    let db = TestDb::migrated(backend).await;
    let server = Server::start(&db).await;
    let admin = server.admin;
    answers.show("GET", readyz, &up(&server).await.expect(200));
    answers.ask(admin, "GET", "/livez", "/livez", 200).await;
    let settings = "/admin/v1/settings";
    answers.ask(admin, "GET", settings, settings, 200).await;
    let change = json!({"read_path": "materialized", "details_mode": "off"});
    answers
        .ask_with(admin, "PATCH", (settings, settings), 200, &[], Some(change))
        .await;
    let invalidate = "/admin/v1/cache/invalidate";
    let all = json!({"all": true});
    answers
        .ask_with(admin, "POST", (invalidate, invalidate), 204, &[], Some(all))
        .await;
    // Which series there are; their values are another one each time.
    let mut metrics = admin.get("/metrics").await.expect(200);
    let kinds = metrics.text().lines().filter(|line| line.starts_with("# "));
    metrics.body = kinds
        .flat_map(|line| [line, "\n"])
        .collect::<String>()
        .into();
    answers.show("GET", "/metrics", &metrics);
    // What is described; how it is told may change.
    let mut openapi = admin.get("/openapi.json").await.expect(200);
    let description = openapi.json();
    let mut names: Vec<_> = described(&description).into_iter().collect();
    for (name, schema) in description["components"]["schemas"]
        .as_object()
        .expect("schemas")
    {
        let fields = schema["properties"].as_object();
        let fields = fields.map(|fields| fields.keys().cloned().collect::<Vec<_>>().join(", "));
        names.push(format!("{name}: {}", fields.unwrap_or_default()));
    }
    openapi.body = json!(names).to_string().into();
    answers.show("GET", "/openapi.json", &openapi);
    description
}

/// Of a service that works at none.
async fn jobs(backend: Backend, answers: &mut Answers) {
    let db = TestDb::migrated(backend).await;
    let id = "0190a000-0000-7000-8000-000000000001";
    let counts = json!({"changes": {"added": 1, "raised": 2, "lowered": 3, "removed": 4}, "per_second": 50.0});
    let job = json!({
        "workspace": "5", "state": "queued", "scanned": 250, "total": 1_000,
        "counts": counts.to_string(), "options": r#"{"mode":"rebuild","dry_run":true}"#,
    });
    execute(&db, &insert(id, &job)).await.expect("a job");
    let server = Server::start(&db).await;
    let admin = server.admin;
    answers
        .ask(admin, "GET", "/admin/v1/jobs", "/admin/v1/jobs", 200)
        .await;
    let path = format!("/admin/v1/jobs/{id}");
    answers.ask(admin, "GET", JOB, &path, 200).await;
    for change in ["pause", "resume", "cancel"] {
        let (route, path) = (format!("{JOB}/{change}"), format!("{path}/{change}"));
        answers.ask(admin, "POST", &route, &path, 200).await;
    }
}

async fn resync(db: TestDb, answers: &mut Answers) {
    let layout = Layout::of(db.backend);
    let runs = (1..=3).map(|key| Run::new(key, "6", 1, key).by("u"));
    let setup = Setup::of(db, History::of(layout, runs.collect())).await;
    let server = serve(&setup).await;
    let resyncs = "/admin/v1/resyncs";
    let dry_run = json!({"workspace": "6", "dry_run": true});
    let asked = answers
        .ask_with(
            server.admin,
            "POST",
            (resyncs, resyncs),
            202,
            &[],
            Some(dry_run),
        )
        .await;
    let job = asked.json()["id"].as_str().expect("an id").to_owned();
    let done = reaches(&server, &job, "succeeded").await;
    assert_eq!(done["result"]["added"], 2, "{done}");
    let plan = format!("/admin/v1/jobs/{job}/plan");
    answers
        .ask(server.admin, "GET", &format!("{JOB}/plan"), &plan, 200)
        .await;
}
