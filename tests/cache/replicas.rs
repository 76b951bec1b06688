//! Two replicas on one PostgreSQL: what one writes, the other reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use recents::store::{Position, Token};
use serde_json::json;

use super::{came_by, hears};
use crate::support::client::{Answer, Client, list_path};
use crate::support::uses::{T0, body_of};
use crate::support::{Backend, Server, TestDb, Use, until};

const SESSION_TOKEN: &str = "recents-session-token";
/// Sessions at once, and what each of them writes and reads.
const SESSIONS: usize = 8;
const ROUNDS: i64 = 1_250;
/// As published: how long a read without a token may be old, where the listener works.
pub(super) const BOUND: Duration = Duration::from_secs(2);

async fn replicas(db: &TestDb) -> [Server; 2] {
    let servers = [Server::start(db).await, Server::start(db).await];
    for server in &servers {
        hears(server).await;
    }
    servers
}

pub(super) async fn write(client: Client, workspace: &str, after: i64) -> Answer {
    let body = body_of(&[Use::new(workspace, &format!("p{}", after % 5), after)]);
    client.post("/v1/runs", &body).await.expect(200)
}

/// The time of the newest use of a list, in microseconds behind the first.
pub(super) fn newest(list: &Answer) -> i64 {
    let text = list.json()["recent_workflows"][0]["last_used_at"].clone();
    let time = text.as_str().map(recents::model::Time::parse_rfc3339);
    time.and_then(Result::ok)
        .map_or(-1, |time| time.micros() - T0)
}

