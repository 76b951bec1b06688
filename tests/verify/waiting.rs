//! What differs because notes wait to be worked off is told apart from what is wrong.

use super::found::{differences, found, key};
use crate::capture::followed::{grouped, quiet, serve};
use crate::races::drain::{blocked, drain, lock_row, stepping};
use crate::support::history::layout::POSTGRES;
use crate::support::history::setup::last_json;
use crate::support::history::{History, Run, Setup};
use crate::support::uses::T0;
use crate::support::{Backend, TestDb, both};

both!(what_nobody_works_off_is_told_apart_from_what_is_wrong);

async fn followed(db: TestDb, history: History) -> Setup {
    let setup = Setup::of(db, history).await;
    setup.recents(&["capture", "install"]).expect(0);
    setup.recents(&["backfill"]).expect(0);
    setup
}

async fn what_nobody_works_off_is_told_apart_from_what_is_wrong(db: TestDb) {
    let setup = followed(db, History::random(POSTGRES, 92, 500)).await;
    setup
        .source()
        .execute(
            "update saved_run set workspace_id = 'moved' where id % 3 = 0;
             delete from saved_run where id % 7 = 0",
        )
        .await;
    let waiting = differences(&setup.store.rows().await, &grouped(&setup).await).len();
    assert!(waiting > 20, "{waiting} say little");
    let verified = setup.recents(&["verify", "--json"]).expect(3);
    let summary = last_json(&verified);
    assert_eq!(
        (&summary["differences"], &summary["waiting"]),
        (&waiting.into(), &waiting.into())
    );
    assert_eq!(found(&verified).0.len(), waiting, "each is named");
    let advice = format!("{waiting} have notes about them that nobody works off");
    assert!(verified.err.contains(&advice), "{verified:?}");
    // No note is about this one.
    let invented = key("w1", "", "invented");
    setup.put(&invented, &(T0, None)).await;
    let verified = setup.recents(&["verify", "--json"]).expect(3);
    let summary = last_json(&verified);
    assert_eq!(
        (&summary["differences"], &summary["waiting"]),
        (&(waiting + 1).into(), &waiting.into())
    );
    assert!(found(&verified).0.contains_key(&invented));
    let repaired = setup.recents(&["verify", "--repair", "--json"]).expect(3);
    assert_eq!(last_json(&repaired)["waiting"], waiting);
    let left = differences(&setup.store.rows().await, &grouped(&setup).await);
    assert!(left.is_empty(), "{left:?}");
    // The notes say so, too.
    let _server = serve(&setup).await;
    quiet(&setup).await;
    setup.recents(&["verify"]).expect(0);
}

/// A look at a history without a fitting index may take minutes; here the row is locked for as long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_slow_step_is_about_to_make_right_is_told_apart() {
    let db = TestDb::migrated(Backend::Postgres).await;
    let setup = followed(db, History::of(POSTGRES, vec![Run::new(1, "w", 1, 0)])).await;
    let mut beside = setup.store.connect().await;
    let slow = drain(&setup).await;
    beside
        .execute("insert into saved_run values (2, 'w', null, 1, now())")
        .await;
    let row = lock_row(&setup, "p1").await;
    let slow = stepping(slow);
    blocked(&mut beside, 1).await;
    let verified = setup.recents(&["verify", "--json"]).expect(3);
    assert_eq!(last_json(&verified)["waiting"], 1);
    drop(row);
    slow.await.expect("it ends");
    setup.recents(&["verify"]).expect(0);
}
