//! A drain that ends between any two of its steps, with the table and the history in one database or in
//! two: another one finds what it left, and nothing is lost.

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use recents::capture::drain::{Drain, Step};

use super::drain::{assert_exact, captured, drain, drain_of, nothing_waits, two_runs};
use crate::capture::followed::grouped;
use crate::support::database::store_at;
use crate::support::history::setup::same;
use crate::support::history::{Setup, Turnstile, Worker};
use crate::support::{Backend, TestDb, until};

/// Of the first statement of a drain that matters.
const TAKES: &str = "as is_new from recents.outbox";

/// A run that comes, one that moves, one that is older than it was, and one that goes.
fn changes(step: usize) -> String {
    format!(
        "insert into saved_run values (1000 + {step}, 'w', 'u', 1, now());
         update saved_run set workspace_id = 'w{step}' where id = 2;
         update saved_run set updated_at = updated_at - interval '1 day' where id = 1000 + {step} - 1;
         delete from saved_run where id = 1000 + {step} - 2"
    )
}

/// Kills a service before the answer to each of its requests in turn, while the same few changes
/// wait for it: between taking and reading, between two writes, before the notes go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_killed_at_every_step_loses_nothing() {
    let store = TestDb::migrated(Backend::Postgres).await;
    let setup = captured(Setup::of(store, two_runs()).await);
    let mut beside = setup.store.connect().await;
    let mut worked_off = 0;
    for step in 0.. {
        beside.execute(&changes(step)).await;
        let turnstile = Turnstile::letting_from(TAKES, step, &setup.store.url).await;
        let mut command = setup.command(&["serve"]);
        command.envs([
            ("RECENTS_DATABASE_URL", turnstile.url.as_str()),
            ("RECENTS_LISTEN", "127.0.0.1:0"),
            ("RECENTS_ADMIN_LISTEN", "127.0.0.1:0"),
        ]);
        let worker = Worker::start(command);
        let done = until("it is held, or all is worked off", async || {
            let done = nothing_waits(&setup).await;
            (done || turnstile.holds()).then_some(done)
        })
        .await;
        worker.kill();
        drop(turnstile);
        let again = drain(&setup).await;
        assert_exact(&setup, again, &format!("killed at step {step}")).await;
        // Once may be the luck of a poll.
        worked_off += u32::from(done);
        if worked_off == 3 {
            assert!(step > 30, "{step} steps are too few");
            break;
        }
    }
}

/// Another drain finds what the one left that is gone, as soon as PostgreSQL has noticed that.
async fn assert_found(setup: &Setup, again: &mut Drain, when: &str) {
    until("nothing waits", async || {
        let step = again.step(true).await.expect("a step");
        (step == Step::Idle && nothing_waits(setup).await).then_some(())
    })
    .await;
    same(&setup.store.rows().await, &grouped(setup).await, when);
}

/// The same where the history is in another database than the table, with a drain in this process, before
/// each request to either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_between_two_databases_that_ends_at_every_step_loses_nothing() {
    let store = TestDb::migrated(Backend::Postgres).await;
    let setup = captured(Setup::apart(store, two_runs()).await);
    let mut application = setup.source().connect().await;
    let mut again = drain(&setup).await;
    for step in 0.. {
        application.execute(&changes(step)).await;
        let source = Turnstile::letting_from(TAKES, step, &setup.source().url).await;
        let store = source.beside(&setup.store.url).await;
        let mut config = setup.config();
        config.url.clone_from(&source.url);
        let table = store_at(&store.url, 4);
        let ends = tokio::spawn(async move {
            let history = recents::history::connect(&config).await;
            let mut drain = Drain::new(table, Arc::new(history.expect("the history")), None);
            while drain.step(true).await.expect("a step") == Step::Worked {}
        });
        until("it is held, or at its end", async || {
            (ends.is_finished() || source.holds()).then_some(())
        })
        .await;
        let done = !source.holds();
        ends.abort();
        drop((ends.await, source, store));
        assert_found(&setup, &mut again, &format!("ended at step {step}")).await;
        if done {
            assert!(step > 40, "{step} steps are too few");
            break;
        }
    }
}

/// Goes on with `work` so often; returns whether it came to its end.
async fn polled(times: usize, work: impl Future) -> bool {
    let (mut work, mut left) = (pin!(work), times);
    std::future::poll_fn(|context| {
        let Some(less) = left.checked_sub(1) else {
            return Poll::Ready(false);
        };
        left = less;
        work.as_mut().poll(context).map(|_| true)
    })
    .await
}

/// Statements of SQLite are no requests that could be held back: the drain is given up at each of its awaits
/// instead, between two of its transactions in SQLite, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_into_sqlite_that_ends_at_every_await_loses_nothing() {
    let store = TestDb::migrated(Backend::Sqlite).await;
    let setup = captured(Setup::apart(store, two_runs()).await);
    let mut application = setup.source().connect().await;
    let mut again = drain(&setup).await;
    for awaits in 0.. {
        application.execute(&changes(awaits)).await;
        let source = Turnstile::letting(usize::MAX, &setup.source().url).await;
        let mut ends = drain_of(&setup, setup.store.store_of(4), &source.url).await;
        let all = async { while ends.step(true).await.expect("a step") == Step::Worked {} };
        let done = polled(awaits, all).await;
        drop((ends, source));
        assert_found(&setup, &mut again, &format!("ended at await {awaits}")).await;
        if done {
            assert!(awaits > 30, "{awaits} awaits are too few");
            break;
        }
    }
}
