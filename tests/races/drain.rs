//! The races of notes, drains and writers, each forced at its worst moment by locks. PostgreSQL only:
//! its locks can be waited for. The model beside it searches all other moments.

use std::sync::Arc;

use recents::capture::drain::{Drain, Step};
use recents::config::HistoryConfig;
use recents::store::Store;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::capture::followed::{grouped, serve};
use crate::support::history::layout::POSTGRES;
use crate::support::history::setup::same;
use crate::support::history::{History, Run, Setup};
use crate::support::{Backend, Beside, Lock, TestDb, until};

const NOTES: &str = "select (select count(*) from recents.outbox) || ' and ' ||
                        (select count(*) from recents.note)";

async fn setup() -> Setup {
    let store = TestDb::migrated(Backend::Postgres).await;
    captured(Setup::of(store, two_runs()).await)
}

/// A run of a workflow each.
pub(crate) fn two_runs() -> History {
    let runs = vec![
        Run::new(1, "w", 1, 100).by("u"),
        Run::new(2, "w", 2, 100).by("u"),
    ];
    History::of(POSTGRES, runs)
}

/// The history is captured, and the table is right for it.
pub(crate) fn captured(setup: Setup) -> Setup {
    setup.recents(&["capture", "install"]).expect(0);
    setup.recents(&["backfill"]).expect(0);
    setup
}

/// A drain in this process, which goes step by step.
pub(crate) async fn drain(setup: &Setup) -> Drain {
    drain_of(setup, setup.store.store_of(4), &setup.source().url).await
}

/// A drain of the history at this url into this store.
pub(crate) async fn drain_of(setup: &Setup, store: Store, url: &str) -> Drain {
    let config = HistoryConfig {
        url: url.to_owned(),
        table: setup.history.layout.table.into(),
        key: setup.history.layout.key.into(),
        query: setup.query.clone(),
    };
    let history = recents::history::connect(&config).await;
    Drain::new(store, Arc::new(history.expect("the history")), None)
}

/// A step that is taken beside the test.
pub(crate) fn stepping(mut drain: Drain) -> JoinHandle<(Drain, Step)> {
    tokio::spawn(async move {
        let step = drain.step(true).await.expect("a step");
        (drain, step)
    })
}

/// Waits until so many connections wait for a lock of another one.
pub(crate) async fn blocked(conn: &mut Beside, connections: usize) {
    let sql = "select pid::text from pg_stat_activity where datname = current_database()
               and application_name = 'recents' and wait_event_type = 'Lock'";
    until("somebody waits for the lock", async || {
        (conn.texts(sql).await.len() == connections).then_some(())
    })
    .await;
}

/// Whether neither the history's notes nor the table's wait.
pub(crate) async fn nothing_waits(setup: &Setup) -> bool {
    let (mut source, mut store) = (setup.source().connect().await, setup.store.connect().await);
    let outbox = "select count(*)::text from recents.outbox";
    let notes = "select cast(count(*) as text) from {recents}note";
    source.texts(outbox).await == ["0"] && store.texts(notes).await == ["0"]
}

/// Works off what is noted, and holds the table against the history.
pub(crate) async fn assert_exact(setup: &Setup, mut drain: Drain, when: &str) {
    while drain.step(true).await.expect("a step") == Step::Worked {}
    assert!(nothing_waits(setup).await, "{when}");
    same(&setup.store.rows().await, &grouped(setup).await, when);
}

/// Takes a lock on the history's table, in a transaction that is still open.
async fn lock_history(setup: &Setup) -> Beside {
    let mut conn = setup.source().connect().await;
    conn.execute("begin; lock table saved_run in access exclusive mode")
        .await;
    conn
}

