//! Transactions held open beside a drain: ids are given out before they commit, and theirs are low ones.

use std::time::{Duration, Instant};

use super::followed::{Followed, plain};
use crate::support::uses::body_of;
use crate::support::{Backend, Beside, TestDb, Use, both, until};

/// Longer than a drain expects notes of lower ids than those that it saw, which is two seconds.
const HELD: Duration = Duration::from_secs(3);

both!(what_a_transaction_held_open_wrote_is_found_when_it_commits);

/// Whatever version names a published run.
const VERSION: &str = "(select min(id) from saved_run_version where published_run_id is not null)";

/// The drain works meanwhile, on notes with higher ids, one after the other.
async fn beside(followed: &Followed) {
    let since = Instant::now();
    for round in 0.. {
        if since.elapsed() > HELD {
            return;
        }
        let workspace = format!("beside {round}");
        followed
            .app(&format!(
                "insert into saved_run values (20000 + {round}, '{workspace}', null, {VERSION}, now())"
            ))
            .await;
        until("the drain goes on", async || {
            let rows = followed.setup.store.rows().await;
            rows.keys().any(|key| key.0 == workspace).then_some(())
        })
        .await;
    }
}

async fn what_a_transaction_held_open_wrote_is_found_when_it_commits(db: TestDb) {
    let followed = plain(db, 55, 100).await;
    let mut held = followed.setup.source().connect().await;
    held.execute(&format!(
        "begin; insert into saved_run values (10001, 'held', 'u', {VERSION}, now());
         update saved_run set workspace_id = 'held too' where id % 3 = 0;
         delete from saved_run where id % 5 = 0"
    ))
    .await;
    beside(&followed).await;
    held.execute("commit").await;
    followed.assert_exact("when it was committed").await;
    let rows = followed.setup.store.rows().await;
    for workspace in ["held", "held too"] {
        assert!(rows.keys().any(|key| key.0 == workspace), "{workspace}");
    }
}

/// A writer of the table that takes long to commit, such as one on a machine that was suspended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_writer_held_open_noted_is_found_when_it_commits() {
    let followed = plain(TestDb::migrated(Backend::Postgres).await, 56, 100).await;
    let mut held = followed.setup.store.connect().await;
    held.execute(
        "begin;
         insert into recents.recent_workflow (workspace, published_run, last_used_at, run)
         values ('held', 'unknown', now(), '10000');
         insert into recents.note (run) values ('10000')",
    )
    .await;
    beside(&followed).await;
    held.execute("commit").await;
    followed.assert_exact("when it was committed").await;
}

/// One that keeps versions of rows alive, so that writes are kept apart: silence behind them included.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_goes_on_while_a_transaction_is_open_for_long() {
    let followed = plain(TestDb::migrated(Backend::Postgres).await, 57, 100).await;
    let mut held = followed.setup.store.connect().await;
    held.execute("begin isolation level repeatable read; select count(*) from recents.note")
        .await;
    let mut conn = followed.setup.store.connect().await;
    let is_older = async |conn: &mut Beside, seconds: u32| {
        let old = format!(
            "select 'old' from pg_stat_activity
             where datname = current_database() and backend_xmin is not null
               and clock_timestamp() - xact_start > interval '{seconds} s'"
        );
        (!conn.texts(&old).await.is_empty()).then_some(())
    };
    let mut at = 0;
    until("the transaction is old", async || {
        at += 1;
        let unknown = (900_000 + at).to_string();
        let uses = body_of(&[Use::new("beside", "p", at).run(&unknown)]);
        let answer = followed.server.public.post("/v1/runs", &uses).await;
        answer.expect(200);
        is_older(&mut conn, 6).await
    })
    .await;
    followed.quiet().await;
    let silent = async || is_older(&mut conn, 8).await;
    until("there was nothing to do for a second", silent).await;
    followed
        .app(&format!(
            "insert into saved_run values (20000, 'behind silence', null, {VERSION}, now())"
        ))
        .await;
    until("the service goes on", async || {
        let rows = followed.setup.store.rows().await;
        rows.keys()
            .any(|key| key.0 == "behind silence")
            .then_some(())
    })
    .await;
    held.execute("commit").await;
    followed.assert_exact("when it was committed").await;
}
