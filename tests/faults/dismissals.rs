//! Dismissals while the database is away: told, whole or not at all, and possible again after.

use std::time::{Duration, Instant};

use hyper::body::Bytes;
use recents::dismiss::dismiss;
use recents::model::{Id, Time};
use recents::store::dismissal::Dismissed;
use recents::store::{PoolSettings, Store};

use crate::promises::lists::{scope, walk};
use crate::support::client::{Answer, list_path};
use crate::support::history::Turnstile;
use crate::support::uses::body_of;
use crate::support::{Backend, Beside, Cluster, Lock, Server, TestDb, Use, both, until};

both!(a_database_that_cannot_write_dismisses_nothing);

/// An item, a list, and a published run everywhere.
fn paths() -> [String; 3] {
    [
        format!("{}/p1", list_path("w", Some("u"))),
        list_path("v", None),
        "/v1/published-runs/p3".into(),
    ]
}

async fn delete(server: &Server, path: &str) -> Answer {
    let client = server.public;
    client.send("DELETE", path, &[], Bytes::new()).await
}

/// Everything is there.
async fn fill(server: &Server) {
    let usage = |workspace: &str, i| Use::new(workspace, &format!("p{i}"), i).by("u");
    let uses: Vec<_> = ["v", "w"]
        .into_iter()
        .flat_map(|workspace| (0..4).map(move |i| usage(workspace, i)))
        .collect();
    server
        .public
        .post("/v1/runs", &body_of(&uses))
        .await
        .expect(200);
    assert_lists(server, 4, 4).await;
}

/// How many items the three lists have which the dismissals are about.
async fn assert_lists(server: &Server, of_user: usize, of_v: usize) {
    for (path, items) in [
        (list_path("w", Some("u")), of_user),
        (list_path("v", None), of_v),
    ] {
        let list = server.public.get(&path).await.expect(200);
        assert_eq!(list.published_runs().len(), items, "{path}");
    }
}

