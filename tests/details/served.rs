//! `expand=details`, as clients get it.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::promises::counts::own;
use crate::support::client::{Client, list_path};
use crate::support::meter::Fence;
use crate::support::uses::body_of;
use crate::support::{Backend, Cluster, Meter, Server, TestDb, Use, both, until};

both!(
    a_page_has_its_details_and_leaves_out_what_has_none,
    details_of_any_number_of_items_and_lists_are_one_statement_unless_per_item,
    a_kept_list_fills_its_pages_without_asking_the_table,
    what_was_dismissed_behind_the_head_of_a_kept_list_does_not_fill_its_page,
);

const BATCH: &str = "/v1/recent-workflows/batch";

fn query(backend: Backend) -> &'static str {
    match backend {
        Backend::Postgres => {
            "select id as published_run, title, stars from workflow where id = any($1)"
        }
        Backend::Sqlite => {
            "select id as published_run, title, stars from workflow
             where id in (select value from json_each($1))"
        }
    }
}

/// Workflows `p0` to `p299`, of which every third has no row.
async fn workflows(db: &TestDb) {
    db.execute("create table workflow (id text primary key, title text, stars integer)")
        .await;
    let rows: Vec<_> = (0..300)
        .filter(|n| n % 3 != 0)
        .map(|n| format!("('p{n}', 'Title {n}', {n})"))
        .collect();
    let rows = rows.join(", ");
    db.execute(&format!(
        "insert into workflow (id, title, stars) values {rows}"
    ))
    .await;
}

async fn used(client: &Client, workspaces: usize, items: i64) {
    for workspace in 0..workspaces {
        let usage = |n| Use::new(&format!("w{workspace}"), &format!("p{n}"), n);
        let uses: Vec<_> = (0..items).map(usage).collect();
        client.post("/v1/runs", &body_of(&uses)).await.expect(200);
    }
}

fn items(list: &Value) -> Vec<Value> {
    list["recent_workflows"].as_array().expect("a list").clone()
}

async fn a_page_has_its_details_and_leaves_out_what_has_none(db: TestDb) {
    workflows(&db).await;
    let flags = ["--details-query", query(db.backend)];
    let server = Server::with(&db.url, &flags).await;
    let client = server.public;
    used(&client, 2, 300).await;
    let path = list_path("w0", None);
    let expected: Vec<String> = (0..300)
        .rev()
        .filter(|n| n % 3 != 0)
        .map(|n| format!("p{n}"))
        .collect();
    for limit in [1, 4, 100] {
        let mut next = format!("{path}?limit={limit}&expand=details");
        let mut seen = Vec::new();
        loop {
            let answer = client.get(&next).await.expect(200);
            assert_eq!(answer.header("recents-details"), None);
            let list = answer.json();
            for item in items(&list) {
                let id = item["published_run"].as_str().expect("an id").to_owned();
                let n: i64 = id[1..].parse().expect("a number");
                assert_eq!(
                    item["details"],
                    json!({"title": format!("Title {n}"), "stars": n})
                );
                seen.push(id);
            }
            let Some(cursor) = list["next_cursor"].as_str() else {
                break;
            };
            assert_eq!(items(&list).len(), limit, "full, while there are more");
            next = format!("{path}?limit={limit}&expand=details&cursor={cursor}");
            if seen.len() > 40 && limit == 1 {
                break;
            }
        }
        assert_eq!(seen, expected[..seen.len()], "by {limit}");
        assert!(seen.len() > 40);
    }
    let plain = client.get(&path).await.expect(200).json();
    assert_eq!(
        items(&plain)[2]["published_run"],
        "p297",
        "without details all are shown"
    );
    let body = json!({"scopes": [{"workspace": "w0"}, {"workspace": "never"}, {"workspace": "w1"}],
                      "limit": 3, "expand": ["details"]});
    let lists = client.post(BATCH, &body).await.expect(200).json();
    let runs = |at: usize| -> Vec<Value> {
        let items = items(&lists["lists"][at]);
        items
            .iter()
            .map(|item| item["published_run"].clone())
            .collect()
    };
    assert_eq!(runs(0), ["p299", "p298", "p296"].map(Value::from));
    assert_eq!((runs(1).len(), runs(2)), (0, runs(0)));
    // Known by its tag like any other.
    let path = format!("{path}?expand=details");
    let answer = client.get(&path).await.expect(200);
    let tag = answer.header("etag").expect("a tag");
    client
        .get_with(&path, &[("if-none-match", tag)])
        .await
        .expect(304);
    // Put right, it is seen as soon as it is forgotten.
    db.execute("update workflow set title = 'New' where id = 'p299'")
        .await;
    server
        .admin
        .post(
            "/admin/v1/cache/invalidate",
            &json!({"published_run": "p299"}),
        )
        .await
        .expect(204);
    let list = client.get(&path).await.expect(200).json();
    assert_eq!(items(&list)[0]["details"]["title"], "New");
}

