//! Notes: what a write leaves behind, and what becomes of it.

use serde_json::json;

use super::followed::{Followed, grouped, plain, quiet, serve, serve_with};
use crate::support::client::list_path;
use crate::support::history::layout::POSTGRES;
use crate::support::history::setup::same;
use crate::support::history::{History, Setup};
use crate::support::{Backend, TestDb, both, until};

both!(
    a_use_that_the_history_does_not_know_goes,
    a_run_whose_mapping_fails_is_set_aside_and_the_rest_goes_on,
);

async fn a_use_that_the_history_does_not_know_goes(db: TestDb) {
    let followed = plain(db, 70, 100).await;
    let invented = json!({"runs": [
        {"workspace": "w1", "published_run": "invented", "uid": "u", "run": "123456"},
        {"workspace": "w1", "published_run": "invented too", "run": "no key at all"},
    ]});
    followed
        .server
        .public
        .post("/v1/runs", &invented)
        .await
        .expect(200);
    followed.assert_exact("after a hook that lied").await;
    let page = followed
        .server
        .public
        .get(&list_path("w1", None))
        .await
        .expect(200);
    assert!(!page.text().contains("invented"));
}

async fn a_run_whose_mapping_fails_is_set_aside_and_the_rest_goes_on(db: TestDb) {
    let mut setup = Setup::of(db, History::random(POSTGRES, 71, 100)).await;
    // A user that is a number, and fails where it is none.
    setup
        .source()
        .execute("update saved_run set uid = id % 7")
        .await;
    setup.query = setup.query.replace("r.uid", "(r.uid::int)::text as uid");
    setup.recents(&["capture", "install"]).expect(0);
    setup.recents(&["backfill"]).expect(0);
    let server = serve(&setup).await;
    setup
        .source()
        .execute(
            "insert into saved_run select 5000 + n, 'aside', case when n = 77 then 'x' else n::text end,
                 1, now() + n * interval '1 s' from generate_series(1, 200) n",
        )
        .await;
    quiet(&setup).await;
    let rows = setup.store.rows().await;
    let users = rows
        .keys()
        .filter(|key| key.0 == "aside" && !key.1.is_empty())
        .count();
    assert_eq!(users, 199);
    let status = setup.json(&["capture", "status"], 0);
    assert_eq!(status["set_aside"], 1, "{status}");
    // Mended, it is counted; the next service forgets that it was set aside.
    drop(server);
    setup
        .source()
        .execute("update saved_run set uid = '77' where uid = 'x'")
        .await;
    let _server = serve(&setup).await;
    until("nothing is set aside", async || {
        let status = setup.json(&["capture", "status"], 0);
        (status["set_aside"] == 0).then_some(())
    })
    .await;
    quiet(&setup).await;
    same(
        &setup.store.rows().await,
        &grouped(&setup).await,
        "when it was mended",
    );
}

/// Several rows for one run, a domain's check: whatever of the data a mapping fails of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_no_start_could_map_keeps_nobody_from_being_followed() {
    let db = TestDb::migrated(Backend::Postgres).await;
    let mut setup = Setup::of(db, History::random(POSTGRES, 76, 100)).await;
    setup
        .source()
        .execute("update saved_run set uid = 'u'; create table twice (uid text, n text)")
        .await;
    setup.query = setup.query.replace(
        "r.uid",
        "coalesce((select t.n from twice t where t.uid = r.uid), r.uid) as uid",
    );
    setup.recents(&["capture", "install"]).expect(0);
    setup.recents(&["backfill"]).expect(0);
    // The newest run, which every start tries the mapping with.
    setup
        .source()
        .execute(
            "insert into twice values ('x', '1'), ('x', '2');
             insert into saved_run values (9001, 'w', 'x', 1, now()), (9002, 'fresh', 'u',
                 (select min(id) from saved_run_version where published_run_id is not null), now())",
        )
        .await;
    let _server = serve(&setup).await;
    quiet(&setup).await;
    let rows = setup.store.rows().await;
    assert!(rows.keys().any(|key| key.0 == "fresh"), "{rows:?}");
    assert_eq!(setup.json(&["capture", "status"], 0)["set_aside"], 1);
}

