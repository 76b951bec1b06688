//! Notes: what a write leaves behind, and what becomes of it.

use serde_json::json;

use super::followed::{Followed, grouped, plain, quiet, serve, serve_with};
use crate::support::client::list_path;
use crate::support::history::layout::POSTGRES;
use crate::support::history::setup::same;
use crate::support::history::{History, Setup};
use crate::support::{Backend, TestDb, both, until};

both!(
    a_use_names_its_run_where_there_is_a_history,
    a_use_that_the_history_does_not_know_goes,
    a_run_whose_mapping_fails_is_set_aside_and_the_rest_goes_on,
);

async fn a_use_names_its_run_where_there_is_a_history(db: TestDb) {
    let followed = plain(db, 69, 10).await;
    let hook = followed.server.public;
    let unnamed = json!({"runs": [{"workspace": "w", "published_run": "p"}]});
    let refused = hook.post("/v1/runs", &unnamed).await.expect(400).json();
    assert_eq!(refused["errors"][0]["pointer"], "#/runs/0/run", "{refused}");
    let no_use = json!({"runs": [{"workspace": "w", "published_run": null}]});
    let skipped = hook.post("/v1/runs", &no_use).await.expect(200).json();
    let expected = json!({"applied": 0, "superseded": 0, "skipped": 1});
    assert_eq!(skipped, expected);
}

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