async fn details_of_any_number_of_items_and_lists_are_one_statement_unless_per_item(db: TestDb) {
    workflows(&db).await;
    db.execute("insert into workflow select 'q' || id, title, stars from workflow")
        .await;
    let flags = [
        "--cache-capacity",
        "0",
        "--details-ttl",
        "1us",
        "--details-query",
        query(db.backend),
    ];
    let meter = Meter::with(&db, &flags).await;
    let uses: Vec<_> = (0..100)
        .flat_map(|w| {
            (0..8)
                .filter(|n| n % 3 != 0)
                .map(move |n| Use::new(&format!("w{w}"), &format!("p{n}"), n))
        })
        .collect();
    meter
        .client()
        .post("/v1/runs", &body_of(&uses))
        .await
        .expect(200);
    tried(&meter).await;
    let asked = async |path: &str, scopes: usize, limit: usize| {
        let sent = meter.statements(Fence::Write, async || {
            let scopes: Vec<_> = (0..scopes)
                .map(|w| json!({"workspace": format!("w{w}")}))
                .collect();
            match path {
                BATCH => {
                    let body = json!({"scopes": scopes, "limit": limit, "expand": ["details"]});
                    meter.client().post(BATCH, &body).await.expect(200)
                }
                path => {
                    let path = format!("{path}?limit={limit}&expand=details");
                    meter.client().get(&path).await.expect(200)
                }
            };
        });
        own(sent.await)
    };
    let list = list_path("w1", None);
    let shapes = [
        (list.as_str(), 1, 1),
        (&list, 1, 10),
        (&list, 1, 100),
        (BATCH, 1, 4),
        (BATCH, 10, 4),
        (BATCH, 100, 4),
    ];
    let mut sent = Vec::new();
    for (path, scopes, limit) in shapes {
        sent.push(asked(path, scopes, limit).await);
    }
    let counts: BTreeSet<_> = sent.iter().map(Vec::len).collect();
    assert_eq!(counts.len(), 1, "{sent:?}");
    let set = json!({"details_mode": "per_item"});
    let headers = [("content-type", "application/json")];
    let set = meter.server.admin.send(
        "PATCH",
        "/admin/v1/settings",
        &headers,
        set.to_string().into(),
    );
    set.await.expect(200);
    let mut counts = BTreeSet::new();
    for (path, scopes, limit) in shapes {
        counts.insert(asked(path, scopes, limit).await.len());
    }
    assert!(counts.len() > 1, "the control: {counts:?}");
}

/// Waits until the service has tried the query by itself.
async fn tried(meter: &Meter) {
    until("the query was tried", async || {
        let log = meter.server.log.text();
        log.contains("the query of the details was tried")
            .then_some(())
    })
    .await;
}

/// Reads a page until it comes from the cache.
async fn kept(server: &Server, path: &str) {
    let hits = "recents_cache_requests_total{result=\"hit\"}";
    until("the list is kept", async || {
        let before = server.metric(hits).await;
        server.public.get(path).await.expect(200);
        (server.metric(hits).await > before).then_some(())
    })
    .await;
}

/// The first workflows of a list of all 300 that have details.
fn newest(limit: usize) -> Vec<String> {
    let shown = (0..300).rev().filter(|n| n % 3 != 0);
    shown.take(limit).map(|n| format!("p{n}")).collect()
}