/// Locks a row of the table, in a transaction that is still open.
pub(crate) async fn lock_row(setup: &Setup, published_run: &str) -> Beside {
    let mut conn = setup.store.connect().await;
    conn.execute(&format!(
        "begin; select from recents.recent_workflow where published_run = '{published_run}' for update"
    ))
    .await;
    conn
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backfill_with_a_use_that_is_gone_meanwhile_does_not_keep_it() {
    let setup = setup().await;
    setup
        .store
        .execute("truncate recents.recent_workflow")
        .await;
    let mut beside = setup.store.connect().await;
    let lock = Lock::take(&setup.store).await;
    let worker = setup.start(&["backfill", "--restart"]);
    // It has read the history, and waits to write.
    blocked(&mut beside, 1).await;
    beside.execute("delete from saved_run where id = 1").await;
    // The deletion is worked off, while there is no row yet that it could be about.
    let mut drain = drain(&setup).await;
    assert_eq!(drain.step(true).await.expect("a step"), Step::Worked);
    assert_eq!(beside.texts(NOTES).await, ["0 and 0"]);
    lock.release().await;
    worker.ended().await.expect(0);
    assert_exact(&setup, drain, "after the backfill").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_with_a_use_that_is_gone_meanwhile_does_not_keep_it() {
    let setup = setup().await;
    let mut beside = setup.store.connect().await;
    let (slow, mut fast) = (drain(&setup).await, drain(&setup).await);
    beside
        .execute("insert into saved_run values (3, 'w', null, 1, now())")
        .await;
    let row = lock_row(&setup, "p1").await;
    // It knows of run 3 and waits to write it.
    let slow = stepping(slow);
    blocked(&mut beside, 1).await;
    beside.execute("delete from saved_run where id = 3").await;
    // The other drain has the newer note to itself, and finds no row that it would be about.
    assert_eq!(fast.step(true).await.expect("a step"), Step::Worked);
    assert_eq!(beside.texts(NOTES).await, ["1 and 0"]);
    drop(row);
    let (slow, _) = slow.await.expect("it ends");
    assert!(
        setup
            .store
            .rows()
            .await
            .values()
            .any(|(_, run)| run.as_deref() == Some("3")),
        "it must have written what was gone"
    );
    assert_exact(&setup, slow, "after both").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_use_that_a_row_about_to_go_outdoes_is_not_lost() {
    let setup = setup().await;
    // Without capture, the hook alone tells of runs.
    setup.recents(&["capture", "uninstall"]).expect(0);
    let server = serve(&setup).await;
    let mut beside = setup.store.connect().await;
    let row = lock_row(&setup, "p1").await;
    beside
        .execute(
            "delete from saved_run where id = 1;
             insert into recents.note (run) values ('1')",
        )
        .await;
    // The drain has computed that there is no use of p1, and waits for the row.
    blocked(&mut beside, 1).await;
    beside
        .execute(
            "insert into saved_run select 3, 'w', 'u', 1, updated_at - interval '1 minute'
             from saved_run where id = 2",
        )
        .await;
    let time = beside
        .texts("select to_char(updated_at, 'YYYY-MM-DD\"T\"HH24:MI:SS.USOF:00') from saved_run where id = 3")
        .await;
    let usage = json!({"runs": [{"workspace": "w", "uid": "u", "published_run": "p1", "run": "3",
                                 "last_used_at": time[0]}]});
    let answer = server.public.post("/v1/runs", &usage).await.expect(200);
    assert_eq!(answer.json()["superseded"], 1, "the row outdoes it");
    drop(row);
    let right = grouped(&setup).await;
    let seen = until("the row is right", async || {
        let rows = setup.store.rows().await;
        (rows == right).then_some(rows)
    });
    assert!(
        seen.await
            .values()
            .any(|(_, run)| run.as_deref() == Some("3"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_behind_the_taking_of_a_note_is_read_and_noted_anew() {
    let setup = setup().await;
    let mut beside = setup.store.connect().await;
    let slow = drain(&setup).await;
    beside
        .execute("update saved_run set workspace_id = 'second' where id = 1")
        .await;
    let mut application = lock_history(&setup).await;
    // It has taken the note, and waits to read.
    let slow = stepping(slow);
    blocked(&mut beside, 1).await;
    application
        .execute("update saved_run set workspace_id = 'third' where id = 1; commit")
        .await;
    let (slow, _) = slow.await.expect("it ends");
    let workspaces: Vec<_> = setup
        .store
        .rows()
        .await
        .into_keys()
        .map(|key| key.0)
        .collect();
    assert!(workspaces.contains(&"third".into()), "{workspaces:?}");
    assert!(!workspaces.contains(&"second".into()), "{workspaces:?}");
    // The newer note was neither swallowed by the first nor let go with it.
    let outbox = "select count(*)::text from recents.outbox";
    assert_eq!(beside.texts(outbox).await, ["1"]);
    assert_exact(&setup, slow, "after both notes").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_note_that_one_drain_works_on_is_not_touched_by_another() {
    let setup = setup().await;
    let mut beside = setup.store.connect().await;
    let (slow, mut fast) = (drain(&setup).await, drain(&setup).await);
    beside
        .execute("insert into saved_run values (3, 'w', null, 1, now())")
        .await;
    let row = lock_row(&setup, "p1").await;
    let slow = stepping(slow);
    blocked(&mut beside, 1).await;
    assert_eq!(fast.step(true).await.expect("a step"), Step::Idle);
    beside
        .execute("insert into saved_run values (4, 'w', null, 2, now())")
        .await;
    assert_eq!(fast.step(true).await.expect("a step"), Step::Worked);
    // Dropped amid its work, as by a crash: its note stays.
    slow.abort();
    drop(slow.await);
    drop(row);
    let outbox = "select count(*)::text from recents.outbox";
    assert_eq!(beside.texts(outbox).await, ["1"]);
    let again = drain(&setup).await;
    assert_exact(&setup, again, "after another one").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_use_of_the_hook_and_its_note_are_seen_together() {
    let setup = setup().await;
    let server = serve(&setup).await;
    let mut beside = setup.store.connect().await;
    let before = setup.store.rows().await;
    let mut notes = setup.store.connect().await;
    notes
        .execute("begin; lock table recents.note in access exclusive mode")
        .await;
    let client = server.public;
    let usage = json!({"runs": [{"workspace": "w", "published_run": "p9", "run": "9"}]});
    let sent = tokio::spawn(async move { client.post("/v1/runs", &usage).await });
    // The drain's poll may wait for the lock too.
    let noting = "select pid::text from pg_stat_activity where datname = current_database()
                  and wait_event_type = 'Lock' and query like 'insert into recents.note%'";
    until("the hook waits to write its note", async || {
        (!beside.texts(noting).await.is_empty()).then_some(())
    })
    .await;
    assert_eq!(setup.store.rows().await, before, "the use without its note");
    notes.execute("commit").await;
    sent.await.expect("an answer").expect(200);
    // The history does not know run 9, which only the note can tell.
    until("the use is gone again", async || {
        (setup.store.rows().await == before).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_are_mapped_by_what_their_versions_say_after_the_commit() {
    let setup = setup().await;
    let mut beside = setup.store.connect().await;
    // A run before its version, and a version that goes before its run lets go of it.
    beside
        .execute(
            "begin; insert into saved_run values (3, 'w', 'u', 33, now());
             insert into saved_run_version values (33, 'p33');
             delete from saved_run_version where id = 1;
             update saved_run set parent_version_id = null where id = 1; commit",
        )
        .await;
    let drain = drain(&setup).await;
    assert_exact(&setup, drain, "after the commit").await;
    let rows = setup.store.rows().await;
    assert!(rows.keys().any(|key| key.2 == "p33"), "{rows:?}");
    assert!(rows.keys().all(|key| key.2 != "p1"), "{rows:?}");
}
