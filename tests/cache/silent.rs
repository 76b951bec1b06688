//! A connection that listens goes silent, and is not lost: a hole in the network, a pooler in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::replicas::{BOUND, newest, rounds, write};
use super::standby::replica_was_asked;
use super::{came_by, hears};
use crate::capture::followed::serve_on;
use crate::support::client::{Answer, list_path};
use crate::support::history::Setup;
use crate::support::uses::body_of;
use crate::support::{Backend, Cluster, Passes, Server, TestDb, Use, Wire, recents, until};

/// What a loaded machine may be late with, beyond the published bound.
const LATE: Duration = Duration::from_secs(2);
/// As published: how long a read without a token waits for the primary, where something else may answer.
const WAITS: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_that_hears_nothing_any_more_makes_no_read_stale() {
    let db = TestDb::migrated(Backend::Postgres).await;
    let wire = Wire::to(&db.url).await;
    let a = Server::start(&db).await;
    let b = Server::with(&db.url, &["--listen-url", &wire.url, "--cache-ttl", "1h"]).await;
    for server in [&a, &b] {
        hears(server).await;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let with_tokens = tokio::spawn(rounds(a.public, b.public, Some(Arc::clone(&stop))));
    let path = list_path("quiet", None);
    let read = async || newest(&b.public.get(&path).await.expect(200));
    let mut at = 0;
    for silence in [Passes::Nothing, Passes::AllButNotifications] {
        write(a.public, "quiet", at).await;
        until("the list is kept as it is", async || {
            let hits = came_by(&b, "hit").await;
            let found = read().await;
            (found == at && came_by(&b, "hit").await > hits).then_some(())
        })
        .await;
        let said = b.log.events().len();
        wire.set(silence);
        at += 1;
        write(a.public, "quiet", at).await;
        let acknowledged = Instant::now();
        until("what nobody heard of is seen", async || {
            (read().await == at).then_some(())
        })
        .await;
        let took = acknowledged.elapsed();
        assert!(
            took < BOUND + LATE,
            "{silence:?}: a read was old for {took:?}"
        );
        until("it says so", async || {
            let events = b.log.events();
            let deaf = |event: &&serde_json::Value| {
                event["message"].as_str().is_some_and(|text| {
                    text.starts_with("changes of other processes cannot be heard")
                })
            };
            events.iter().skip(said).find(deaf).map(drop)
        })
        .await;
        // For as long as it lasts, the database is asked.
        let bypassed = came_by(&b, "bypass").await;
        for _ in 0..20 {
            at += 1;
            write(a.public, "quiet", at).await;
            assert_eq!(read().await, at, "{silence:?}");
        }
        assert!(came_by(&b, "bypass").await >= bypassed + 20.0);
        wire.set(Passes::Everything);
        until("it keeps lists again", async || {
            let hits = came_by(&b, "hit").await;
            assert_eq!(read().await, at, "{silence:?}, when it is over");
            (came_by(&b, "hit").await > hits).then_some(())
        })
        .await;
    }
    stop.store(true, Ordering::SeqCst);
    with_tokens.await.expect("no stale read");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_dies_in_silence_keeps_neither_news_back_nor_a_stop() {
    let db = TestDb::migrated(Backend::Postgres).await;
    let wire = Wire::to(&db.url).await;
    let mut a = Server::with(&wire.url, &[]).await;
    let b = Server::with(&db.url, &["--cache-ttl", "1h"]).await;
    for server in [&a, &b] {
        hears(server).await;
    }
    let path = list_path("quiet", None);
    let read = async || newest(&b.public.get(&path).await.expect(200));
    write(b.public, "quiet", 0).await;
    until("the list is kept", async || {
        let hits = came_by(&b, "hit").await;
        read().await;
        (came_by(&b, "hit").await > hits).then_some(())
    })
    .await;
    wire.swallow("pg_notify");
    write(a.public, "quiet", 1).await;
    until("its news are swallowed", async || {
        wire.has_swallowed().then_some(())
    })
    .await;
    let acknowledged = Instant::now();
    until("what was told into it is told again", async || {
        (read().await == 1).then_some(())
    })
    .await;
    let took = acknowledged.elapsed();
    assert!(took < BOUND + LATE, "a read was old for {took:?}");
    a.terminate();
    let asked = Instant::now();
    assert_eq!(a.ended().await.code(), Some(0), "{}", a.log.text());
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(15), "a stop took {took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_is_cut_off_in_silence_keeps_no_place() {
    let setup = Setup::plain(TestDb::migrated(Backend::Postgres).await, 31, 50).await;
    let wire = Wire::to(&setup.store.url).await;
    let flags = ["--pool-size", "1", "--history-url", &setup.store.url];
    let server = serve_on(&wire.url, &setup, &flags).await;
    wire.swallow("recents.note (run)");
    let run = &setup.history.runs[0].key;
    let body = body_of(&[Use::new("w", "p", 0).run(run)]);
    server.public.post("/v1/runs", &body).await.expect(503);
    assert!(wire.has_swallowed());
    let given_up = Instant::now();
    until("it writes again", async || {
        let status = server.public.post("/v1/runs", &body).await.status.as_u16();
        assert!([200, 503].contains(&status), "{status}");
        (status == 200).then_some(())
    })
    .await;
    let took = given_up.elapsed();
    assert!(took < Duration::from_secs(20), "no place for {took:?}");
}

/// Notifications are of one database: whoever listens elsewhere hears itself, and nobody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_listens_to_another_database_or_server_keeps_nothing_and_says_so() {
    let db = TestDb::migrated(Backend::Postgres).await;
    let (other, cluster) = (TestDb::migrated(Backend::Postgres).await, Cluster::start());
    let a = Server::start(&db).await;
    let mut at = 0;
    for elsewhere in [&other.url, &cluster.url] {
        let b = Server::with(&db.url, &["--listen-url", elsewhere]).await;
        let told = |event: &serde_json::Value| {
            let text = event.to_string();
            text.contains("what the store tells is not heard where listen_url leads")
        };
        b.log.event("it says so", told).await;
        let path = list_path("quiet", None);
        for _ in 0..20 {
            at += 1;
            write(a.public, "quiet", at).await;
            assert_eq!(newest(&b.public.get(&path).await.expect(200)), at);
        }
        assert_eq!(came_by(&b, "hit").await, 0.0);
        let urls = ["--database-url", &db.url, "--listen-url", elsewhere];
        let told = recents(&[&["doctor", "--json"][..], &urls].concat())
            .expect(1)
            .out;
        assert!(told.contains("nothing is heard there"), "{told}");
    }
}

/// The list of `w`, with one use, is kept.
async fn kept(server: &Server, path: &str) {
    until("the list is kept", async || {
        write(server.public, "w", 0).await;
        let hits = came_by(server, "hit").await;
        server.public.get(path).await.expect(200);
        server.public.get(path).await.expect(200);
        (came_by(server, "hit").await > hits).then_some(())
    })
    .await;
}

/// Connections that were used just now are believed to be alive, and hold a read for ten seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_falls_silent_keeps_nobody_waiting_for_whom_a_kept_answer_will_do() {
    let cluster = Cluster::start();
    let server = Server::with(&cluster.url, &[]).await;
    hears(&server).await;
    let path = list_path("w", None);
    kept(&server, &path).await;
    let written = write(server.public, "w", 1).await;
    let token = written.header("recents-session-token").expect("a token");
    let frozen = cluster.freeze();
    let session = [("recents-session-token", token)];
    let with_token = async { server.public.get_with(&path, &session).await };
    let without = async {
        let first = stale_within(&server, &path, WAITS + LATE).await;
        assert_eq!(newest(&first), 0, "what was known");
        // The next ones do not find it out again.
        until("it is known to be silent", async || {
            let started = Instant::now();
            stale_within(&server, &path, WAITS + LATE).await;
            (started.elapsed() < Duration::from_secs(1)).then_some(())
        })
        .await;
    };
    let (with_token, ()) = tokio::join!(with_token, without);
    assert_ne!(with_token.header("recents-stale"), Some("true"));
    with_token.expect(503);
    drop(frozen);
    until_fresh(&server, &path).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_falls_silent_keeps_nobody_waiting_for_whom_a_replica_will_do() {
    let cluster = Cluster::start();
    let standby = cluster.standby();
    let wire = Wire::to(&cluster.url).await;
    let replica = ["--read-database-url", &standby.url, "--cache-capacity", "0"];
    let flags = [&replica[..], &["--listen-url", &wire.url]].concat();
    let server = Server::with(&cluster.url, &flags).await;
    hears(&server).await;
    let path = list_path("w", None);
    for after in 0..2 {
        write(server.public, "w", after).await;
    }
    let first = server.public.get(&format!("{path}?limit=1")).await;
    let cursor = first.expect(200).json()["next_cursor"].clone();
    let cursor = cursor.as_str().expect("a cursor").to_owned();
    let next = format!("{path}?limit=1&cursor={cursor}");
    until("the replica has all that was told", async || {
        let asked = replica_was_asked(&server).await;
        server.public.get(&path).await.expect(200);
        (replica_was_asked(&server).await > asked).then_some(())
    })
    .await;
    // Where nothing is heard any more, the primary is read, which keeps its connections warm.
    wire.set(Passes::Nothing);
    until("the primary is read", async || {
        let asked = replica_was_asked(&server).await;
        for path in [&path, &next] {
            server.public.get(path).await.expect(200);
        }
        (replica_was_asked(&server).await <= asked).then_some(())
    })
    .await;
    let warm = (0..8).map(|_| server.public.get(&path));
    join_all(warm).await;
    let frozen = cluster.freeze();
    let (first, second) = tokio::join!(
        stale_within(&server, &path, WAITS + LATE),
        stale_within(&server, &next, WAITS + LATE)
    );
    assert_eq!(first.published_runs(), ["p1", "p0"]);
    assert_eq!(second.published_runs(), ["p0"]);
    drop(frozen);
    until_fresh(&server, &path).await;
}

/// It is there, and slow: nobody is told that it is away, and who must see what is there waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_is_slow_gives_kept_answers_only_to_whom_it_keeps_waiting() {
    let db = TestDb::migrated(Backend::Postgres).await;
    let server = Server::with(&db.url, &["--statement-timeout", "1min"]).await;
    hears(&server).await;
    let path = list_path("w", None);
    kept(&server, &path).await;
    let written = write(server.public, "w", 1).await;
    let token = written.header("recents-session-token").expect("a token");
    let session = [("recents-session-token", token)];
    let mut blocker = db.connect().await;
    blocker
        .execute("begin; lock table recents.recent_workflow in access exclusive mode")
        .await;
    let with_token = async { server.public.get_with(&path, &session).await };
    let without = async {
        for _ in 0..2 {
            let started = Instant::now();
            let list = stale_within(&server, &path, WAITS + LATE).await;
            assert_eq!(newest(&list), 0, "what was known");
            let took = started.elapsed();
            assert!(took >= WAITS, "it was waited for {took:?} only");
        }
        blocker.execute("rollback").await;
        let list = server.public.get(&path).await.expect(200);
        assert_eq!(list.header("recents-stale"), None);
        assert_eq!(newest(&list), 1);
    };
    let (with_token, ()) = tokio::join!(with_token, without);
    assert_eq!(newest(&with_token.expect(200)), 1);
}

/// Reads a list that may be old.
async fn stale_within(server: &Server, path: &str, within: Duration) -> Answer {
    let started = Instant::now();
    let list = server.public.get(path).await.expect(200);
    let took = started.elapsed();
    assert!(took < within, "a read took {took:?}");
    assert_eq!(list.header("recents-stale"), Some("true"));
    list
}

/// Until the primary answers again.
async fn until_fresh(server: &Server, path: &str) {
    let back = Instant::now();
    until("it is fresh again", async || {
        let list = server.public.get(path).await;
        (list.status == 200 && list.header("recents-stale").is_none()).then_some(())
    })
    .await;
    let took = back.elapsed();
    assert!(took < Duration::from_secs(2), "it took {took:?}");
}
