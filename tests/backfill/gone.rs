//! A database that goes away in the middle, and comes back.

use crate::support::command::Ended;
use crate::support::history::setup::last_json;
use crate::support::history::{Gate, Setup};
use crate::support::{Backend, Cluster, TestDb, both};

both!(a_history_that_goes_away_is_a_failure_and_the_same_command_goes_on_once_it_is_back);

const COMMAND: [&str; 4] = ["backfill", "--window-runs", "50", "--json"];

/// Starts a backfill, and crashes the cluster while it waits at a gate with its cursor behind 250 runs.
async fn crash_in_the_middle(setup: &Setup, cluster: &Cluster) -> Ended {
    let _closed = Gate::close(setup, 300).await;
    let mut worker = setup.start(&COMMAND);
    let there = async || (setup.job("cursor").await == "-250").then_some(());
    worker
        .until("the cursor stands before the gate", there)
        .await;
    cluster.crash();
    worker.ended().await
}

async fn a_history_that_goes_away_is_a_failure_and_the_same_command_goes_on_once_it_is_back(
    db: TestDb,
) {
    let cluster = Cluster::start();
    let mut setup = Gate::setup(db).await;
    // The same history once more, on a server that may crash.
    let mut history = TestDb::empty(Backend::Postgres).await;
    history.url.clone_from(&cluster.url);
    setup.history.create(&history).await;
    history.execute(Gate::FUNCTION).await;
    setup.apart = Some(history);

    let failed = crash_in_the_middle(&setup, &cluster).await.expect(1);
    assert!(
        failed
            .err
            .contains("the runs before -250 down to -300 of the history were not read"),
        "{failed:?}"
    );
    assert!(
        failed.err.contains("the same command goes on from here"),
        "{failed:?}"
    );
    let down = setup.recents(&COMMAND).expect(1);
    assert!(
        down.err.contains("cannot be read: nothing answers there"),
        "{down:?}"
    );
    assert_eq!(setup.job("cursor").await, "-250");

    cluster.restart();
    let ended = setup.recents(&COMMAND).expect(0);
    assert!(ended.err.contains("going on behind 250 runs"), "{ended:?}");
    assert_eq!(last_json(&ended)["scanned"], 1_000, "each run once");
    setup.assert_equal("after a crash of the history").await;
}

/// The table's database crashes: the job is still held by the lease, as after a kill.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_goes_away_is_a_failure_and_the_same_command_goes_on_once_it_is_back() {
    let cluster = Cluster::start();
    let mut db = TestDb::empty(Backend::Postgres).await;
    db.url.clone_from(&cluster.url);
    let setup = Gate::setup(db).await;
    setup.recents(&["migrate"]).expect(0);

    let failed = crash_in_the_middle(&setup, &cluster).await.expect(1);
    assert_eq!(failed.out, "");
    cluster.restart();
    setup.age_lease().await;
    let ended = setup.recents(&COMMAND).expect(0);
    assert_eq!(last_json(&ended)["scanned"], 1_000, "each run once");
    setup.assert_equal("after a crash of both").await;
}
