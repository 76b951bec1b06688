//! Behind its reading, a command's job looks once more at the rows that it wrote. Stopped there, the same
//! command goes on with that.

use crate::support::history::Gate;
use crate::support::history::setup::last_json;
use crate::support::{TestDb, both, until};

both!(
    a_backfill_that_is_stopped_behind_its_reading_goes_on_there,
    one_pass_that_is_stopped_behind_its_reading_goes_on_there,
    a_re_sync_that_is_stopped_behind_its_reading_goes_on_there,
);

/// The number of locks, held or waited for, that close the gate before run 300.
const CLOSED: &str = "select count(*)::text from pg_locks
    where locktype = 'advisory' and objid = 3 and mode = 'ExclusiveLock'
      and database = (select oid from pg_database where datname = current_database())";

async fn stopped_behind_its_reading(db: TestDb, args: &[&str]) {
    let setup = Gate::setup(db).await;
    let mut reading = Gate::close(&setup, 800).await;
    let mut worker = setup.start(args);
    worker
        .until("it reads up to the gate", async || {
            (reading.waiting().await > 0).then_some(())
        })
        .await;
    // Behind those who read, the gate before is closed for those who look once more.
    let mut conn = setup.source().connect().await;
    let open = async {
        until("the next gate is about to be closed", async || {
            (conn.texts(CLOSED).await == ["1"]).then_some(())
        })
        .await;
        reading.open().await;
    };
    let (mut settling, ()) = tokio::join!(Gate::close(&setup, 300), open);
    worker
        .until("it looks at its rows", async || {
            (settling.waiting().await > 0).then_some(())
        })
        .await;
    assert_eq!(setup.job("state").await, "running", "it is not done yet");
    worker.signal("INT");
    let stopped = worker.ended().await.expect(4);
    settling.open().await;
    let said = "stopped; the same command goes on from here";
    assert!(stopped.err.contains(said), "{stopped:?}");
    assert_eq!(last_json(&stopped)["complete"], false);
    assert_eq!(setup.job("state").await, "paused");

    let ended = setup.recents(args).expect(0);
    assert!(
        ended.err.contains("going on behind 1,000 runs"),
        "{ended:?}"
    );
    assert_eq!(last_json(&ended)["scanned"], 1_000, "none is read again");
    setup.assert_equal("at the end").await;
    let mut store = setup.store.connect().await;
    let states = store.texts("select state from {recents}job").await;
    assert_eq!(
        states,
        ["succeeded"],
        "one job from the beginning to the end"
    );
    let notes = "select cast(count(*) as text) from {recents}note";
    assert_eq!(store.texts(notes).await, ["0"]);
}

async fn a_backfill_that_is_stopped_behind_its_reading_goes_on_there(db: TestDb) {
    stopped_behind_its_reading(db, &["backfill", "--window-runs", "50", "--json"]).await;
}

async fn one_pass_that_is_stopped_behind_its_reading_goes_on_there(db: TestDb) {
    stopped_behind_its_reading(db, &["backfill", "--one-pass", "--json"]).await;
}

async fn a_re_sync_that_is_stopped_behind_its_reading_goes_on_there(db: TestDb) {
    stopped_behind_its_reading(db, &["resync", "--all", "--json"]).await;
}
