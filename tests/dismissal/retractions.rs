//! Dismissal against the drain, which raises, lowers and removes rows by what the history says.

use super::{delete, hidden, serve, swept, walk};
use crate::capture::followed::Followed;
use crate::races::drain::{blocked, drain, lock_row, stepping};
use crate::support::client::list_path;
use crate::support::history::layout::POSTGRES;
use crate::support::history::{History, Run, Setup};
use crate::support::{Backend, TestDb};
use recents::capture::drain::{Drain, Step};

/// A captured history: an old run of each of some published runs.
async fn setup(published_runs: i64) -> Setup {
    let runs = (1..=published_runs).map(|n| Run::new(n, "w", n, n));
    let history = History::of(POSTGRES, runs.collect());
    let setup = Setup::of(TestDb::migrated(Backend::Postgres).await, history).await;
    setup.recents(&["capture", "install"]).expect(0);
    setup.recents(&["backfill"]).expect(0);
    setup
}

/// Newer runs of them all.
const USED_AGAIN: &str = "insert into saved_run
    select 1000 + id, 'w', null, id, now() + interval '1 minute' from saved_run where id < 1000";

async fn drained(drain: &mut Drain) {
    while drain.step(true).await.expect("a step") == Step::Worked {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retraction_does_not_uncover_what_is_older() {
    let followed = Followed::start(setup(2).await).await;
    let server = &followed.server;
    delete(server, &format!("{}/p1", list_path("w", None))).await;
    followed.app(USED_AGAIN).await;
    followed.quiet().await;
    assert_eq!(walk(server, "w", None, 4).await, ["p2", "p1"]);
    followed.app("delete from saved_run where id >= 1000").await;
    followed.quiet().await;
    // Run 1 is still there, and still dismissed.
    assert_eq!(walk(server, "w", None, 4).await, ["p2"]);
    followed.setup.recents(&["verify"]).expect(0);
}

/// Where they stayed, pages would step over them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_go_down_to_what_was_dismissed_go_with_it() {
    let setup = setup(300).await;
    setup.recents(&["dismiss", "w"]).expect(0);
    assert_eq!(setup.store.rows().await.len(), 0);
    let (source, mut drain) = (setup.source(), drain(&setup).await);
    source.execute(USED_AGAIN).await;
    drained(&mut drain).await;
    assert_eq!(setup.store.rows().await.len(), 300);
    source
        .execute("delete from saved_run where id between 1001 and 1299")
        .await;
    drained(&mut drain).await;
    assert_eq!(
        (setup.store.rows().await.len(), hidden(&setup.store).await),
        (1, 0)
    );
    setup.recents(&["verify"]).expect(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_that_was_under_way_brings_nothing_back() {
    let setup = setup(2).await;
    let server = serve(&setup.store).await;
    let mut beside = setup.store.connect().await;
    let drain = drain(&setup).await;
    beside
        .execute("insert into saved_run select 3, 'w', null, 1, now() - interval '1 second'")
        .await;
    let row = lock_row(&setup, "p1").await;
    // It knows of run 3, and waits to write it.
    let under_way = stepping(drain);
    blocked(&mut beside, 1).await;
    delete(&server, &format!("{}/p1", list_path("w", None))).await;
    drop(row);
    let (mut drain, _) = under_way.await.expect("it ends");
    drained(&mut drain).await;
    assert_eq!(walk(&server, "w", None, 4).await, ["p2"]);
    swept(&setup.store).await;
    setup.recents(&["verify"]).expect(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_dismissed_while_its_row_goes_down_stays_hidden_and_is_swept() {
    let setup = setup(2).await;
    let server = serve(&setup.store).await;
    let mut beside = setup.store.connect().await;
    let mut drain = drain(&setup).await;
    beside.execute(USED_AGAIN).await;
    drained(&mut drain).await;
    beside
        .execute("delete from saved_run where id = 1001")
        .await;
    // Its note leads to another one, of the row.
    assert_eq!(drain.step(true).await.expect("a step"), Step::Worked);
    let mut notes = setup.store.connect().await;
    notes
        .execute("begin; lock table recents.note in share mode")
        .await;
    // It has lowered the row, and waits to leave a note.
    let under_way = stepping(drain);
    blocked(&mut beside, 1).await;
    delete(&server, &format!("{}/p1", list_path("w", None))).await;
    assert_eq!(walk(&server, "w", None, 4).await, ["p2"]);
    notes.execute("commit").await;
    let (mut drain, _) = under_way.await.expect("it ends");
    drained(&mut drain).await;
    assert_eq!(walk(&server, "w", None, 4).await, ["p2"]);
    swept(&setup.store).await;
    assert_eq!(setup.store.rows().await.len(), 1);
    setup.recents(&["verify"]).expect(0);
}
