//! Lists read from a streaming replica.

use std::ops::Range;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use hyper::body::Bytes;

use super::hears;
use super::replicas::BOUND;
use crate::support::client::list_path;
use crate::support::uses::body_of;
use crate::support::{Backend, Beside, Cluster, Passes, Server, Use, Wire, until};

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
    until("the replica is asked", async || {
        assert_eq!(newest(&asks, None).await, "first");
        (replica_was_asked(&asks).await > 1.0).then_some(())
    })
    .await;

    pause(&standby).await;
    let mut beside = Beside::connect(Backend::Postgres, url).await;
    let token = write("second", 1).await;
    assert_eq!(
        newest(&asks, None).await,
        "second",
        "its own write is known there"
    );
    // What nobody told is seen, too: a write by hand.
    let mut by_hand = Beside::connect(Backend::Postgres, &cluster.url).await;
    by_hand
        .execute(
            "insert into recents.recent_workflow (workspace, published_run, last_used_at)
             values ('by hand', 'p', now())",
        )
        .await;
    let by_hand = list_path("by hand", None);
    until("what was written by hand is seen", async || {
        let list = asks.public.get(&by_hand).await.expect(200);
        (list.published_runs() == ["p"]).then_some(())
    })
    .await;
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

/// While nothing is heard, nothing says how far a replica must be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_nothing_is_heard_the_primary_answers() {
    let cluster = Cluster::start();
    let standby = cluster.standby();
    let wire = Wire::to(&cluster.url).await;
    let url = standby.url.as_str();
    let flags = ["--read-database-url", url, "--listen-url", &wire.url];
    let lost = Server::with(&cluster.url, &flags).await;
    let pooled = ["--read-database-url", url, "--transaction-pooler", "true"];
    let never = Server::with(&cluster.url, &pooled).await;
    hears(&lost).await;
    let writer = asks(&cluster, &standby).await;
    until("the replica answers", async || {
        rounds(&writer, 0..1).await;
        lost.public.get(&list_path("w", None)).await.expect(200);
        (replica_was_asked(&lost).await > 1.0).then_some(())
    })
    .await;
    wire.set(Passes::Nothing);
    pause(&standby).await;
    let late = BOUND + Duration::from_secs(2);
    for (server, within, first) in [(&lost, late, 1), (&never, BOUND, 21)] {
        let newest = async || {
            let list = server.public.get(&list_path("w", None)).await.expect(200);
            list.published_runs().first().cloned().unwrap_or_default()
        };
        rounds(&writer, first..first + 1).await;
        let acknowledged = Instant::now();
        until("what nobody heard of is seen", async || {
            (newest().await == format!("p{first}")).then_some(())
        })
        .await;
        let took = acknowledged.elapsed();
        assert!(took < within, "a read was old for {took:?}");
        for after in first + 1..first + 20 {
            rounds(&writer, after..after + 1).await;
            assert_eq!(newest().await, format!("p{after}"));
        }
        let item = format!("{}/p{}", list_path("w", None), first + 19);
        let gone = writer.public.send("DELETE", &item, &[], Bytes::new());
        gone.await.expect(204);
        let left = format!("p{}", first + 18);
        assert_eq!(newest().await, left, "what was dismissed");
    }
}

/// Of a process of another version, or of anybody: what they say is not known, and not how far that is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_news_that_cannot_be_read_no_replica_that_lacks_them_is_read() {
    let cluster = Cluster::start();
    let standby = cluster.standby();
    let flags = ["--read-database-url", &standby.url, "--cache-ttl", "1h"];
    let server = Server::with(&cluster.url, &flags).await;
    hears(&server).await;
    let mut by_hand = Beside::connect(Backend::Postgres, &cluster.url).await;
    let mut beside = Beside::connect(Backend::Postgres, &standby.url).await;
    let path = list_path("w", None);
    let heard = "recents_cache_invalidations_total{reason=\"other_process\"}";
    for (round, news) in ["2 7 1 1 s1", "", "1 7 1 1 other", "hello", "1"]
        .into_iter()
        .enumerate()
    {
        until_replayed(&cluster, &standby).await;
        until("the replica is asked", async || {
            let asked = replica_was_asked(&server).await;
            let before = server.metric(heard).await;
            by_hand.execute("notify recents, '1 7 0 1 *'").await;
            until("all was forgotten", async || {
                (server.metric(heard).await > before).then_some(())
            })
            .await;
            server.public.get(&path).await.expect(200);
            (replica_was_asked(&server).await > asked).then_some(())
        })
        .await;
        pause(&standby).await;
        let before = server.metric(heard).await;
        by_hand
            .execute(&format!(
                "insert into recents.recent_workflow (workspace, published_run, last_used_at)
                 values ('w', 'p{round}', now()); notify recents, '{news}'"
            ))
            .await;
        until("something was heard", async || {
            (server.metric(heard).await > before).then_some(())
        })
        .await;
        let list = server.public.get(&path).await.expect(200);
        let newest = list.published_runs().first().cloned();
        assert_eq!(newest, Some(format!("p{round}")), "behind `{news}`");
        beside.execute("select pg_wal_replay_resume()").await;
    }
    // As soon as the primary said where it is.
    is_read_again(&server, &mut beside).await;
}

