//! One process: what it changes is seen by its next read.

use serde_json::json;

use super::{came_by, hears};
use crate::support::client::{Client, list_path};
use crate::support::meter::Fence;
use crate::support::uses::body_of;
use crate::support::{Backend, Meter, Server, TestDb, Use, both, until};

both!(
    every_write_is_seen_by_the_next_read,
    one_entry_answers_every_limit_and_every_condition_without_a_statement,
    what_is_kept_is_bounded,
);

async fn record(client: &Client, uses: &[Use]) {
    client.post("/v1/runs", &body_of(uses)).await.expect(200);
}

async fn items(client: &Client, path: &str) -> Vec<String> {
    client.get(path).await.expect(200).published_runs()
}

async fn every_write_is_seen_by_the_next_read(db: TestDb) {
    let server = Server::start(&db).await;
    hears(&server).await;
    let client = server.public;
    let (list, users) = (list_path("w", None), list_path("w", Some("u")));
    for i in 10..60 {
        let runs: Vec<String> = (0..3).map(|item| format!("p{i}-{item}")).collect();
        // Used now, because what is cleared now stays hidden until it is used later.
        let used = |run: &String| json!({"workspace": "w", "published_run": run, "uid": "u"});
        let body = json!({"runs": runs.iter().map(used).collect::<Vec<_>>()});
        client.post("/v1/runs", &body).await.expect(200);
        // Ties by published run.
        let newest = |count: usize| runs[..count].iter().rev().cloned().collect::<Vec<_>>();
        for path in [&list, &users] {
            let path = format!("{path}?limit=3");
            assert_eq!(items(&client, &path).await, newest(3), "{path} after a use");
            assert_eq!(items(&client, &path).await, newest(3), "{path}, kept");
        }
        let delete = async |path: String| {
            let none = Default::default();
            client.send("DELETE", &path, &[], none).await.expect(204);
        };
        delete(format!("{users}/{}", runs[2])).await;
        assert_eq!(
            items(&client, &format!("{users}?limit=1")).await,
            newest(2)[..1]
        );
        assert_eq!(
            items(&client, &format!("{list}?limit=3")).await,
            newest(3),
            "untouched"
        );
        delete(format!("/v1/published-runs/{}", runs[2])).await;
        assert_eq!(items(&client, &format!("{list}?limit=2")).await, newest(2));
        delete(users.clone()).await;
        assert_eq!(items(&client, &users).await, [""; 0]);
        let batch =
            json!({"scopes": [{"workspace": "w"}, {"workspace": "w", "uid": "u"}], "limit": 1});
        let lists = client
            .post("/v1/recent-workflows/batch", &batch)
            .await
            .expect(200)
            .json();
        let newest = &lists["lists"][0]["recent_workflows"][0]["published_run"];
        assert_eq!(*newest, runs[1]);
        assert_eq!(lists["lists"][1]["recent_workflows"], json!([]));
    }
    assert!(
        came_by(&server, "hit").await >= 200.0,
        "the cache took part"
    );
}

async fn one_entry_answers_every_limit_and_every_condition_without_a_statement(db: TestDb) {
    let off = Server::with(&db.url, &["--cache-capacity", "0"]).await;
    let meter = Meter::with(&db, &[]).await;
    hears(&meter.server).await;
    let uses: Vec<_> = (0..150)
        .map(|i| Use::new("w", &format!("p{i}"), i))
        .collect();
    record(meter.client(), &uses).await;
    let path = list_path("w", None);
    let first = meter.client().get(&path).await.expect(200);
    let sent = meter.statements(Fence::Write, async || {
        for limit in [1, 2, 3, 4, 5, 50, 99, 100] {
            let path = format!("{path}?limit={limit}");
            let kept = meter.client().get(&path).await.expect(200);
            let read = off.public.get(&path).await.expect(200);
            assert_eq!(kept.body, read.body, "{path}");
            assert_eq!(kept.header("etag"), read.header("etag"), "{path}");
            let tag = kept.header("etag").expect("a tag");
            let known = [("if-none-match", tag)];
            let unchanged = meter.client().get_with(&path, &known).await.expect(304);
            for name in ["etag", "cache-control"] {
                assert_eq!(unchanged.header(name), kept.header(name), "{name}");
            }
            assert!(unchanged.body.is_empty());
        }
    });
    // The listener asks for positions by itself.
    let mut sent = sent.await;
    sent.retain(|name| name != "position");
    assert_eq!(sent, [""; 0]);
    assert_eq!(meter.client().get(&path).await.expect(200).body, first.body);
    assert_eq!(came_by(&off, "hit").await, 0.0, "off is off");
    assert_eq!(came_by(&off, "bypass").await, 8.0);
}

