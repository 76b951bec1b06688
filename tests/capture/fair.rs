//! What is fresh is kept back neither by a large statement nor by a row that takes long to be computed.

use super::followed::{Followed, plain, serve};
use crate::races::drain::blocked;
use crate::support::history::layout::POSTGRES;
use crate::support::history::{History, Run, Setup};
use crate::support::{Backend, Beside, TestDb, until};

const LARGE: i64 = 12_000;
const OUTBOX: &str = "select count(*)::text from recents.outbox";

pub(super) async fn number(conn: &mut Beside, sql: &str) -> i64 {
    conn.texts(sql).await[0].parse().expect("a number")
}

/// So many small changes, one after the other, are seen while a large one is worked off, at the least: 13 and more are,
/// and where they wait for batches of it, 1 to 5.
const SMALL: usize = 8;

/// Behind the parents of all other runs set to NULL.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_changes_behind_a_large_retraction_are_seen_long_before_that_is_worked_off() {
    let (followed, mut conn) = large_and_small().await;
    conn.execute("update saved_run set parent_version_id = null where id > 100000")
        .await;
    until("the large statement is noted", async || {
        (number(&mut conn, OUTBOX).await == 0 && number(&mut conn, NOTED).await > LARGE / 2)
            .then_some(())
    })
    .await;
    let mark = number(&mut conn, "select max(id)::text from recents.note").await;
    let left = format!("select count(*)::text from recents.note where id <= {mark}");
    small_changes_are_seen(&followed, &mut conn, &left).await;
}

/// Behind as many notes of runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_changes_behind_a_large_insertion_are_seen_long_before_that_is_worked_off() {
    let (followed, mut conn) = large_and_small().await;
    let many = 4 * LARGE;
    conn.execute(&format!(
        "insert into saved_run select 200000 + n, 'more' || n, 'u', 1001, now() from generate_series(1, {many}) n"
    ))
    .await;
    let left = format!(
        "select ({many} - count(*))::text from recents.recent_workflow where workspace like 'more%' and uid = ''"
    );
    until("the large statement is being worked off", async || {
        (number(&mut conn, &left).await < many).then_some(())
    })
    .await;
    small_changes_are_seen(&followed, &mut conn, &left).await;
}

const NOTED: &str = "select count(*)::text from recents.note";

/// A followed history with many runs to be changed by one statement, and others.
async fn large_and_small() -> (Followed, Beside) {
    let Followed { setup, server } = plain(TestDb::migrated(Backend::Postgres).await, 77, 10).await;
    drop(server);
    let mut conn = setup.source().connect().await;
    conn.execute(&format!(
        "insert into saved_run_version select 1000 + n, 'own' || n from generate_series(1, {LARGE}) n;
         insert into saved_run select 100000 + n, 'bulk' || n % 10, 'u', 1000 + n, now()
             from generate_series(1, {LARGE}) n;
         insert into saved_run select 1000 + n, 'small', 'u', 1000 + n, now() from generate_series(1, 300) n;
         create index on saved_run (workspace_id, parent_version_id); create index on saved_run_version (published_run_id)"
    ))
    .await;
    setup.recents(&["backfill"]).expect(0);
    let server = serve(&setup).await;
    let followed = Followed { setup, server };
    followed.quiet().await;
    (followed, conn)
}

/// Raises, retractions and steps back, until nothing of the large change is `left`.
async fn small_changes_are_seen(followed: &Followed, conn: &mut Beside, left: &str) {
    let right = "select count(*)::text from recents.recent_workflow w
                 join saved_run r on r.id::text = w.run and r.updated_at = w.last_used_at
                 where w.workspace = 'small'";
    let all = "select count(*)::text from recents.recent_workflow where workspace = 'small'";
    let mut rows = number(conn, all).await;
    let mut seen = 0;
    for run in (1_001..).step_by(3) {
        conn.execute(&format!(
            "delete from saved_run where id = {run};
             update saved_run set updated_at = updated_at - interval '1 hour' where id = {run} + 1;
             update saved_run set updated_at = updated_at + interval '1 hour' where id = {run} + 2"
        ))
        .await;
        // Its row and its user's.
        rows -= 2;
        until("all three are seen", async || {
            (number(conn, all).await == rows && number(conn, right).await == rows).then_some(())
        })
        .await;
        if number(conn, left).await == 0 {
            break;
        }
        seen += 1;
    }
    assert!(seen >= SMALL, "{seen} were seen");
    followed.assert_exact("when all is worked off").await;
}