/// Of another database that was at the same address, or of anybody: it says nothing of this one's log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_that_the_primary_never_had_keeps_no_replica_unread() {
    let cluster = Cluster::start();
    let standby = cluster.standby();
    let flags = ["--read-database-url", &standby.url, "--cache-ttl", "1h"];
    let server = Server::with(&cluster.url, &flags).await;
    hears(&server).await;
    let mut by_hand = Beside::connect(Backend::Postgres, &cluster.url).await;
    let mut beside = Beside::connect(Backend::Postgres, &standby.url).await;
    let heard = "recents_cache_invalidations_total{reason=\"other_process\"}";
    for position in [u64::MAX, i64::MAX.cast_unsigned()] {
        let before = server.metric(heard).await;
        by_hand
            .execute(&format!("notify recents, '1 7 {position} 1 *'"))
            .await;
        until("it was heard", async || {
            (server.metric(heard).await > before).then_some(())
        })
        .await;
        is_read_again(&server, &mut beside).await;
    }
}

/// Waits until a replica is read.
async fn is_read_again(server: &Server, replica: &mut Beside) {
    let mut reads = async || {
        let reads =
            "select idx_scan::text from pg_stat_user_tables where relname = 'recent_workflow'";
        let reads = replica.texts(reads).await.remove(0);
        reads.parse::<u64>().expect("a number")
    };
    let (before, mut lists) = (reads().await, 0);
    until("the replica is read again", async || {
        for _ in 0..10 {
            lists += 1;
            let path = list_path(&format!("other{before}-{lists}"), None);
            server.public.get(&path).await.expect(200);
        }
        (reads().await >= before + 50).then_some(())
    })
    .await;
}

/// Without the primary, a replica answers for as long as an answer may be old then, marked; one of which
/// nobody knows how old it is does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_primary_a_replica_is_stale_and_one_that_lags_is_silent() {
    let cluster = Cluster::start();
    let standby = cluster.standby();
    let server = asks(&cluster, &standby).await;
    let path = list_path("w", None);
    let token = rounds(&server, 0..1).await;
    until("the replica answers", async || {
        server.public.get(&path).await.expect(200);
        (replica_was_asked(&server).await > 1.0).then_some(())
    })
    .await;
    until_replayed(&cluster, &standby).await;
    cluster.crash();
    until("it is marked", async || {
        let list = server.public.get(&path).await.expect(200);
        assert_eq!(list.published_runs(), ["p0"]);
        (list.header("recents-stale") == Some("true")).then_some(())
    })
    .await;
    // It is not found out again by each reader, nor by one who comes with others that want more.
    let asked = Instant::now();
    for _ in 0..3 {
        server.public.get(&path).await.expect(200);
    }
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(2), "three reads took {took:?}");
    let session = [(SESSION_TOKEN, token.as_str())];
    let elsewhere = |n| list_path(&format!("elsewhere{n}"), None);
    let both = (0..6).map(async |n| {
        let (path, elsewhere) = (elsewhere(n), elsewhere(n + 6));
        tokio::join!(
            server.public.get_with(&path, &session),
            server.public.get(&elsewhere)
        )
    });
    for (with, without) in join_all(both).await {
        with.expect(503);
        let without = without.expect(200);
        assert_eq!(without.header("recents-stale"), Some("true"));
    }
    server.public.get_with(&path, &session).await.expect(503);
    // Nobody knows what was committed before it started.
    let flags = ["--read-database-url", standby.url.as_str()];
    let started = Server::spawn(&cluster.url, &flags).await;
    started.public.get(&path).await.expect(503);

    cluster.restart();
    until("the primary is back", async || {
        let list = server.public.get(&path).await;
        (list.status == 200 && list.header("recents-stale").is_none()).then_some(())
    })
    .await;
    pause(&standby).await;
    rounds(&server, 1..2).await;
    cluster.crash();
    server.public.get(&path).await.expect(503);
}

