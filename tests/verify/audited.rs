//! The audit of a running service.

use std::time::{Duration, Instant};

use crate::capture::followed::serve_with;
use crate::support::history::layout::POSTGRES;
use crate::support::history::{History, Setup};
use crate::support::{Backend, Server, TestDb, both, until};

both!(
    what_differs_in_any_way_is_found_counted_and_mended,
    before_the_first_backfill_nothing_is_audited,
    replicas_share_one_audit,
);

const AUDITED: [&str; 2] = ["--audit", "true"];

async fn drift(server: &Server, kind: &str) -> f64 {
    let sample = format!(r#"recents_drift_rows_total{{kind="{kind}"}}"#);
    server.metric(&sample).await
}

async fn statements(server: &Server, name: &str) -> f64 {
    let sample = format!(r#"recents_db_statements_total{{statement="{name}"}}"#);
    server.metric(&sample).await
}

const LAST_PASS: &str = "recents_verify_last_success_timestamp_seconds";

async fn what_differs_in_any_way_is_found_counted_and_mended(db: TestDb) {
    let setup = Setup::plain(db, 31, 400).await;
    setup.recents(&["backfill"]).expect(0);
    let rows: Vec<_> = setup.history.rows().into_keys().collect();
    let (micro, time) = match setup.store.backend {
        Backend::Postgres => (
            "interval '1 microsecond'",
            "timestamptz '2023-11-14 22:13:21Z'",
        ),
        Backend::Sqlite => ("1", "1700000001000000"),
    };
    let row = |at: usize| {
        let (workspace, uid, published_run) = &rows[at];
        format!("workspace = '{workspace}' and uid = '{uid}' and published_run = '{published_run}'")
    };
    let table = "{recents}recent_workflow";
    for sql in [
        format!("delete from {table} where {}", row(0)),
        format!(
            "update {table} set last_used_at = last_used_at - {micro} where {}",
            row(1)
        ),
        format!(
            "update {table} set last_used_at = last_used_at + {micro} where {}",
            row(2)
        ),
        format!(
            "insert into {table} (workspace, uid, published_run, last_used_at, run)
             values ('w1', '', 'invented', {time}, 'no-such-run')"
        ),
        // Its run is another one's: seen as what the row is beside its own uses.
        format!("update {table} set run = 'no-such-run' where {}", row(3)),
    ] {
        setup.store.execute(&sql).await;
    }
    let server = serve_with(&setup, &AUDITED).await;
    for kind in ["missing", "stale", "ahead", "extra"] {
        assert_eq!(drift(&server, kind).await, 0.0, "there from the start");
    }
    let expected = setup.history.rows();
    until("the table is mended", async || {
        (setup.store.rows().await == expected).then_some(())
    })
    .await;
    let found = server
        .log
        .message("rows differed from the history; they are computed again")
        .await;
    assert!(found["rows"].as_u64() >= Some(1), "{found}");
    until("all is counted", async || {
        let mut counted = Vec::new();
        for kind in ["missing", "stale", "ahead", "extra"] {
            counted.push(drift(&server, kind).await >= 1.0);
        }
        (counted == [true; 4]).then_some(())
    })
    .await;
    until("a pass ended", async || {
        (server.metric(LAST_PASS).await > 0.0).then_some(())
    })
    .await;
    setup.recents(&["verify"]).expect(0);
}

async fn before_the_first_backfill_nothing_is_audited(db: TestDb) {
    let setup = Setup::plain(db, 32, 50).await;
    let (server, off) = (
        serve_with(&setup, &AUDITED).await,
        serve_with(&setup, &["--audit", "false"]).await,
    );
    setup.recents(&["backfill"]).expect(0);
    let other = serve_with(&setup, &AUDITED).await;
    until("one that began after the backfill audits", async || {
        (statements(&other, "audit_save").await > 0.0).then_some(())
    })
    .await;
    // The first one looks for a backfill twice a minute.
    assert_eq!(statements(&server, "audit_take").await, 0.0);
    assert_eq!(
        statements(&off, "audit_take").await,
        0.0,
        "it is turned off"
    );
}

async fn replicas_share_one_audit(db: TestDb) {
    let setup = Setup::plain(db, 33, 50).await;
    setup.recents(&["backfill"]).expect(0);
    let started = Instant::now();
    let servers = [
        serve_with(&setup, &AUDITED).await,
        serve_with(&setup, &AUDITED).await,
    ];
    until("some pieces were taken", async || {
        let taken = "select cast(fence as text) from {recents}audit";
        let taken = setup.store.connect().await.texts(taken).await.pop();
        let taken: u32 = taken.expect("the row").parse().expect("a number");
        (taken >= 4).then_some(())
    })
    .await;
    // Three pauses lie between four pieces, whoever takes them.
    assert!(
        started.elapsed() > Duration::from_secs(6),
        "{:?}",
        started.elapsed()
    );
    drop(servers);
}

/// What cannot be mapped keeps nothing else from being looked at.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_cannot_be_mapped_is_left_out_and_the_rest_is_audited() {
    let db = TestDb::migrated(Backend::Postgres).await;
    let mut setup = Setup::of(db, History::random(POSTGRES, 34, 60)).await;
    // A user that is a number, and fails where it is none.
    let numbers = "update saved_run set uid = id % 7";
    setup.source().execute(numbers).await;
    setup.query = setup.query.replace("r.uid", "(r.uid::int)::text as uid");
    setup.recents(&["backfill"]).expect(0);
    let right = setup.store.rows().await;
    let broken = "insert into saved_run values (1000000000000, 'broken', 'x', 1, now())";
    setup.source().execute(broken).await;
    let lost = "delete from {recents}recent_workflow where workspace in ('w1', 'w3')";
    setup.store.execute(lost).await;
    let server = serve_with(&setup, &AUDITED).await;
    server
        .log
        .message("what cannot be mapped is left out of the audit")
        .await;
    until("the rest is mended", async || {
        (setup.store.rows().await == right).then_some(())
    })
    .await;
    until("the pass ended", async || {
        (server.metric(LAST_PASS).await > 0.0).then_some(())
    })
    .await;
}