fn assert_unavailable(answer: Answer) {
    let answer = answer.expect(503);
    assert_eq!(answer.problem(), "database_unavailable");
    assert_eq!(answer.header("retry-after"), Some("1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_stopped_dismisses_nothing_until_it_is_back() {
    let cluster = Cluster::start();
    let db = TestDb::apart(&cluster.url).await;
    let server = Server::start(&db).await;
    fill(&server).await;
    cluster.crash();
    for path in paths() {
        assert_unavailable(delete(&server, &path).await);
    }
    cluster.restart();
    until("lists are answered again", async || {
        let answer = server.public.get(&list_path("w", None)).await;
        (answer.status == 200).then_some(())
    })
    .await;
    assert_lists(&server, 4, 4).await;
    let dismissed = "select published_run from {recents}dismissal";
    assert!(
        db.connect().await.texts(dismissed).await.is_empty(),
        "503 dismisses nothing"
    );
    for path in paths() {
        delete(&server, &path).await.expect(204);
    }
    assert_lists(&server, 2, 0).await;
    // A restart that nobody met leaves dead connections behind; they cost a 503 at the most.
    cluster.restart();
    until("it dismisses again", async || {
        let answer = delete(&server, &format!("{}/p0", list_path("w", Some("u")))).await;
        if answer.status == 503 {
            assert_unavailable(answer);
            return None;
        }
        answer.expect(204);
        Some(())
    })
    .await;
    assert_lists(&server, 1, 0).await;
    // What the sweeps met is made up for.
    until("what is hidden is swept", async || {
        let rows = "select published_run from {recents}recent_workflow
                    except all select published_run from {recents}recent_workflows";
        let mut conn = Beside::try_connect(&cluster.url).await?;
        conn.texts(rows).await.is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_hangs_keeps_no_dismissal_waiting_for_long() {
    let cluster = Cluster::start();
    let db = TestDb::apart(&cluster.url).await;
    let server = Server::start(&db).await;
    fill(&server).await;
    let frozen = cluster.freeze();
    let started = Instant::now();
    let [item, list, everywhere] = paths();
    let (item, list, everywhere) = tokio::join!(
        delete(&server, &item),
        delete(&server, &list),
        delete(&server, &everywhere)
    );
    for answer in [item, list, everywhere] {
        assert_unavailable(answer);
    }
    let took = started.elapsed().as_secs();
    assert!(took < 15, "a client was left waiting for {took} s");
    drop(frozen);
    // Whatever became of those that met it, the same again is done.
    for path in paths() {
        until("it dismisses again", async || {
            (delete(&server, &path).await.status == 204).then_some(())
        })
        .await;
    }
    assert_lists(&server, 2, 0).await;
}

/// Whichever message of a dismissal is the last one that gets through.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dismissal_that_is_cut_off_at_any_step_is_whole_or_not_at_all() {
    const STEPS: usize = 8;
    let db = TestDb::migrated(Backend::Postgres).await;
    let server = Server::start(&db).await;
    let uses: Vec<_> = (0..STEPS)
        .flat_map(|step| ["p1", "p2"].map(|item| Use::new(&format!("w{step}"), item, 0)))
        .collect();
    server
        .public
        .post("/v1/runs", &body_of(&uses))
        .await
        .expect(200);
    let dismissed = (0..STEPS).map(|step| {
        let url = db.url.clone();
        tokio::spawn(async move {
            let turnstile = Turnstile::letting(step, &url).await;
            let settings = PoolSettings {
                behind_pooler: false,
                size: 1,
                statement_timeout: Duration::from_secs(20),
            };
            let store = Store::open(&turnstile.url, settings).expect("a good url");
            let item = Dismissed::Item(
                scope(&format!("w{step}"), None),
                Id::new("p1").expect("an id"),
            );
            let started = Instant::now();
            let done = dismiss(&store, &item, Time::now(), Duration::ZERO, &[]).await;
            assert!(started.elapsed() < Duration::from_secs(15), "step {step}");
            (done.is_ok(), turnstile.holds())
        })
    });
    let (mut refused, mut done_all_the_same) = (0, 0);
    for (step, dismissed) in dismissed.collect::<Vec<_>>().into_iter().enumerate() {
        let (done, cut_off) = dismissed.await.expect("it ends");
        let list = walk(&db.store(), &scope(&format!("w{step}"), None), 4).await;
        match list.len() {
            1 => {}
            items => assert!(items == 2 && !done, "step {step}: {list:?}"),
        }
        assert!(done || cut_off, "step {step} failed by itself");
        refused += u32::from(!done);
        done_all_the_same += u32::from(done && cut_off);
    }
    assert!(refused >= 2, "{refused} were cut off before they were done");
    assert!(done_all_the_same >= 1, "none was cut off in its sweep");
}

async fn a_database_that_cannot_write_dismisses_nothing(db: TestDb) {
    let server = Server::start(&db).await;
    fill(&server).await;
    match db.backend {
        Backend::Postgres => {
            super::disk::fill(&db, "dismissal").await;
            for path in paths() {
                let refused = delete(&server, &path).await.expect(503);
                assert_eq!(refused.problem(), "storage_full");
                assert_eq!(refused.header("retry-after"), Some("1"));
            }
            assert_lists(&server, 4, 4).await;
            db.execute("drop trigger no_room on recents.dismissal")
                .await;
        }
        // Somebody who does not let go of the file.
        Backend::Sqlite => {
            let lock = Lock::take(&db).await;
            let [item, list, everywhere] = paths();
            let (item, list, everywhere) = tokio::join!(
                delete(&server, &item),
                delete(&server, &list),
                delete(&server, &everywhere)
            );
            for answer in [item, list, everywhere] {
                assert_unavailable(answer);
            }
            assert_lists(&server, 4, 4).await;
            lock.release().await;
        }
    }
    for path in paths() {
        delete(&server, &path).await.expect(204);
    }
    assert_lists(&server, 2, 0).await;
}
