//! Lists read from a streaming replica.

use std::time::{Duration, Instant};

use super::hears;
use crate::support::client::list_path;
use crate::support::uses::body_of;
use crate::support::{Backend, Beside, Cluster, Server, TestDb, Use, until};

const SESSION_TOKEN: &str = "recents-session-token";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_from_a_replica_that_is_behind_keeps_its_promises() {
    let cluster = Cluster::start();
    let standby = cluster.standby();
    // Nothing is kept in one of them, so that each read asks a database.
    let url = standby.url.as_str();
    let kept = Server::with(&cluster.url, &["--read-database-url", url]).await;
    let asks = ["--read-database-url", url, "--cache-capacity", "0"];
    let asks = Server::with(&cluster.url, &asks).await;
    hears(&kept).await;
    let path = list_path("w", None);
    let write = async |published_run: &str, after: i64| {
        let body = body_of(&[Use::new("w", published_run, after)]);
        let written = asks.public.post("/v1/runs", &body).await.expect(200);
        written.header(SESSION_TOKEN).expect("a token").to_owned()
    };
    let newest = async |server: &Server, token: Option<&str>| {
        let headers: Vec<_> = token
            .map(|token| (SESSION_TOKEN, token))
            .into_iter()
            .collect();
        let list = server.public.get_with(&path, &headers).await.expect(200);
        list.published_runs().first().cloned().unwrap_or_default()
    };
    write("first", 0).await;
    for server in [&kept, &asks] {
        until("the replica has it", async || {
            (newest(server, None).await == "first").then_some(())
        })
        .await;
    }
    assert!(
        asks.metric("recents_db_statements_total{statement=\"replayed\"}")
            .await
            > 0.0
    );

    // It gets everything, and shows nothing of it.
    let mut beside = Beside::connect(Backend::Postgres, url).await;
    beside.execute("select pg_wal_replay_pause()").await;
    until("it stands still", async || {
        let state = beside.texts("select pg_get_wal_replay_pause_state()").await;
        (state == ["paused"]).then_some(())
    })
    .await;
    let token = write("second", 1).await;
    assert_eq!(
        newest(&asks, None).await,
        "second",
        "its own write is known there"
    );
    // What nobody told: a write by hand.
    let mut by_hand = Beside::connect(Backend::Postgres, &cluster.url).await;
    by_hand
        .execute(
            "insert into recents.recent_workflow (workspace, published_run, last_used_at)
             values ('by hand', 'p', now())",
        )
        .await;
    let list = asks
        .public
        .get(&list_path("by hand", None))
        .await
        .expect(200);
    assert!(list.published_runs().is_empty(), "the replica answers");
    for server in [&kept, &asks] {
        let started = Instant::now();
        assert_eq!(
            newest(server, Some(&token)).await,
            "second",
            "the primary answers"
        );
        assert!(started.elapsed() < Duration::from_secs(5));
    }
    // What the replica shows is not kept where news of something later were heard.
    until("the news arrived", async || {
        let told = "recents_cache_invalidations_total{reason=\"other_process\"}";
        (kept.metric(told).await > 0.0).then_some(())
    })
    .await;
    newest(&kept, None).await;
    beside.execute("select pg_wal_replay_resume()").await;
    until("the replica caught up", async || {
        (newest(&asks, None).await == "second").then_some(())
    })
    .await;
    assert_eq!(
        newest(&kept, None).await,
        "second",
        "what it showed before was not kept"
    );

    // Without it, the primary answers.
    standby.crash();
    for server in [&kept, &asks] {
        assert_eq!(newest(server, Some(&token)).await, "second");
        assert_eq!(newest(server, None).await, "second");
    }
}

/// After a failover positions are counted on in two logs: that of one server may be beyond a token's, and
/// lack the write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_of_another_timeline_answers_nobody() {
    let old = Cluster::start();
    drop(TestDb::apart(&old.url).await);
    let (promoted, left) = (old.standby(), old.standby());
    let path = list_path("w", None);
    let mut on_promoted = Beside::connect(Backend::Postgres, &promoted.url).await;
    on_promoted.execute("select pg_promote()").await;
    let old_log = "pg_last_wal_replay_lsn()";
    let new_log = "pg_current_wal_flush_lsn()";
    for (primary, replica, position, writer) in [
        (&old, &promoted, new_log, &promoted),
        // It follows the old one still.
        (&promoted, &left, old_log, &old),
    ] {
        let [mut at, mut behind, mut writes] = [
            Beside::connect(Backend::Postgres, &replica.url).await,
            Beside::connect(Backend::Postgres, &primary.url).await,
            Beside::connect(Backend::Postgres, &writer.url).await,
        ];
        let far = "select (pg_current_wal_flush_lsn() + 16777216)::text";
        let far = behind.texts(far).await.remove(0);
        until("the replica is far ahead", async || {
            let fill = "create table if not exists filler (n int); insert into filler values (1)";
            writes.execute(fill).await;
            writes.execute("select pg_switch_wal()").await;
            let ahead = format!("select ({position} > '{far}')::text");
            (at.texts(&ahead).await == ["true"]).then_some(())
        })
        .await;
        let url = replica.url.as_str();
        let asks = ["--read-database-url", url, "--cache-capacity", "0"];
        let server = Server::with(&primary.url, &asks).await;
        hears(&server).await;
        for after in 0..20 {
            let uses = body_of(&[Use::new("w", &format!("p{after}"), after)]);
            let written = server.public.post("/v1/runs", &uses).await.expect(200);
            let token = written.header(SESSION_TOKEN).expect("a token").to_owned();
            for headers in [&[(SESSION_TOKEN, token.as_str())][..], &[]] {
                let list = server.public.get_with(&path, headers).await.expect(200);
                let newest = list.published_runs().first().cloned();
                assert_eq!(newest, Some(format!("p{after}")), "{headers:?}");
            }
        }
        let told =
            |event: &serde_json::Value| event["error"].to_string().contains("it is of timeline");
        server.log.event("it says why", told).await;
    }
}