/// Whoever must see their own write waits for the primary; whoever need not does not wait for them, also who asks
/// for the same list, and where the replica was never read before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_primary_a_replica_that_nobody_read_yet_answers_all_who_make_do_with_it() {
    let cluster = Cluster::start();
    let standby = cluster.standby();
    let server = asks(&cluster, &standby).await;
    let path = list_path("w", None);
    let uses = body_of(&[Use::new("w", "p0", 0), Use::new("w", "p1", 1)]);
    let written = server.public.post("/v1/runs", &uses).await.expect(200);
    let token = written.header(SESSION_TOKEN).expect("a token").to_owned();
    let mut by_hand = Beside::connect(Backend::Postgres, &cluster.url).await;
    until("the replica is known", async || {
        // So that it is never where the primary last said that it is.
        by_hand.execute("create table if not exists t ()").await;
        (replica_was_asked(&server).await > 0.0).then_some(())
    })
    .await;
    until_replayed(&cluster, &standby).await;
    cluster.crash();
    let session = [(SESSION_TOKEN, token.as_str())];
    let waits = (0..8).map(|_| server.public.get_with(&path, &session));
    let makes_do = async {
        let mut quick = 0;
        for _ in 0..20 {
            let started = Instant::now();
            let list = server.public.get(&path).await.expect(200);
            assert_eq!(list.header("recents-stale"), Some("true"));
            assert_eq!(list.published_runs(), ["p1", "p0"]);
            quick += u32::from(started.elapsed() < Duration::from_secs(1));
        }
        // The first one finds it out.
        assert!(quick >= 18, "{quick} of 20 did not wait");
    };
    let (waited, ()) = tokio::join!(join_all(waits), makes_do);
    waited.into_iter().for_each(|list| drop(list.expect(503)));

    let first = server
        .public
        .get(&format!("{path}?limit=1"))
        .await
        .expect(200);
    let cursor = first.json()["next_cursor"].clone();
    let next = format!(
        "{path}?limit=1&cursor={}",
        cursor.as_str().expect("a cursor")
    );
    let next = server.public.get(&next).await.expect(200);
    assert_eq!(next.header("recents-stale"), Some("true"));
    assert_eq!(next.published_runs(), ["p0"]);
}

/// Each of the standbys behind one address, and one that starts anew meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_primary_every_replica_behind_an_address_answers_also_one_that_starts_anew() {
    let cluster = Cluster::start();
    let standbys = [cluster.standby(), cluster.standby()];
    let wire = Wire::among(&[&standbys[0].url, &standbys[1].url]).await;
    let server = asks_at(&cluster, &wire.url).await;
    let path = list_path("w", None);
    let uses = body_of(&[Use::new("w", "p0", 0)]);
    server.public.post("/v1/runs", &uses).await.expect(200);
    let mut by_hand = Beside::connect(Backend::Postgres, &cluster.url).await;
    until("both are known", async || {
        // So that they are never where the primary last said that it is.
        by_hand.execute("create table if not exists t ()").await;
        (replica_was_asked(&server).await >= 2.0).then_some(())
    })
    .await;
    for standby in &standbys {
        until_replayed(&cluster, standby).await;
    }
    cluster.crash();
    let stale = async || {
        let list = server.public.get(&path).await;
        (list.status == 200 && list.header("recents-stale") == Some("true")).then_some(())
    };
    for _ in 0..4 {
        until("the one that is connected to answers", stale).await;
        // The next connection leads to the other one.
        let end = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                   where pid <> pg_backend_pid() and backend_type = 'client backend'";
        for standby in &standbys {
            let mut at = Beside::connect(Backend::Postgres, &standby.url).await;
            at.execute(end).await;
        }
    }
    standbys[0].crash();
    standbys[0].restart();
    standbys[1].crash();
    until("the one that started anew answers", stale).await;
}

