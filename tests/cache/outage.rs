//! The database is away for a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use super::{came_by, hears};
use crate::support::client::{list_path, published_runs};
use crate::support::uses::body_of;
use crate::support::{Backend, Beside, Cluster, Server, TestDb, Use, until};

/// From the database's return to the first answer out of it.
const RECOVERY: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_known_is_given_and_marked_while_the_database_is_away() {
    let cluster = Cluster::start();
    let server = Server::with(&cluster.url, &[]).await;
    hears(&server).await;
    let client = server.public;
    let written = client
        .post(
            "/v1/runs",
            &body_of(&[Use::new("w", "p", 0), Use::new("v", "p", 0)]),
        )
        .await
        .expect(200);
    let token = written
        .header("recents-session-token")
        .expect("a token")
        .to_owned();
    let path = list_path("w", None);
    let fresh = client.get(&path).await.expect(200);
    assert_eq!(fresh.header("recents-stale"), None);

    cluster.crash();
    let stale = until("the answer is marked", async || {
        let answer = client.get(&path).await;
        (answer.header("recents-stale") == Some("true")).then_some(answer)
    })
    .await
    .expect(200);
    assert_eq!(stale.body, fresh.body);
    let at_once = Instant::now();
    for _ in 0..10 {
        client.get(&path).await.expect(200);
    }
    let waited = at_once.elapsed();
    assert!(
        waited < Duration::from_secs(1),
        "ten readers waited {waited:?}"
    );
    let session = [("recents-session-token", token.as_str())];
    let refused = client.get_with(&path, &session).await.expect(503);
    assert_eq!(refused.problem(), "database_unavailable");
    assert_eq!(refused.header("retry-after"), Some("1"));
    client.get(&list_path("v", None)).await.expect(503);
    client.get(&format!("{path}?limit=100")).await.expect(200);
    let batch = json!({"scopes": [{"workspace": "w"}]});
    let batch = client
        .post("/v1/recent-workflows/batch", &batch)
        .await
        .expect(200);
    assert_eq!(batch.header("recents-stale"), Some("true"));
    assert!(came_by(&server, "stale").await >= 3.0);

    cluster.restart();
    let back = Instant::now();
    until("it is fresh again", async || {
        let answer = client.get_with(&path, &session).await;
        (answer.status == 200).then(|| assert_eq!(answer.header("recents-stale"), None))
    })
    .await;
    assert!(back.elapsed() < RECOVERY, "it took {:?}", back.elapsed());
    client
        .post("/v1/runs", &body_of(&[Use::new("w", "after", 1)]))
        .await
        .expect(200);
    let list = client.get(&path).await.expect(200);
    assert_eq!(list.published_runs(), ["after", "p"]);
    until("answers are kept again", async || {
        let hits = came_by(&server, "hit").await;
        client.get(&path).await.expect(200);
        (came_by(&server, "hit").await > hits).then_some(())
    })
    .await;
}

