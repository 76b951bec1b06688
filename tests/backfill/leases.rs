//! Two backfills never write at the same time, whatever became of the first.

use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::history::file::ndjson;
use crate::support::history::setup::{last_json, same};
use crate::support::history::{Gate, Setup, Worker, maximum};
use crate::support::uses::Rows;
use crate::support::{TestDb, both, until};

both!(
    a_second_backfill_is_refused_while_the_first_lives,
    a_second_backfill_takes_over_when_the_lease_runs_out,
    a_worker_that_lost_its_lease_writes_nothing_more,
    a_worker_whose_job_another_one_is_at_gives_up,
    a_wait_for_a_lease_can_be_interrupted,
    of_many_backfills_at_once_one_does_the_work,
);

/// A backfill of standard input, which nobody writes: it holds the job for as long as it lives.
async fn idle(setup: &Setup) -> Worker {
    let mut command = setup.command(&["backfill", "--from", "-"]);
    command.stdin(Stdio::piped());
    let mut worker = Worker::start(command);
    worker
        .until("it holds the job", async || {
            (setup.job("state").await == "running").then_some(())
        })
        .await;
    worker
}

async fn a_second_backfill_is_refused_while_the_first_lives(db: TestDb) {
    let setup = Setup::plain(db, 20, 100).await;
    let mut first = idle(&setup).await;
    let job = setup.job("id").await;
    for args in [
        &["backfill"][..],
        &["backfill", "--one-pass"],
        &["backfill", "--restart"],
    ] {
        let begun = Instant::now();
        let refused = setup.recents(args).expect(1);
        assert!(
            begun.elapsed() < Duration::from_secs(15),
            "it waited for the lease's end"
        );
        assert!(refused.err.contains(&format!("job {job}")), "{refused:?}");
        assert!(
            refused
                .err
                .contains("another backfill of this table is at work"),
            "{refused:?}"
        );
        assert_eq!(refused.out, "");
    }
    assert_eq!(setup.store.rows().await, Rows::new());
    // A dry run writes nothing, so it need not wait.
    setup.recents(&["backfill", "--dry-run"]).expect(0);
    let mut input = first.child.stdin.take().expect("its input");
    // A run that the history knows: it would have another one removed.
    let uses = setup.history.uses();
    input
        .write_all(ndjson(&uses[..1]).as_bytes())
        .expect("it reads");
    drop(input);
    first.ended().await.expect(0);
    assert_eq!(
        setup.store.rows().await,
        maximum(&uses[..1]),
        "the first went on undisturbed"
    );
    setup.recents(&["backfill"]).expect(0);
}

async fn a_second_backfill_takes_over_when_the_lease_runs_out(db: TestDb) {
    let setup = Gate::setup(db).await;
    let mut closed = Gate::close(&setup, 400).await;
    let mut first = setup.start(&["backfill", "--window-runs", "50"]);
    first
        .until("it comes to the gate", async || {
            (closed.waiting().await > 0).then_some(())
        })
        .await;
    first.kill();
    closed.open().await;
    let second = setup.start(&["backfill", "--window-runs", "50"]);
    until("it says that it waits", async || {
        second.said().contains("waiting up to").then_some(())
    })
    .await;
    assert_eq!(setup.job("fence").await, "1", "it waits");
    // As when the time came.
    setup.age_lease().await;
    second.ended().await.expect(0);
    setup.assert_equal("after a takeover").await;
}

async fn a_worker_that_lost_its_lease_writes_nothing_more(db: TestDb) {
    let setup = Gate::setup(db).await;
    let mut closed = Gate::close(&setup, 400).await;
    let mut stale = setup.start(&["backfill", "--window-runs", "50"]);
    stale
        .until("it comes to the gate", async || {
            (closed.waiting().await == 2).then_some(())
        })
        .await;
    // It read some windows. It stops before it writes them, or after: either way some are to come.
    stale.signal("STOP");
    setup.age_lease().await;
    closed.open().await;
    let over = setup
        .recents(&["backfill", "--window-runs", "50", "--json"])
        .expect(0);
    assert_eq!(last_json(&over)["scanned"], 1_000);
    setup.assert_equal("after a takeover").await;
    // Whatever it writes now will be seen.
    setup
        .store
        .execute("delete from {recents}recent_workflow")
        .await;
    let job = async || {
        [
            setup.job("state").await,
            setup.job("cursor").await,
            setup.job("counts").await,
        ]
    };
    let before = job().await;
    stale.signal("CONT");
    let lost = stale.ended().await.expect(1);
    assert!(
        lost.err.contains("another backfill took this one over"),
        "{lost:?}"
    );
    assert_eq!(lost.out, "", "it has nothing to tell");
    same(
        &setup.store.rows().await,
        &Rows::new(),
        "after the stale worker woke up",
    );
    assert_eq!(job().await, before, "the job is the other's");
}

async fn a_worker_whose_job_another_one_is_at_gives_up(db: TestDb) {
    let setup = Gate::setup(db).await;
    let command = ["backfill", "--window-runs", "50", "--json"];
    let mut first_gate = Gate::close(&setup, 400).await;
    let mut stale = setup.start(&command);
    stale
        .until("it comes to the gate", async || {
            (first_gate.waiting().await == 2).then_some(())
        })
        .await;
    stale.signal("STOP");
    setup.age_lease().await;
    let mut second_gate = Gate::close(&setup, 700).await;
    first_gate.open().await;
    let mut over = setup.start(&command);
    over.until("it comes to the gate", async || {
        (second_gate.waiting().await == 2).then_some(())
    })
    .await;
    stale.signal("CONT");
    let lost = stale.ended().await.expect(1);
    assert!(
        lost.err.contains("another backfill took this one over"),
        "{lost:?}"
    );
    second_gate.open().await;
    let over = over.ended().await.expect(0);
    assert_eq!(
        last_json(&over)["scanned"],
        1_000,
        "the other's counts are its own"
    );
    setup.assert_equal("after a takeover").await;
}

async fn a_wait_for_a_lease_can_be_interrupted(db: TestDb) {
    let setup = Setup::plain(db, 21, 50).await;
    let first = idle(&setup).await;
    first.signal("STOP");
    let second = setup.start(&["backfill"]);
    until("it says that it waits", async || {
        second.said().contains("waiting up to").then_some(())
    })
    .await;
    second.signal("INT");
    let stopped = second.ended().await.expect(4);
    assert!(stopped.err.contains("waiting up to"), "{stopped:?}");
    assert_eq!(
        setup.job("state").await,
        "running",
        "the first still holds it"
    );
    first.signal("CONT");
    drop(first);
}

async fn of_many_backfills_at_once_one_does_the_work(db: TestDb) {
    let setup = Setup::plain(db, 22, 2_000).await;
    let workers: Vec<_> = (0..4)
        .map(|_| setup.start(&["backfill", "--window-runs", "20"]))
        .collect();
    let mut done = 0;
    for worker in workers {
        let ended = worker.ended().await;
        match ended.code {
            Some(0) => done += 1,
            _ => assert!(ended.err.contains("another backfill"), "{ended:?}"),
        }
    }
    assert!(done > 0, "nobody did it");
    setup.assert_equal("after a race").await;
    let states = "select distinct state from {recents}job";
    assert_eq!(
        setup.store.connect().await.texts(states).await,
        ["succeeded"]
    );
}
