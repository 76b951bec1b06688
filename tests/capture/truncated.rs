//! A history that is truncated: every row is looked at again, however many there are.

use recents::capture::drain::{Drain, Step};

use super::followed::grouped;
use crate::races::drain::drain;
use crate::support::history::layout::POSTGRES;
use crate::support::history::setup::same;
use crate::support::history::{History, Run, Setup};
use crate::support::{Backend, Beside, TestDb, both};

both!(
    a_truncate_is_noted_in_bounded_pieces_and_a_crash_between_them_loses_nothing,
    what_changes_while_a_truncate_is_noted_is_seen_meanwhile,
    a_truncate_while_another_one_is_noted_is_noted_too,
);

const RUNS: i64 = 6_000;
/// Several pieces of two rows a run, one of them its user's.
const ROWS: usize = 12_000;
/// More runs than this in one statement would grow with the table.
const PIECE: usize = 5_000;

/// A table of [`ROWS`] rows, and its drain.
async fn large(db: TestDb) -> Setup {
    let runs = (1..=RUNS).map(|n| Run::new(n, &format!("w{}", n % 9), n, n).by("u"));
    let setup = Setup::of(db, History::of(POSTGRES, runs.collect())).await;
    setup.recents(&["capture", "install"]).expect(0);
    setup.recents(&["backfill"]).expect(0);
    assert_eq!(setup.store.rows().await.len(), ROWS);
    if setup.store.backend == Backend::Postgres {
        // As a statement that takes too long would, a statement that notes too much fails.
        let bounded = format!(
            "create function bounded() returns trigger language plpgsql as $$ begin
               if (select count(run) from noted) > {PIECE} then
                 raise exception 'too many notes of one statement';
               end if;
               return null;
             end $$;
             create trigger bounded after insert on recents.note
               referencing new table as noted for each statement execute function bounded()"
        );
        setup.store.execute(&bounded).await;
    }
    setup
}

async fn step(drain: &mut Drain) -> Step {
    drain.step(true).await.expect("a step")
}

/// How many notes of the outbox wait.
async fn asked(source: &mut Beside) -> String {
    let outbox = "select count(*)::text from recents.outbox";
    source.texts(outbox).await.remove(0)
}

async fn assert_exact(setup: &Setup, mut drain: Drain) {
    while step(&mut drain).await == Step::Worked {}
    let mut source = setup.source().connect().await;
    assert_eq!(asked(&mut source).await, "0");
    same(
        &setup.store.rows().await,
        &grouped(setup).await,
        "when all is worked off",
    );
}

async fn a_truncate_is_noted_in_bounded_pieces_and_a_crash_between_them_loses_nothing(db: TestDb) {
    let setup = large(db).await;
    let (mut source, mut store) = (setup.source().connect().await, setup.store.connect().await);
    source
        .execute("truncate saved_run; insert into saved_run values (1, 'w', 'u', 1, now())")
        .await;
    let notes = "select cast(count(*) as text) from {recents}note";
    for crash in 0..2 {
        let mut crashing = drain(&setup).await;
        while store.texts(notes).await == ["0"] {
            assert_eq!(
                step(&mut crashing).await,
                Step::Worked,
                "before crash {crash}"
            );
        }
        drop(crashing);
        assert_ne!(
            asked(&mut source).await,
            "0",
            "it must not go before all is noted"
        );
        // What it noted is worked off, and the rest of the table is still to be noted.
        let mut settled = drain(&setup).await;
        settled.settle_all().await.expect("they are worked off");
        let left = setup.store.rows().await.len();
        assert!(
            left > 2 && left < ROWS,
            "{left} rows are left behind crash {crash}"
        );
    }
    let again = drain(&setup).await;
    assert_exact(&setup, again).await;
    assert_eq!(setup.store.rows().await.len(), 2);
}

async fn what_changes_while_a_truncate_is_noted_is_seen_meanwhile(db: TestDb) {
    let setup = large(db).await;
    let mut source = setup.source().connect().await;
    source.execute("truncate saved_run").await;
    let mut drain = drain(&setup).await;
    assert_eq!(step(&mut drain).await, Step::Worked);
    source
        .execute("insert into saved_run values (1, 'fresh', 'u', 1, now())")
        .await;
    while !setup.store.rows().await.keys().any(|key| key.0 == "fresh") {
        assert_eq!(step(&mut drain).await, Step::Worked);
    }
    assert_eq!(
        asked(&mut source).await,
        "1",
        "the truncate is still being noted"
    );
    assert_exact(&setup, drain).await;
}

async fn a_truncate_while_another_one_is_noted_is_noted_too(db: TestDb) {
    let setup = large(db).await;
    let mut source = setup.source().connect().await;
    // The runs come back without being noted, so that all rows stay as they are.
    source
        .execute(
            "create table kept as select * from saved_run; truncate saved_run;
             set session_replication_role = replica; insert into saved_run select * from kept",
        )
        .await;
    let mut drain = drain(&setup).await;
    // Some of the rows are noted, and looked at.
    for _ in 0..2 {
        assert_eq!(step(&mut drain).await, Step::Worked);
    }
    assert_eq!(asked(&mut source).await, "1");
    source
        .execute("set session_replication_role = origin; truncate saved_run")
        .await;
    assert_exact(&setup, drain).await;
    assert!(setup.store.rows().await.is_empty());
}