/// Many clients, who go on reading and writing while the database goes and comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_too_stale_answers_are_marked_and_soon_over() {
    const CLIENTS: usize = 12;
    let cluster = Cluster::start();
    let server = Server::with(&cluster.url, &[]).await;
    hears(&server).await;
    let client = server.public;
    let over = Arc::new(AtomicBool::new(false));
    let [stale, fresh] = [0, 1].map(|_| Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|at| {
            let (over, stale, fresh) = (over.clone(), stale.clone(), fresh.clone());
            tokio::spawn(async move {
                let workspace = format!("w{at}");
                let path = list_path(&workspace, None);
                let mut written = Vec::new();
                for round in 0.. {
                    if over.load(Ordering::SeqCst) {
                        break;
                    }
                    let item = format!("p{round}");
                    let uses = body_of(&[Use::new(&workspace, &item, round)]);
                    let answer = client.post("/v1/runs", &uses).await;
                    let token = answer
                        .header("recents-session-token")
                        .map(ToOwned::to_owned);
                    if answer.status == 200 {
                        written.push(item);
                    }
                    let read = client.get(&path).await;
                    let is_stale = read.header("recents-stale") == Some("true");
                    if read.status != 200 {
                        assert_eq!(read.status, 503);
                        continue;
                    }
                    let count = if is_stale { &stale } else { &fresh };
                    count.fetch_add(1, Ordering::SeqCst);
                    if let Some(token) = token {
                        let session = [("recents-session-token", token.as_str())];
                        let own = client.get_with(&path, &session).await;
                        assert_eq!(own.header("recents-stale"), None, "with a token");
                        if own.status == 200 {
                            assert_eq!(own.published_runs().first(), written.last());
                        }
                    }
                }
                written
            })
        })
        .collect();
    let reaches = async |what: &str, count: &AtomicU64, more: usize| {
        let aim = count.load(Ordering::SeqCst) + more as u64;
        until(what, async || {
            (count.load(Ordering::SeqCst) >= aim).then_some(())
        })
        .await;
    };
    reaches("lists are read", &fresh, 5 * CLIENTS).await;
    cluster.crash();
    // A client's next read waits until its write was tried in vain, for seconds.
    reaches("stale answers are given", &stale, 2 * CLIENTS).await;
    cluster.restart();
    let back = Instant::now();
    reaches("an answer is fresh again", &fresh, 1).await;
    assert!(back.elapsed() < RECOVERY, "it took {:?}", back.elapsed());
    over.store(true, Ordering::SeqCst);
    for (at, client_of_it) in clients.into_iter().enumerate() {
        let written = client_of_it.await.expect("no wrong answer");
        let path = list_path(&format!("w{at}"), None) + "?limit=1";
        let list = client.get(&path).await.expect(200);
        assert_eq!(list.header("recents-stale"), None);
        // A write of which the answer was lost may be newer.
        let newest = |item: &String| item[1..].parse::<u32>().expect("a number");
        let (found, last) = (&list.published_runs()[0], written.last().expect("a write"));
        assert!(newest(found) >= newest(last), "{found} and {last}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_with_details_are_filled_of_what_was_known_and_are_shorter_where_that_is_not_enough()
{
    let cluster = Cluster::start();
    let details = "select id as published_run, id as title from workflow where id = any($1)";
    let flags = ["--details-query", details, "--details-ttl", "1h"];
    let db = TestDb::apart(&cluster.url).await;
    db.execute("create table workflow (id text primary key)")
        .await;
    db.execute("insert into workflow select 'kept' || n from generate_series(0, 9) as n")
        .await;
    let server = Server::with(&cluster.url, &flags).await;
    hears(&server).await;
    let client = server.public;
    // Behind workflows that are gone: ten, and as many as are known of a list less one.
    let mut uses = Vec::new();
    for (workspace, gone) in [("near", 10), ("far", 100)] {
        uses.extend((0..10).map(|n| Use::new(workspace, &format!("kept{n}"), n)));
        uses.extend((0..gone).map(|n| Use::new(workspace, &format!("gone{n}"), 10 + n)));
    }
    let written = client.post("/v1/runs", &body_of(&uses)).await.expect(200);
    let token = written.header("recents-session-token").expect("a token");
    let session = [("recents-session-token", token)];
    let path = |workspace| list_path(workspace, None) + "?expand=details";
    let (near, far) = (path("near"), path("far"));
    let whole = ["kept9", "kept8", "kept7", "kept6"];
    for path in [&near, &far] {
        until("its list is kept", async || {
            let hits = came_by(&server, "hit").await;
            let fresh = client.get(path).await.expect(200);
            assert_eq!(fresh.published_runs(), whole);
            assert_eq!(fresh.header("recents-stale"), None);
            (came_by(&server, "hit").await > hits).then_some(())
        })
        .await;
    }
    let fresh = client.get(&near).await.expect(200);

    cluster.crash();
    let stale = until("the answer is marked", async || {
        let answer = client.get(&near).await.expect(200);
        (answer.header("recents-stale") == Some("true")).then_some(answer)
    })
    .await;
    assert_eq!(stale.body, fresh.body);
    assert_eq!(stale.header("recents-details"), None);
    let at_once = Instant::now();
    for _ in 0..10 {
        let short = client.get(&far).await.expect(200);
        assert_eq!(short.published_runs(), ["kept9"]);
        assert_eq!(short.header("recents-stale"), Some("true"));
        assert!(short.json()["next_cursor"].is_string(), "there may be more");
    }
    let waited = at_once.elapsed();
    assert!(
        waited < Duration::from_secs(1),
        "ten readers waited {waited:?}"
    );
    client.get_with(&far, &session).await.expect(503);
    let scopes = json!([{"workspace": "near"}, {"workspace": "far"}]);
    let batch = json!({"scopes": scopes, "expand": ["details"]});
    let batch = client.post("/v1/recent-workflows/batch", &batch).await;
    assert_eq!(batch.header("recents-stale"), Some("true"));
    let lists = &batch.expect(200).json()["lists"];
    assert_eq!(published_runs(&lists[0]), whole);
    assert_eq!(published_runs(&lists[1]), ["kept9"]);

    cluster.restart();
    until("it is whole and fresh again", async || {
        let answer = client.get(&far).await.expect(200);
        // The details' own connections come back by themselves, and until then are said to be missing.
        let marks = ["recents-stale", "recents-details"];
        let is_whole = marks.iter().all(|mark| answer.header(mark).is_none());
        is_whole.then(|| assert_eq!(answer.published_runs(), whole))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_old_is_not_given_even_then() {
    let cluster = Cluster::start();
    let server = Server::with(&cluster.url, &["--cache-stale-if-error", "1ms"]).await;
    hears(&server).await;
    let client = server.public;
    client
        .post("/v1/runs", &body_of(&[Use::new("w", "p", 0)]))
        .await
        .expect(200);
    let path = list_path("w", None);
    client.get(&path).await.expect(200);
    cluster.crash();
    until("nothing is given any more", async || {
        let answer = client.get(&path).await;
        assert_eq!(answer.header("recents-stale"), None);
        (answer.status == 503).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_dismissed_is_not_given_even_then() {
    let cluster = Cluster::start();
    let servers = [
        Server::with(&cluster.url, &[]).await,
        Server::with(&cluster.url, &[]).await,
    ];
    let (here, there) = (servers[0].public, servers[1].public);
    let workspaces = ["item", "list", "everywhere", "written", "kept"];
    let uses = workspaces.map(|workspace| Use::new(workspace, &format!("p of {workspace}"), 0));
    here.post("/v1/runs", &body_of(&uses)).await.expect(200);
    for server in &servers {
        hears(server).await;
        for workspace in workspaces {
            until("its list is kept", async || {
                let hits = came_by(server, "hit").await;
                server
                    .public
                    .get(&list_path(workspace, None))
                    .await
                    .expect(200);
                (came_by(server, "hit").await > hits).then_some(())
            })
            .await;
        }
    }
    let heard = "recents_cache_invalidations_total{reason=\"other_process\"}";
    let before = servers[1].metric(heard).await;
    for path in [
        format!("{}/p%20of%20item", list_path("item", None)),
        list_path("list", None),
        "/v1/published-runs/p%20of%20everywhere".to_owned(),
    ] {
        let nothing = hyper::body::Bytes::new();
        here.send("DELETE", &path, &[], nothing).await.expect(204);
    }
    let written = body_of(&[Use::new("written", "p of written", 1)]);
    here.post("/v1/runs", &written).await.expect(200);
    until("the other replica heard of all", async || {
        (servers[1].metric(heard).await >= before + 4.0).then_some(())
    })
    .await;
    cluster.crash();
    for client in [here, there] {
        until("the database is away", async || {
            let stale = client.get(&list_path("written", None)).await;
            (stale.header("recents-stale") == Some("true")).then_some(())
        })
        .await;
        for workspace in ["item", "list", "everywhere"] {
            client.get(&list_path(workspace, None)).await.expect(503);
        }
        client.get(&list_path("kept", None)).await.expect(200);
    }
}

/// The write was committed, and nobody heard that it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_of_which_only_the_answer_is_lost_is_seen_by_the_next_read() {
    let cluster = Cluster::start();
    let server = Server::with(&cluster.url, &[]).await;
    hears(&server).await;
    let (client, path) = (server.public, list_path("w", None));
    client
        .post("/v1/runs", &body_of(&[Use::new("w", "before", 0)]))
        .await
        .expect(200);
    until("the list is kept", async || {
        let hits = came_by(&server, "hit").await;
        client.get(&path).await.expect(200);
        (came_by(&server, "hit").await > hits).then_some(())
    })
    .await;
    // A commit that waits for a standby is on this disk already; ending its connection ends the wait.
    let url = cluster.url.clone();
    let mut beside = Beside::connect(Backend::Postgres, &url).await;
    let standby = |name| {
        format!("alter system set synchronous_standby_names = '{name}'; select pg_reload_conf()")
    };
    beside.execute("create table probe (n integer)").await;
    for statement in standby("nobody").split(';') {
        beside.execute(statement).await;
    }
    let mut break_off = async |table: &str| {
        let ended = format!(
            "select pg_terminate_backend(pid)::text from pg_stat_activity
             where wait_event = 'SyncRep' and query like 'insert into {table}%'"
        );
        until("a commit waits, and is broken off", async || {
            (!beside.texts(&ended).await.is_empty()).then_some(())
        })
        .await;
    };
    // The setting is not everywhere at once.
    let probe = tokio::spawn(async move {
        let mut conn = Beside::connect(Backend::Postgres, &url).await;
        while conn
            .try_execute("insert into probe values (1)")
            .await
            .is_ok()
        {}
    });
    break_off("probe").await;
    probe.await.expect("its connection ended");
    let written = tokio::spawn(async move {
        let use_of_it = body_of(&[Use::new("w", "behind", 1)]);
        client.post("/v1/runs", &use_of_it).await
    });
    break_off("recents").await;
    written.await.expect("an answer").expect(503);
    for statement in standby("").split(';') {
        beside.execute(statement).await;
    }
    let list = client.get(&path).await.expect(200);
    assert_eq!(list.published_runs(), ["behind", "before"]);
}
