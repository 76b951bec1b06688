//! A history that is read slowly: whoever took its notes holds them for seconds, and not until it was read.

use super::drain::{blocked, captured, drain, stepping, two_runs};
use crate::support::history::Setup;
use crate::support::history::layout::POSTGRES;
use crate::support::{Backend, Beside, TestDb, until};

/// The mapping waits while somebody has the lock.
const WAITING: &str = "
    create function waiting(id bigint) returns bigint language plpgsql stable as $$
    begin
        perform pg_advisory_xact_lock_shared(4711);
        return id;
    end $$";

/// How many rows of a table there are, and how many of them nobody holds.
async fn rows_and_free(conn: &mut Beside, table: &str) -> (String, String) {
    let all = format!("select count(*)::text from recents.{table}");
    let all = conn.texts(&all).await.remove(0);
    let free = format!(
        "select count(*)::text from (select from recents.{table} for update skip locked) as free"
    );
    (all, conn.texts(&free).await.remove(0))
}

/// PostgreSQL would end the transaction that holds them after half a minute, and they would be taken again for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notes_are_held_for_seconds_while_the_history_is_slow_and_go_all_the_same() {
    let mut setup = Setup::of(TestDb::migrated(Backend::Postgres).await, two_runs()).await;
    setup.source().execute(WAITING).await;
    setup.query = POSTGRES.query_of("waiting(r.id)", "join");
    let setup = captured(setup);
    let mut drain = drain(&setup).await;
    let mut conn = setup.source().connect().await;
    conn.execute("update saved_run set updated_at = updated_at + interval '1 hour'")
        .await;
    let mut lock = setup.source().connect().await;
    // First what the triggers noted, then what was noted with the rows that follow from it.
    for table in ["outbox", "note"] {
        lock.execute("select pg_advisory_lock(4711)").await;
        let step = stepping(drain);
        blocked(&mut conn, 1).await;
        until("nobody holds the notes", async || {
            let (all, free) = rows_and_free(&mut conn, table).await;
            (all != "0" && all == free).then_some(())
        })
        .await;
        lock.execute("select pg_advisory_unlock(4711)").await;
        drain = step.await.expect("a step").0;
        let (all, _) = rows_and_free(&mut conn, "outbox").await;
        assert_eq!(all, "0");
    }
}