async fn a_kept_list_fills_its_pages_without_asking_the_table(db: TestDb) {
    workflows(&db).await;
    let flags = ["--details-query", query(db.backend), "--details-ttl", "1h"];
    let meter = Meter::with(&db, &flags).await;
    used(meter.client(), 1, 300).await;
    let path = |limit: usize| format!("{}?limit={limit}&expand=details", list_path("w0", None));
    kept(&meter.server, &path(60)).await;
    let sent = async |limit: usize| {
        let sent = meter.statements(Fence::Write, async || {
            let page = meter.client().get(&path(limit)).await.expect(200);
            assert_eq!(page.published_runs(), newest(limit));
            assert!(page.json()["next_cursor"].is_string(), "there are more");
        });
        own(sent.await)
    };
    for limit in [1, 4, 10, 60] {
        // In SQLite, a write at the wrong moment may be taken for another process's.
        until(
            &format!("a page of {limit} is of what is kept"),
            async || sent(limit).await.is_empty().then_some(()),
        )
        .await;
    }
    let batch = async || {
        let body = json!({"scopes": [{"workspace": "w0"}], "limit": 60, "expand": ["details"]});
        let lists = meter.client().post(BATCH, &body).await.expect(200).json();
        assert_eq!(items(&lists["lists"][0]).len(), 60);
    };
    until("a batch is of what is kept", async || {
        let sent = own(meter.statements(Fence::Write, async || batch().await).await);
        sent.is_empty().then_some(())
    })
    .await;
    until("a page of more than is kept asks once", async || {
        (sent(80).await.len() == 1).then_some(())
    })
    .await;
}

async fn what_was_dismissed_behind_the_head_of_a_kept_list_does_not_fill_its_page(db: TestDb) {
    workflows(&db).await;
    let flags = ["--details-query", query(db.backend), "--details-ttl", "1h"];
    let server = Server::with(&db.url, &flags).await;
    let client = server.public;
    used(&client, 1, 300).await;
    let path = list_path("w0", None) + "?limit=20&expand=details";
    kept(&server, &path).await;
    let mut shown = newest(21);
    assert_eq!(shown.remove(18), "p272");
    let nothing = hyper::body::Bytes::new();
    let dismissal = client.send("DELETE", "/v1/published-runs/p272", &[], nothing);
    dismissal.await.expect(204);
    assert_eq!(client.get(&path).await.expect(200).published_runs(), shown);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_comes_without_its_details_while_they_cannot_be_had() {
    let db = TestDb::migrated(Backend::Postgres).await;
    let apart = Cluster::start();
    let elsewhere = TestDb::apart(&apart.url).await;
    workflows(&elsewhere).await;
    elsewhere
        .execute("create table run (id text primary key)")
        .await;
    let mapping = "select id as run, id as workspace, null as uid, id as published_run,
                          timestamptz '2020-01-01' as last_used_at from runs r";
    let flags = [
        "--details-query",
        query(Backend::Postgres),
        "--details-ttl",
        "1ms",
        "--history-url",
        &apart.url,
        "--history-table",
        "run",
        "--history-key",
        "id",
        "--history-query",
        mapping,
        // Its history is empty.
        "--read-path",
        "materialized",
    ];
    let server = Server::with(&db.url, &flags).await;
    let client = server.public;
    db.execute("insert into recents.recent_workflow values ('w', '', 'p1', now(), 'p1'), ('w', '', 'p3', now(), 'p3')")
        .await;
    let path = list_path("w", None) + "?expand=details";
    let shown = async || {
        let answer = client.get(&path).await.expect(200);
        let missing = answer.header("recents-details").map(ToOwned::to_owned);
        (answer.published_runs(), missing)
    };
    until("the details are there", async || {
        (shown().await == (vec!["p1".into()], None)).then_some(())
    })
    .await;
    apart.crash();
    until("they are missing", async || {
        let both = vec!["p3".to_owned(), "p1".to_owned()];
        (shown().await == (both, Some("unavailable".into()))).then_some(())
    })
    .await;
    assert!(server.metric("recents_details_failures_total").await > 0.0);
    apart.restart();
    until("they are back", async || {
        (shown().await == (vec!["p1".into()], None)).then_some(())
    })
    .await;
}
