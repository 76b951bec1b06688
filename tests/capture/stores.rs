//! One history is captured for one store.

use serde_json::json;

use super::followed::{Followed, grouped, plain, quiet, serve, serve_on, serve_with};
use crate::support::command::Ended;
use crate::support::history::layout::POSTGRES;
use crate::support::history::setup::{last_json, same};
use crate::support::history::{History, Setup};
use crate::support::{Backend, Server, TestDb, until};

/// A store, and a captured history in a database of its own.
async fn captured() -> Setup {
    let store = TestDb::migrated(Backend::Sqlite).await;
    let setup = Setup::apart(store, History::random(POSTGRES, 65, 200)).await;
    setup.recents(&["capture", "install"]).expect(0);
    setup.recents(&["backfill"]).expect(0);
    setup
}

/// The command, with another store.
fn with(setup: &Setup, store: &str, args: &[&str]) -> Ended {
    let mut command = setup.command(args);
    command.env("RECENTS_DATABASE_URL", store);
    command.output().expect("recents runs").into()
}

const OUTBOX: &str = "select count(*)::text from recents.outbox";

/// Waits until the service has taken the notes that it may take: a hook that lied is one.
async fn took_its_own(server: &Server, store: &TestDb) {
    let lie = json!({"runs": [{"workspace": "w", "published_run": "a lie", "run": "no key"}]});
    server.public.post("/v1/runs", &lie).await.expect(200);
    until("the lie is gone", async || {
        let rows = store.rows().await;
        rows.keys().all(|key| key.2 != "a lie").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_store_leaves_the_notes_alone_until_it_is_told_to_take_over() {
    let setup = captured().await;
    let other = TestDb::migrated(Backend::Sqlite).await;
    let mut source = setup.source().connect().await;
    for args in [
        &["capture", "install"][..],
        &["capture", "install", "--print"],
        &["capture", "uninstall"],
    ] {
        let refused = with(&setup, &other.url, args).expect(1);
        assert!(refused.err.contains("another store"), "{refused:?}");
        assert!(refused.err.contains("--take-over"), "{refused:?}");
    }
    let status = last_json(&with(&setup, &other.url, &["capture", "status", "--json"]).expect(1));
    let identity = setup
        .store
        .connect()
        .await
        .texts("select id from identity")
        .await;
    assert_eq!(status["another_store"], identity[0], "{status}");
    setup.recents(&["capture", "status"]).expect(0);

    let second = serve_on(&other.url, &setup, &[]).await;
    second.log.message("the outbox is not drained").await;
    source
        .execute("insert into saved_run values (9001, 'fresh', 'u', 1, now())")
        .await;
    took_its_own(&second, &other).await;
    assert_eq!(source.texts(OUTBOX).await, ["1"], "the other one's note");
    let first = serve(&setup).await;
    quiet(&setup).await;
    same(
        &setup.store.rows().await,
        &grouped(&setup).await,
        "of the store that it is for",
    );

    // Given to the other one, beneath the service of the first.
    with(&setup, &other.url, &["backfill"]).expect(0);
    drop(second);
    with(&setup, &other.url, &["capture", "install", "--take-over"]).expect(0);
    source
        .execute("update saved_run set workspace_id = 'taken over' where id = 9001")
        .await;
    took_its_own(&first, &setup.store).await;
    assert_eq!(
        source.texts(OUTBOX).await,
        ["1"],
        "no longer the first one's"
    );
    let refused = setup.recents(&["capture", "status"]).expect(1);
    assert!(refused.err.contains("another store"), "{refused:?}");
    first.log.message("the outbox is not drained").await;
    let _second = serve_on(&other.url, &setup, &[]).await;
    let right = grouped(&setup).await;
    until("the other store follows", async || {
        (other.rows().await == right).then_some(())
    })
    .await;
    with(&setup, &other.url, &["capture", "status"]).expect(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_was_copied_is_the_same_one() {
    let setup = captured().await;
    let copy = setup.dir.path().join("copy.db");
    let vacuum = format!("vacuum into '{}'", copy.display());
    setup.store.execute(&vacuum).await;
    let copy = format!("sqlite://{}", copy.display());
    let again = with(&setup, &copy, &["capture", "install"]).expect(0);
    assert!(again.err.contains("already"), "{again:?}");
    with(&setup, &copy, &["capture", "status"]).expect(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outbox_of_a_version_that_knew_no_stores_is_drained_and_adopted() {
    let setup = captured().await;
    let mut source = setup.source().connect().await;
    let comment = "select obj_description('recents.outbox'::regclass, 'pg_class')";
    let recorded = source.texts(comment).await.remove(0);
    let (old, _) = recorded.split_once('\n').expect("two lines");
    source
        .execute(&format!("comment on table recents.outbox is '{old}'"))
        .await;
    setup.recents(&["capture", "status"]).expect(1);
    let server = serve(&setup).await;
    let followed = Followed { setup, server };
    followed
        .app("update saved_run set workspace_id = 'moved' where id % 2 = 0")
        .await;
    followed.quiet().await;
    let Followed { setup, server } = followed;
    setup.recents(&["capture", "install"]).expect(0);
    assert_eq!(source.texts(comment).await, [recorded]);
    setup.recents(&["capture", "status"]).expect(0);
    let followed = Followed { setup, server };
    followed.app("delete from saved_run where id % 3 = 0").await;
    followed.assert_exact("after it was adopted").await;
}

/// What `--print` grants is enough for everything but installing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_needs_no_more_than_the_grants_that_are_printed() {
    let mut setup = Setup::apart(
        TestDb::migrated(Backend::Sqlite).await,
        History::random(POSTGRES, 66, 200),
    )
    .await;
    let reads = ["grant select on saved_run, saved_run_version to %"];
    let apart = setup.apart.as_mut().expect("it is apart");
    let role = apart.role(&reads).await;
    let by_role = |setup: &Setup, args: &[&str]| -> Ended {
        let mut command = setup.command(args);
        command.env("RECENTS_HISTORY_URL", &role);
        command.output().expect("recents runs").into()
    };
    let printed = by_role(&setup, &["capture", "install", "--print"]).expect(0);
    setup.source().execute(&printed.out).await;
    by_role(&setup, &["capture", "install"]).expect(0);
    by_role(&setup, &["capture", "status"]).expect(0);
    by_role(&setup, &["backfill"]).expect(0);
    let server = serve_with(&setup, &["--history-url", &role]).await;
    let followed = Followed { setup, server };
    followed
        .app("update saved_run set workspace_id = 'moved' where id % 2 = 0")
        .await;
    followed.assert_exact("by a role of few rights").await;
    by_role(&followed.setup, &["verify"]).expect(0);
    let refused = by_role(&followed.setup, &["capture", "uninstall"]).expect(1);
    let told = "recents capture uninstall --print";
    assert!(refused.err.contains(told), "{refused:?}");
}

/// As whoever lost some of them is told to do it. They are another store then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_that_are_made_anew_are_followed_by_a_service_that_runs() {
    let followed = plain(TestDb::migrated(Backend::Postgres).await, 66, 50).await;
    let setup = &followed.setup;
    followed
        .app("insert into saved_run values (9998, 'before', 'u', 1, now())")
        .await;
    followed.assert_exact("before").await;
    setup.store.execute("drop schema recents cascade").await;
    for command in [&["migrate"][..], &["capture", "install"], &["backfill"]] {
        setup.recents(command).expect(0);
    }
    followed
        .app("insert into saved_run values (9999, 'anew', 'u', 1, now())")
        .await;
    followed.assert_exact("when it was worked off").await;
}
