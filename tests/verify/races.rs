//! Repair and a writer of the same row, at its worst moment: after the history was read, and before
//! the row is written. Forced by locks, so only on PostgreSQL, where they can be waited for.

use super::found::key;
use crate::support::beside::Beside;
use crate::support::history::layout::POSTGRES;
use crate::support::history::{At, History, Run, Setup, Worker};
use crate::support::uses::T0;
use crate::support::{Backend, Lock, TestDb, until};

const HOUR: i64 = 3_600_000_000;

/// A table of one run of one workflow, where one row is too high and one is of nothing.
async fn setup() -> Setup {
    let history = History::of(
        POSTGRES,
        vec![Run::new(1, "w", 1, 0), Run::new(2, "w", 2, 0)],
    );
    let setup = Setup::of(TestDb::migrated(Backend::Postgres).await, history).await;
    setup.backfill(&[]).await;
    let far = (T0 + HOUR, Some("~".to_owned()));
    setup.put(&key("w", "", "p1"), &far).await;
    setup.put(&key("w", "u", "p2"), &far).await;
    setup
}

/// Starts a repair, and waits until it waits for a lock.
async fn repairing(setup: &Setup, beside: &mut Beside) -> Worker {
    let mut worker = setup.start(&["verify", "--repair"]);
    let waiting = "select pid::text from pg_stat_activity where datname = current_database()
                   and application_name = 'recents' and wait_event_type = 'Lock'";
    let waits = async || (!beside.texts(waiting).await.is_empty()).then_some(());
    worker.until("it waits for the lock", waits).await;
    worker
}

/// A later run of the history.
async fn insert(setup: &mut Setup, run: Run) {
    setup
        .source()
        .execute(&setup.history.insert(std::slice::from_ref(&run)))
        .await;
    setup.history.runs.push(run);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_use_that_the_row_about_to_be_lowered_outdid_is_not_lost() {
    let mut setup = setup().await;
    let mut beside = setup.store.connect().await;
    let lock = Lock::take(&setup.store).await;
    let worker = repairing(&setup, &mut beside).await;
    // Both rows outdo these runs, so their hooks change nothing. The repair has not seen them.
    insert(&mut setup, Run::new(3, "w", 1, 1_000)).await;
    insert(&mut setup, Run::new(4, "w", 2, 1_000).by("u")).await;
    lock.release().await;
    worker.ended().await.expect(3);
    setup.assert_equal("after the repair").await;
    setup.recents(&["verify"]).expect(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_rose_before_it_was_lowered_or_removed_keeps_its_newest_use() {
    for (uid, workflow) in [(None, 1), (Some("u"), 2)] {
        let mut setup = setup().await;
        let mut beside = setup.store.connect().await;
        let mut writer = setup.store.connect().await;
        // A hook's write of a newer use, not committed yet.
        let uid_column = uid.unwrap_or_default();
        writer
            .execute(&format!(
                "begin; update {{recents}}recent_workflow
                 set last_used_at = last_used_at + interval '1 hour', run = '5'
                 where uid = '{uid_column}' and published_run = 'p{workflow}'"
            ))
            .await;
        let worker = repairing(&setup, &mut beside).await;
        let mut run = Run::new(5, "w", workflow, 0);
        run.uid = uid.map(Into::into);
        run.at = Some(At::Micros(T0 + 2 * HOUR));
        insert(&mut setup, run).await;
        // What the repair does with the row is seen before it looks at the history again.
        let mut history = setup.source().connect().await;
        history
            .execute("begin; lock table saved_run in access exclusive mode")
            .await;
        writer.execute("commit").await;
        let looks =
            "select pid::text from pg_locks where not granted and relation = 'saved_run'::regclass";
        let looks = async || (!beside.texts(looks).await.is_empty()).then_some(());
        until("the repair looks again", looks).await;
        let row = setup.store.rows().await[&key("w", uid_column, &format!("p{workflow}"))].clone();
        assert_eq!(
            row,
            (T0 + 2 * HOUR, Some("5".into())),
            "it was lowered below its newest use"
        );
        history.execute("rollback").await;
        worker.ended().await.expect(3);
        setup.assert_equal("after the repair").await;
        setup.recents(&["verify"]).expect(0);
    }
}
