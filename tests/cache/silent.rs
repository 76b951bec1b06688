//! A connection that listens goes silent, and is not lost: a hole in the network, a pooler in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::replicas::{BOUND, newest, rounds, write};
use super::{came_by, hears};
use crate::capture::followed::serve_on;
use crate::support::client::list_path;
use crate::support::history::Setup;
use crate::support::uses::body_of;
use crate::support::{Backend, Cluster, Passes, Server, TestDb, Use, Wire, recents, until};

/// What a loaded machine may be late with, beyond the published bound.
const LATE: Duration = Duration::from_secs(2);

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