async fn what_is_kept_is_bounded(db: TestDb) {
    let capacity = 1024 * 1024;
    let server = Server::with(&db.url, &["--cache-capacity", "1MiB"]).await;
    hears(&server).await;
    let use_of = |i| Use::new(&format!("w{}", i % 2_000), &format!("p{}", i / 2_000), i);
    let uses: Vec<_> = (0..4_000).map(use_of).collect();
    for uses in uses.chunks(1_000) {
        record(&server.public, uses).await;
    }
    let scopes: Vec<_> = (0..2_000)
        .map(|i| json!({"workspace": format!("w{i}")}))
        .collect();
    for scopes in scopes.chunks(100) {
        let body = json!({"scopes": scopes});
        server
            .public
            .post("/v1/recent-workflows/batch", &body)
            .await
            .expect(200);
    }
    let (entries, bytes) = (
        server.metric("recents_cache_entries").await,
        server.metric("recents_cache_bytes").await,
    );
    assert!(entries > 100.0 && entries < 2_000.0, "{entries} lists");
    assert!(bytes <= f64::from(capacity), "{bytes} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_changed_by_hand_is_given_until_an_operator_has_it_forgotten() {
    let db = TestDb::migrated(Backend::Postgres).await;
    let (server, other) = (Server::start(&db).await, Server::start(&db).await);
    for server in [&server, &other] {
        hears(server).await;
    }
    let path = list_path("5", None);
    record(&server.public, &[Use::new("5", "88", 0)]).await;
    for (at, forget) in [
        json!({"workspace": 5}),
        json!({"published_run": "88"}),
        json!({"all": true}),
    ]
    .iter()
    .enumerate()
    {
        for server in [&server, &other] {
            until("the list is kept", async || {
                let hits = came_by(server, "hit").await;
                server.public.get(&path).await.expect(200);
                (came_by(server, "hit").await > hits).then_some(())
            })
            .await;
        }
        db.execute(&format!(
            "update {{recents}}recent_workflow set run = 'by hand {at}'"
        ))
        .await;
        let run = async |server: &Server| {
            let list = server.public.get(&path).await.expect(200).json();
            list["recent_workflows"][0]["run"]
                .as_str()
                .unwrap_or("none")
                .to_owned()
        };
        assert_ne!(run(&server).await, format!("by hand {at}"), "it is kept");
        server
            .admin
            .post("/admin/v1/cache/invalidate", forget)
            .await
            .expect(204);
        assert_eq!(run(&server).await, format!("by hand {at}"), "{forget}");
        until("the other replica heard of it", async || {
            (run(&other).await == format!("by hand {at}")).then_some(())
        })
        .await;
    }
    for bad in [
        json!({}),
        json!({"all": false}),
        json!({"workspace": "5", "all": true}),
        json!([]),
    ] {
        server
            .admin
            .post("/admin/v1/cache/invalidate", &bad)
            .await
            .expect(400);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_tells_is_seen_when_its_time_is_over() {
    let db = TestDb::migrated(Backend::Postgres).await;
    let server = Server::with(&db.url, &["--cache-ttl", "1s"]).await;
    hears(&server).await;
    record(&server.public, &[Use::new("w", "before", 0)]).await;
    let path = list_path("w", None);
    assert_eq!(items(&server.public, &path).await, ["before"]);
    db.execute("update {recents}recent_workflow set published_run = 'after'")
        .await;
    until("it is read again", async || {
        (items(&server.public, &path).await == ["after"]).then_some(())
    })
    .await;
}