/// What the driver says that it sent, polls that found nothing apart.
fn sent(followed: &Followed) -> usize {
    let poll = |text: &str| {
        [
            "list_0",
            "outbox",
            "take_notes",
            "note as t",
            "begin",
            "commit",
            "rollback",
            "pg_stat_activity",
            "pg_class",
        ]
        .iter()
        .any(|part| text.to_lowercase().contains(part))
    };
    let events = followed.server.log.events();
    let statements = events
        .iter()
        .filter(|event| event["target"] == "sqlx::query");
    let texts = statements.map(|event| {
        format!(
            "{}{}",
            event["summary"].as_str().unwrap_or(""),
            event["db.statement"].as_str().unwrap_or("")
        )
    });
    texts
        .filter(|text| text.contains("recent_workflow") || text.contains("with runs"))
        .filter(|text| !poll(text))
        .count()
}

/// Waits until what the service did so far is in its log: until a later request of ours is.
async fn in_the_log(followed: &Followed, id: &str) {
    for id in ["", id] {
        let headers = [("x-request-id", id)];
        let path = list_path("fence", None);
        followed
            .server
            .public
            .get_with(&path, &headers)
            .await
            .expect(200);
    }
    let answered = |event: &serde_json::Value| {
        event["message"] == "answered" && event["span"]["request_id"] == *id
    };
    followed
        .server
        .log
        .event("the fence is in the log", answered)
        .await;
}

/// A way in which notes come about at once.
struct Way {
    name: &'static str,
    /// What makes so many, of the runs from the first on.
    sql: fn(i64, usize) -> String,
    /// Whether the hook is told of these runs, too.
    by_hook: bool,
}

const WAYS: [Way; 4] = [
    Way {
        name: "one statement",
        sql: insert,
        by_hook: false,
    },
    Way {
        name: "a statement each, in one transaction",
        sql: |first, runs| {
            let each: Vec<_> = (0..).map(|n| insert(first + n, 1)).take(runs).collect();
            format!("begin; {}; commit", each.join("; "))
        },
        by_hook: false,
    },
    Way {
        name: "the hook",
        sql: |first, runs| {
            format!(
                "set session_replication_role = replica; {}; reset session_replication_role",
                insert(first, runs)
            )
        },
        by_hook: true,
    },
    Way {
        name: "rows that go",
        // Those that the hook was told of.
        sql: |first, runs| {
            let from = first - 1_000_000;
            format!("delete from saved_run where id between {from} and {from} + {runs} - 1")
        },
        by_hook: false,
    },
];

/// Each of another workspace, so that each is raised, as a row of its user's list too, and looked at
/// again.
fn insert(first: i64, runs: usize) -> String {
    format!(
        "insert into saved_run select n, 'n' || n, 'u',
             (select min(id) from saved_run_version where published_run_id is not null),
             timestamptz '2026-01-01Z' from generate_series({first}, {first} + {runs} - 1) n"
    )
}