/// A lock is replayed, so that who reads waits for it in both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_locked_in_both_costs_a_read_one_limit_of_a_statement_and_not_two() {
    const STATEMENT: Duration = Duration::from_secs(5);
    // What the replica may take, and a loaded machine be late with.
    const MORE: Duration = Duration::from_millis(2_500);
    let cluster = Cluster::start();
    let standby = cluster.standby();
    let server = asks(&cluster, &standby).await;
    let path = list_path("w", None);
    let token = rounds(&server, 0..1).await;
    let mut blocker = Beside::connect(Backend::Postgres, &cluster.url).await;
    blocker
        .execute("begin; lock table recents.recent_workflow in access exclusive mode")
        .await;
    // Another's commit, which takes the lock to the disk and to the replica.
    let mut by_hand = Beside::connect(Backend::Postgres, &cluster.url).await;
    by_hand.execute("create table t ()").await;
    let mut beside = Beside::connect(Backend::Postgres, &standby.url).await;
    until("the replica is locked, too", async || {
        let held =
            "select pid::text from pg_locks where relation = 'recents.recent_workflow'::regclass
                    and mode = 'AccessExclusiveLock'";
        (!beside.texts(held).await.is_empty()).then_some(())
    })
    .await;
    let session = [(SESSION_TOKEN, token.as_str())];
    let read = async |headers| {
        let started = Instant::now();
        let list = server.public.get_with(&path, headers).await;
        list.expect(503);
        (headers.len(), started.elapsed())
    };
    // By itself, then both together.
    let alone = read(&session).await;
    let both: [&[_]; 2] = [&session, &[]];
    let mut took = join_all(both.map(read)).await;
    took.push(alone);
    for (tokens, took) in took {
        assert!(took < STATEMENT + MORE, "with {tokens} tokens: {took:?}");
    }
    blocker.execute("rollback").await;
}

/// How often a service asked how far its replica is.
pub(super) async fn replica_was_asked(server: &Server) -> f64 {
    let replayed = "recents_db_statements_total{statement=\"replayed\"}";
    server.metric(replayed).await
}

/// Until the standby has all that was written.
async fn until_replayed(primary: &Cluster, standby: &Cluster) {
    let replayed = format!(
        "select (pg_last_wal_replay_lsn() >= '{}')::text",
        position(primary).await
    );
    let mut beside = Beside::connect(Backend::Postgres, &standby.url).await;
    until("the replica has it", async || {
        (beside.texts(&replayed).await == ["true"]).then_some(())
    })
    .await;
}

/// One that keeps nothing, so that each read asks a database; it listens.
pub(super) async fn asks(primary: &Cluster, replica: &Cluster) -> Server {
    asks_at(primary, &replica.url).await
}

/// One whose replica is behind this url.
pub(super) async fn asks_at(primary: &Cluster, url: &str) -> Server {
    let asks = ["--read-database-url", url, "--cache-capacity", "0"];
    let server = Server::with(&primary.url, &asks).await;
    hears(&server).await;
    server
}

/// Writes, and reads each write with its token and without. Returns the last token.
pub(super) async fn rounds(server: &Server, rounds: Range<i64>) -> String {
    let (path, mut last) = (list_path("w", None), String::new());
    for after in rounds {
        let uses = body_of(&[Use::new("w", &format!("p{after}"), after)]);
        let written = server.public.post("/v1/runs", &uses).await.expect(200);
        written
            .header(SESSION_TOKEN)
            .expect("a token")
            .clone_into(&mut last);
        for headers in [&[(SESSION_TOKEN, last.as_str())][..], &[]] {
            let list = server.public.get_with(&path, headers).await.expect(200);
            let newest = list.published_runs().first().cloned();
            assert_eq!(newest, Some(format!("p{after}")), "{headers:?}");
        }
    }
    last
}

pub(super) async fn position(primary: &Cluster) -> String {
    let mut beside = Beside::connect(Backend::Postgres, &primary.url).await;
    let position = "select pg_current_wal_flush_lsn()::text";
    beside.texts(position).await.remove(0)
}

/// It gets everything, and shows nothing of it.
pub(crate) async fn pause(standby: &Cluster) {
    let mut beside = Beside::connect(Backend::Postgres, &standby.url).await;
    beside.execute("select pg_wal_replay_pause()").await;
    until("it stands still", async || {
        let state = beside.texts("select pg_get_wal_replay_pause_state()").await;
        (state == ["paused"]).then_some(())
    })
    .await;
}
