//! Capture makes no application transaction wait for another one.

use crate::support::history::layout::POSTGRES;
use crate::support::history::{History, Setup};
use crate::support::{Backend, Beside, TestDb};

/// What capture does not do: write the table in the application's transaction.
const UPSERTING: &str = "
    create function upsert() returns trigger language plpgsql as $$ begin
        insert into recents.recent_workflow (workspace, published_run, last_used_at, run)
        select c.workspace_id, 'p1', max(c.updated_at), null from changed c group by 1
        on conflict (workspace, uid, published_run) do update set last_used_at = excluded.last_used_at;
        return null;
    end $$;
    create trigger upserting after insert on saved_run referencing new table as changed
        for each statement execute function upsert()";

async fn setup() -> Setup {
    let store = TestDb::migrated(Backend::Postgres).await;
    Setup::of(store, History::random(POSTGRES, 90, 200)).await
}

/// Two transactions write runs of two workspaces, each first that which the other writes last.
/// Whether both could, without waiting for each other.
async fn cross(setup: &Setup) -> Result<(), sqlx::Error> {
    let insert = |id: i64, workspace: &str| {
        format!("insert into saved_run values ({id}, '{workspace}', 'u', 1, now())")
    };
    let source = setup.source();
    let (mut a, mut b): (Beside, Beside) = (source.connect().await, source.connect().await);
    for conn in [&mut a, &mut b] {
        conn.execute("set lock_timeout = '500ms'; begin").await;
    }
    a.try_execute(&insert(10_001, "w1")).await?;
    b.try_execute(&insert(10_002, "w2")).await?;
    a.try_execute(&insert(10_003, "w2")).await?;
    b.try_execute(&insert(10_004, "w1")).await?;
    a.try_execute("commit").await?;
    b.try_execute("commit").await
}

#[tokio::test]
async fn transactions_that_would_deadlock_over_the_table_do_not_even_wait() {
    let upserting = setup().await;
    upserting.source().execute(UPSERTING).await;
    let waited = cross(&upserting).await;
    assert!(waited.is_err(), "the control does not see a wait");

    let captured = setup().await;
    captured.recents(&["capture", "install"]).expect(0);
    cross(&captured).await.expect("nobody waits");
}