/// The statements on the table and on the history, for 1, 100 and 1,000 notes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_number_of_notes_takes_the_same_number_of_statements() {
    let history = History::random(POSTGRES, 74, 1_000);
    let setup = Setup::of(TestDb::migrated(Backend::Postgres).await, history).await;
    setup.recents(&["capture", "install"]).expect(0);
    setup.recents(&["backfill"]).expect(0);
    let server = serve_with(
        &setup,
        &["--log-level", "info,recents::http=debug,sqlx::query=debug"],
    )
    .await;
    let followed = Followed { setup, server };
    followed.quiet().await;
    let version = "select published_run_id from saved_run_version
                   where published_run_id is not null order by id limit 1";
    let mut source = followed.setup.source().connect().await;
    let published_run = source.texts(version).await.remove(0);
    for (at, way) in (1..).zip(WAYS) {
        let mut counts = Vec::new();
        // The first warms up: what the driver still has to say is said then.
        for (round, runs) in (1..).zip([1, 1, 100, 1_000]) {
            let first = at * 1_000_000 + round * 10_000;
            in_the_log(&followed, &format!("before-{at}-{round}")).await;
            let before = sent(&followed);
            followed.app(&(way.sql)(first, runs)).await;
            if way.by_hook {
                let uses: Vec<_> = (first..)
                    .take(runs)
                    .map(|run| {
                        json!({"workspace": format!("n{run}"), "uid": "u", "run": run,
                               "published_run": published_run,
                               "last_used_at": "2026-01-01T00:00:00Z"})
                    })
                    .collect();
                let body = json!({"runs": uses});
                let answer = followed.server.public.post("/v1/runs", &body).await;
                assert_eq!(answer.expect(200).json()["applied"], runs);
            }
            followed.quiet().await;
            in_the_log(&followed, &format!("after-{at}-{round}")).await;
            counts.push(sent(&followed) - before);
        }
        counts.remove(0);
        assert!(counts[0] >= 4, "{}: {counts:?}", way.name);
        let same = counts.iter().all(|count| *count == counts[0]);
        assert!(same, "{}: {counts:?}", way.name);
    }
    followed.assert_exact("after all of it").await;
}

/// Two services on one outbox and one table: each note is worked off, whoever takes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_services_share_the_work() {
    let followed = plain(TestDb::migrated(Backend::Postgres).await, 72, 500).await;
    let _second = serve(&followed.setup).await;
    for round in 0..20 {
        followed
            .app(&format!(
                "update saved_run set workspace_id = 'w' || (id + {round}) % 6,
                     updated_at = updated_at + ((id * {round}) % 11 - 5) * interval '1 minute'"
            ))
            .await;
    }
    followed.assert_exact("after both drained").await;
}

/// A statement over very many runs does not keep back what comes behind it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_statement_does_not_starve_what_comes_behind() {
    let Followed { setup, server } =
        plain(TestDb::migrated(Backend::Postgres).await, 73, 100).await;
    // Both are there when the drain begins, the large one in front.
    drop(server);
    let large = "insert into saved_run select 100000 + n, 'bulk', 'u',
            (select min(id) from saved_run_version where published_run_id is not null), now() - n * interval '1 s'
        from generate_series(1, 150000) n";
    let fresh = "update saved_run set workspace_id = 'fresh' where id <= 100";
    for sql in [large, fresh] {
        setup.source().execute(sql).await;
    }
    let server = serve(&setup).await;
    let followed = Followed { setup, server };
    let mut conn = followed.setup.source().connect().await;
    until("the fresh run is seen", async || {
        let rows = followed.setup.store.rows().await;
        rows.keys().any(|key| key.0 == "fresh").then_some(())
    })
    .await;
    let waiting = conn
        .texts("select count(*)::text from recents.outbox")
        .await;
    assert_ne!(waiting, ["0"], "the large one is still being worked off");
    followed.assert_exact("when all is done").await;
}

/// A drain that held the only connection would wait for itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_is_enough() {
    let history = History::random(POSTGRES, 75, 200);
    let setup = Setup::of(TestDb::migrated(Backend::Postgres).await, history).await;
    setup.recents(&["capture", "install"]).expect(0);
    setup.recents(&["backfill", "--pool-size", "1"]).expect(0);
    let server = serve_with(&setup, &["--pool-size", "1"]).await;
    let followed = Followed { setup, server };
    followed
        .app("update saved_run set workspace_id = 'one' where id % 2 = 0")
        .await;
    followed.assert_exact("with one connection").await;
}