/// Writes to one replica and reads from the other, with the token, in several sessions at once; half of
/// them share a workspace.
pub(super) async fn rounds(writer: Client, reader: Client, stop: Option<Arc<AtomicBool>>) {
    let clock = Arc::new(AtomicI64::new(0));
    let session = |at: usize| {
        let (clock, stop) = (Arc::clone(&clock), stop.clone());
        async move {
            let workspace = match at & 1 {
                0 => "shared".to_owned(),
                _ => format!("own {at}"),
            };
            let path = list_path(&workspace, None) + "?limit=1";
            for round in 0.. {
                let is_over = match &stop {
                    Some(stop) => stop.load(Ordering::SeqCst),
                    None => round == ROUNDS,
                };
                if is_over {
                    break;
                }
                let after = clock.fetch_add(1, Ordering::SeqCst);
                let written = write(writer, &workspace, after).await;
                let token = written.header(SESSION_TOKEN).expect("a token");
                let read = reader.get_with(&path, &[(SESSION_TOKEN, token)]).await;
                let found = newest(&read.expect(200));
                assert!(
                    found >= after,
                    "session {at} wrote {after} in {workspace} and read {found} with its token"
                );
            }
        }
    };
    let sessions: Vec<_> = (0..SESSIONS).map(|at| tokio::spawn(session(at))).collect();
    for session in sessions {
        session.await.expect("no stale read");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_with_a_token_is_never_older_than_the_write() {
    let db = TestDb::migrated(Backend::Postgres).await;
    let [a, b] = replicas(&db).await;
    tokio::join!(
        rounds(a.public, b.public, None),
        rounds(b.public, a.public, None)
    );
    // The read that follows the news of a write is given from the cache.
    let written = write(a.public, "own", 1_000_000_000).await;
    let token = written.header(SESSION_TOKEN).expect("a token").to_owned();
    let path = list_path("own", None);
    until("the news arrived, and the list is kept", async || {
        let hits = came_by(&b, "hit").await;
        let session = [(SESSION_TOKEN, token.as_str())];
        assert_eq!(
            newest(&b.public.get_with(&path, &session).await.expect(200)),
            1_000_000_000
        );
        (came_by(&b, "hit").await > hits).then_some(())
    })
    .await;
    let bad = b
        .public
        .get_with(&path, &[(SESSION_TOKEN, "made-up")])
        .await
        .expect(400);
    assert_eq!(
        bad.json()["errors"][0]["parameter"],
        "Recents-Session-Token"
    );
}

/// A session that writes here and there sends the token of its last write only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_stands_for_all_that_was_written_before_it_wherever() {
    let db = TestDb::migrated(Backend::Postgres).await;
    let [a, b] = replicas(&db).await;
    let sessions = (0..SESSIONS).map(|at| {
        tokio::spawn(async move {
            let (list, other) = (format!("list {at}"), format!("other {at}"));
            let path = list_path(&list, None);
            for round in 0..150 {
                b.public.get(&path).await.expect(200);
                write(a.public, &list, round).await;
                // Of no use, of an equal one, of a newer one.
                let last = match round % 3 {
                    0 => {
                        let nothing =
                            json!({"runs": [{"workspace": other, "published_run": null}]});
                        b.public.post("/v1/runs", &nothing).await.expect(200)
                    }
                    1 => write(b.public, &other, 0).await,
                    _ => write(b.public, &other, round).await,
                };
                let token = last.header(SESSION_TOKEN).expect("a token");
                let read = b.public.get_with(&path, &[(SESSION_TOKEN, token)]).await;
                assert_eq!(newest(&read.expect(200)), round, "session {at}");
            }
        })
    });
    for session in sessions.collect::<Vec<_>>() {
        session.await.expect("no stale read");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_this_database_cannot_know_is_answered_uncached() {
    let db = TestDb::migrated(Backend::Postgres).await;
    let [a, _] = replicas(&db).await;
    let path = list_path("w", None);
    for after in 3..=7 {
        write(a.public, "w", after).await;
    }
    let elsewhere = Position {
        database: 1,
        timeline: 1,
        at: 0,
    };
    let token = Token::new(Some(elsewhere), 2, 0).encode();
    for _ in 0..3 {
        a.public.get(&path).await.expect(200);
        let before = came_by(&a, "bypass").await;
        let read = a.public.get_with(&path, &[(SESSION_TOKEN, &token)]).await;
        assert_eq!(newest(&read.expect(200)), 7);
        assert_eq!(came_by(&a, "bypass").await, before + 1.0);
    }
    // What it reads is cut to its limit: whoever reads more of the list is not given that.
    let invalidate = json!({"all": true});
    let invalidated = a.admin.post("/admin/v1/cache/invalidate", &invalidate);
    invalidated.await.expect(204);
    let first = path.clone() + "?limit=1";
    let read = a.public.get_with(&first, &[(SESSION_TOKEN, &token)]).await;
    assert_eq!(read.expect(200).published_runs(), ["p2"]);
    let all = a.public.get(&path).await.expect(200).published_runs();
    assert_eq!(all, ["p2", "p1", "p0", "p4"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dismissal_is_seen_by_its_session_on_the_other_replica() {
    let db = TestDb::migrated(Backend::Postgres).await;
    let [a, b] = replicas(&db).await;
    let path = list_path("w", None);
    for round in 0..200 {
        write(a.public, "w", round).await;
        let item = format!("p{}", round % 5);
        let path_of_item = format!("{path}/{item}");
        let gone = a
            .public
            .send("DELETE", &path_of_item, &[], Bytes::new())
            .await
            .expect(204);
        let token = gone.header(SESSION_TOKEN).expect("a token").to_owned();
        let list = b
            .public
            .get_with(&path, &[(SESSION_TOKEN, &token)])
            .await
            .expect(200);
        assert!(!list.published_runs().contains(&item), "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_token_a_read_is_old_no_longer_than_published() {
    let db = TestDb::migrated(Backend::Postgres).await;
    let [a, b] = replicas(&db).await;
    let path = list_path("w", None);
    let mut longest = Duration::ZERO;
    for round in 0..500 {
        b.public.get(&path).await.expect(200);
        write(a.public, "w", round).await;
        let acknowledged = Instant::now();
        until("the write is seen", async || {
            (newest(&b.public.get(&path).await.expect(200)) == round).then_some(())
        })
        .await;
        longest = longest.max(acknowledged.elapsed());
    }
    assert!(longest < BOUND, "a read was old for {longest:?}");
    assert!(came_by(&b, "hit").await > 0.0, "the cache took part");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_listener_makes_no_read_stale() {
    let db = TestDb::migrated(Backend::Postgres).await;
    let [a, b] = replicas(&db).await;
    let stop = Arc::new(AtomicBool::new(false));
    let reading = tokio::spawn(rounds(a.public, b.public, Some(Arc::clone(&stop))));
    let path = list_path("quiet", None);
    for round in 0..5 {
        write(a.public, "quiet", round).await;
        until("the list is kept", async || {
            let hits = came_by(&b, "hit").await;
            b.public.get(&path).await.expect(200);
            (came_by(&b, "hit").await > hits).then_some(())
        })
        .await;
        let listens = "select pg_terminate_backend(pid) from pg_stat_activity
                       where datname = current_database()
                         and (query like '%; notify %' or query ilike 'listen %')
                         and application_name = 'recents'";
        let lost = b.log.events().len();
        db.execute(listens).await;
        // Told while nobody listens.
        let changed = write(a.public, "quiet", round * 2 + 100).await;
        drop(changed);
        let acknowledged = Instant::now();
        until("what was told meanwhile is seen", async || {
            let found = newest(&b.public.get(&path).await.expect(200));
            (found == round * 2 + 100).then_some(())
        })
        .await;
        let took = acknowledged.elapsed();
        assert!(took < BOUND, "a read was old for {took:?}");
        until("it listens again", async || {
            let events = b.log.events();
            let again = |event: &&serde_json::Value| {
                event["message"] == "listening to changes of other processes"
            };
            events.iter().skip(lost).find(again).map(drop)
        })
        .await;
    }
    stop.store(true, Ordering::SeqCst);
    reading.await.expect("no stale read");
    assert!(came_by(&b, "bypass").await > 0.0, "while nothing was heard");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_notification_queue_fails_no_write() {
    let db = TestDb::migrated(Backend::Postgres).await;
    let server = Server::start(&db).await;
    hears(&server).await;
    // Whoever may not notify gets an error of the same kind as from a full queue.
    db.execute(
        "create schema broken;
         create function broken.pg_notify(text, text) returns void language plpgsql
         as $$ begin raise exception 'too many notifications in the NOTIFY queue'; end $$;
         do $$ begin execute format('alter database %I set search_path = broken, pg_catalog, public',
                                    current_database()); end $$;",
    )
    .await;
    let broken = Server::start(&db).await;
    let path = list_path("w", None);
    for round in 0..20 {
        write(broken.public, "w", round).await;
        assert_eq!(newest(&broken.public.get(&path).await.expect(200)), round);
    }
}