/// A small change between two large ones, all of which wait when the service looks first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_change_between_two_large_ones_is_not_kept_back() {
    let Followed { setup, server } =
        plain(TestDb::migrated(Backend::Postgres).await, 78, 100).await;
    drop(server);
    let mut conn = setup.source().connect().await;
    let large = |first: i64| {
        format!(
            "insert into saved_run select {first} + n, 'bulk', 'u',
                 (select min(id) from saved_run_version where published_run_id is not null),
                 now() - n * interval '1 s' from generate_series(1, 40000) n"
        )
    };
    conn.execute(&large(100_000)).await;
    conn.execute(
        "insert into saved_run values (99999, 'fresh', 'u',
             (select min(id) from saved_run_version where published_run_id is not null), now())",
    )
    .await;
    conn.execute(&large(300_000)).await;
    let all = number(&mut conn, OUTBOX).await;
    let server = serve(&setup).await;
    let followed = Followed { setup, server };
    followed.fresh_is_seen().await;
    let waits = number(&mut conn, OUTBOX).await;
    assert!(waits > all * 2 / 3, "{waits} of {all} rows still wait");
    followed.assert_exact("when all is worked off").await;
}

/// The mapping of run 2 waits for a lock while somebody has it, which ends a statement and begins it again, and those of
/// runs 7 and 21 to 23 sleep meanwhile; that of others fails as long as they are called bad.
const SLOW: &str = "
    create table bad (run bigint);
    create function slow(id bigint) returns bigint language plpgsql stable as $$
    begin
        if exists (select from bad where run = id) then raise invalid_text_representation; end if;
        if id = 2 then perform pg_advisory_xact_lock_shared(4712); end if;
        while id in (7, 21, 22, 23) and not pg_try_advisory_xact_lock_shared(4712) loop perform pg_sleep(0.01); end loop;
        return id;
    end $$";

/// A history of these runs, whose mapping of run 2 waits when the lock is had; and who has it, and an application.
pub(super) async fn slow(runs: &[Run]) -> (Followed, [Beside; 2]) {
    let store = TestDb::migrated(Backend::Postgres).await;
    let mut setup = Setup::of(store, History::of(POSTGRES, runs.into())).await;
    setup.source().execute(SLOW).await;
    setup.query = POSTGRES.query_of("slow(r.id)", "join");
    let followed = Followed::start(setup).await;
    let (mut application, mut lock) = (
        followed.setup.source().connect().await,
        followed.setup.source().connect().await,
    );
    // At its start, the service tries the mapping with some runs.
    application
        .execute("insert into saved_run values (0, 'first', 'u', 1, now())")
        .await;
    followed.quiet().await;
    lock.execute("select pg_advisory_lock(4712)").await;
    (followed, [lock, application])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_seen_while_a_row_is_computed() {
    let (followed, [mut lock, mut application]) = slow(&[
        Run::new(1, "w", 1, 1),
        Run::new(2, "w", 1, 2),
        Run::new(3, "w", 1, 3),
    ])
    .await;
    application
        .execute("delete from saved_run where id = 3")
        .await;
    // The row is computed of the runs that are left.
    blocked(&mut application, 1).await;
    application
        .execute("insert into saved_run values (4, 'fresh', 'u', 1, now())")
        .await;
    followed.fresh_is_seen().await;
    lock.execute("select pg_advisory_unlock(4712)").await;
    followed.assert_exact("when the row is computed").await;
}

/// The history of a row that takes long, `w`, which a user has too, and of another one.
fn two_rows() -> [Run; 6] {
    [
        Run::new(1, "w", 1, 1),
        Run::new(2, "w", 1, 2),
        Run::new(3, "w", 1, 4),
        Run::new(4, "w", 1, 3).by("u"),
        Run::new(5, "other", 1, 1),
        Run::new(6, "other", 1, 2),
    ]
}

impl Followed {
    /// Waits until the workspace `fresh` has a row.
    async fn fresh_is_seen(&self) {
        until("the change is seen", async || {
            let rows = self.setup.store.rows().await;
            rows.keys().any(|key| key.0 == "fresh").then_some(())
        })
        .await;
    }

    /// Waits until the other row is that of the run which is left.
    async fn other_is_right(&self) {
        until("the other row is right", async || {
            let rows = self.setup.store.rows().await;
            let other = rows.iter().find(|(key, _)| key.0 == "other");
            other
                .is_some_and(|(_, (_, run))| run.as_deref() == Some("5"))
                .then_some(())
        })
        .await;
    }
}

/// Also where more rows of the same runs are noted meanwhile: they are not computed beside it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_is_seen_while_another_row_is_computed() {
    let (followed, [mut lock, mut application]) = slow(&two_rows()).await;
    application
        .execute("delete from saved_run where id = 3")
        .await;
    blocked(&mut application, 1).await;
    for (of, more) in [
        (
            "",
            "insert into saved_run values (3, 'w', null, 1, now()); delete from saved_run where id = 3",
        ),
        ("u", "delete from saved_run where id = 4"),
    ] {
        let noted = format!(
            "select count(*)::text from recents.note where workspace = 'w' and uid = '{of}'"
        );
        let before = number(&mut application, &noted).await;
        application.execute(more).await;
        until("the row is noted", async || {
            (number(&mut application, &noted).await > before).then_some(())
        })
        .await;
    }
    application
        .execute("delete from saved_run where id = 6")
        .await;
    followed.other_is_right().await;
    lock.execute("select pg_advisory_unlock(4712)").await;
    followed.assert_exact("when the row is computed").await;
}

