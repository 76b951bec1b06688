//! A transaction that an application leaves open holds back vacuum.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::capture::followed::plain;
use crate::promises::fold::{record, recorder};
use crate::support::{Backend, TestDb, Use, until};

const FLUSHES: &str = "recents_record_flush_seconds_count";

/// How many flushes a client that never waits makes in half a second.
async fn flushes(followed: &crate::capture::followed::Followed, sent: &mut u32) -> f64 {
    let before = followed.server.metric(FLUSHES).await;
    let started = Instant::now();
    while started.elapsed() < Duration::from_millis(500) {
        *sent += 1;
        let usage = json!({"runs": [{"workspace": "w1", "published_run": "p1", "run": sent.to_string(),
                                     "last_used_at": "2020-01-01T00:00:00Z"}]});
        followed
            .server
            .public
            .post("/v1/runs", &usage)
            .await
            .expect(200);
    }
    followed.server.metric(FLUSHES).await - before
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_transaction_is_old_writes_are_kept_apart_and_nothing_stops() {
    let followed = plain(TestDb::migrated(Backend::Postgres).await, 85, 100).await;
    let mut sent = 0;
    let at_once = flushes(&followed, &mut sent).await;
    assert!(at_once > 10.0, "{at_once} flushes in half a second");
    let mut old = followed.setup.source().connect().await;
    old.execute("begin isolation level repeatable read; select count(*) from saved_run")
        .await;
    until("flushes are kept apart", async || {
        (flushes(&followed, &mut sent).await <= 6.0).then_some(())
    })
    .await;
    // Neither the drain nor the reads stand still meanwhile.
    followed
        .app("update saved_run set workspace_id = 'meanwhile' where id % 2 = 0")
        .await;
    followed.assert_exact("while the transaction is open").await;
    old.execute("commit").await;
    until("flushes follow each other again", async || {
        (flushes(&followed, &mut sent).await > 10.0).then_some(())
    })
    .await;
}

/// Autovacuum looks once a minute; a hot key's dead versions would be walked by every read until then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_many_writes_the_table_is_vacuumed() {
    let db = TestDb::migrated(Backend::Postgres).await;
    let recorder = recorder(&db);
    for at in 0..20_100 {
        record(&recorder, &[Use::new("w", "p", at)]).await;
    }
    let mut conn = db.connect().await;
    until("it was vacuumed, not by autovacuum", async || {
        let vacuumed = "select vacuum_count::text from pg_stat_user_tables
                        where schemaname = 'recents' and relname = 'recent_workflow'";
        (conn.texts(vacuumed).await != ["0"]).then_some(())
    })
    .await;
}