/// As many as there are places for batches of rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_seen_while_as_many_rows_are_computed_as_can_be() {
    let mut runs = two_rows().to_vec();
    for (run, workspace) in [(21, "a"), (22, "b"), (23, "c")] {
        runs.extend([
            Run::new(run, workspace, 1, 1),
            Run::new(run + 10, workspace, 1, 2),
        ]);
    }
    let (followed, [mut lock, mut application]) = slow(&runs).await;
    let sleep = "select pid::text from pg_stat_activity
                 where datname = current_database() and application_name = 'recents' and wait_event = 'PgSleep'";
    for computed in 1..=3 {
        let delete = format!("delete from saved_run where id = 30 + {computed}");
        application.execute(&delete).await;
        until("the row is computed", async || {
            (application.texts(sleep).await.len() == computed).then_some(())
        })
        .await;
        if computed == 2 {
            application
                .execute("delete from saved_run where id = 6")
                .await;
            followed.other_is_right().await;
        }
    }
    application
        .execute("insert into saved_run values (4000, 'fresh', 'u', 1, now())")
        .await;
    followed.fresh_is_seen().await;
    lock.execute("select pg_advisory_unlock(4712)").await;
    followed.assert_exact("when the rows are computed").await;
}

/// Somebody ends what takes long, again and again, as a time-out would: of a row, and of a run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_looked_up_in_time_keeps_no_others_back() {
    for change in [
        "delete from saved_run where id in (3, 6)",
        "update saved_run set uid = uid where id = 2; delete from saved_run where id = 6",
    ] {
        keeps_no_others_back(change).await;
    }
}

async fn keeps_no_others_back(change: &str) {
    let (followed, [mut lock, mut application]) = slow(&two_rows()).await;
    application.execute(change).await;
    blocked(&mut application, 1).await;
    let cancel = "select pg_cancel_backend(pid)::text from pg_stat_activity
                  where datname = current_database() and application_name = 'recents'
                    and wait_event_type = 'Lock'";
    let ending = async {
        loop {
            application.texts(cancel).await;
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = followed.other_is_right() => {}
        () = ending => {}
    }
    lock.execute("select pg_advisory_unlock(4712)").await;
    followed.assert_exact("when the row is computed").await;
}

/// It was computed before, of many runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_is_known_to_take_long_is_computed_apart() {
    let (followed, [mut lock, mut application]) = slow(&two_rows()).await;
    lock.execute("select pg_advisory_unlock(4712)").await;
    application
        .execute(
            "insert into saved_run select 1000 + n, 'w', null, 1, timestamptz '2020-01-01Z' from generate_series(1, 20000) n;
             delete from saved_run where id = 3",
        )
        .await;
    followed.assert_exact("when the row was computed").await;
    lock.execute("select pg_advisory_lock(4712)").await;
    application
        .execute("delete from saved_run where id in (4, 6)")
        .await;
    blocked(&mut application, 1).await;
    followed.other_is_right().await;
    lock.execute("select pg_advisory_unlock(4712)").await;
    followed.assert_exact("when it was computed again").await;
}

/// More rows of the same runs than are looked at together, and behind them more of others than are taken of those that
/// come meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notes_that_wait_for_a_row_hide_none_of_those_behind_them() {
    let (followed, [mut lock, mut application]) = slow(&two_rows()).await;
    let more = "create index on saved_run (workspace_id, parent_version_id);
        insert into saved_run select 300000 + n, 'w', 'user' || n, 1, timestamptz '2000-01-01Z' from generate_series(1, 6000) n;
        insert into saved_run select 500000 + n, 'other' || n / 2, null, 1, now() + n * interval '1 s'
            from generate_series(2, 2001) n";
    application.execute(more).await;
    followed.quiet().await;
    application
        .execute("delete from saved_run where id = 3")
        .await;
    blocked(&mut application, 1).await;
    application
        .execute("delete from saved_run where id between 300000 and 400000")
        .await;
    let waiting = "select count(*)::text from recents.note where workspace = 'w'";
    until("they are noted", async || {
        (number(&mut application, waiting).await > 6_000).then_some(())
    })
    .await;
    // Of each of those, the newer run.
    application
        .execute("delete from saved_run where id > 500000 and id % 2 = 1")
        .await;
    let wrong = "select count(*)::text from recents.recent_workflow
                 where workspace like 'other_%' and run::bigint % 2 = 1";
    until("the others are right", async || {
        (number(&mut application, wrong).await == 0).then_some(())
    })
    .await;
    lock.execute("select pg_advisory_unlock(4712)").await;
    followed.assert_exact("when the row is computed").await;
}
