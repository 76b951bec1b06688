//! Finished jobs are kept for 30 days.

use serde_json::json;

use super::{execute, insert};
use crate::support::history::Setup;
use crate::support::{Server, TestDb, both, until};

both!(
    jobs_that_were_finished_for_30_days_go_but_for_the_last_success,
    a_service_prunes_them_too,
);

const DAY: u64 = 24 * 3_600;

/// Jobs that are long over, and some that are not. When the last backfill succeeded is asked of its job.
async fn old_and_new(db: &TestDb) {
    let at = |days: u64| format!("={{ago:{}}}", days * DAY);
    for (id, columns) in [
        ("a", json!({"finished_at": at(50), "kind": "backfill"})),
        ("b", json!({"finished_at": at(40), "kind": "backfill"})),
        ("c", json!({"finished_at": at(31), "state": "failed"})),
        (
            "d",
            json!({"finished_at": at(31), "state": "cancelled", "idempotency_key": "k"}),
        ),
        ("e", json!({"finished_at": at(29), "state": "failed"})),
        ("f", json!({"started_at": at(90), "state": "paused"})),
    ] {
        execute(db, &insert(id, &columns)).await.expect("a job");
    }
    for job in ["c", "e"] {
        let line =
            format!("insert into {{recents}}job_plan values ('{job}', 'w', '', 'p', '{{}}')");
        execute(db, &line).await.expect("a plan");
    }
}

async fn left(db: &TestDb) -> (Vec<String>, Vec<String>) {
    let mut conn = db.connect().await;
    let jobs = conn
        .texts("select id from {recents}job where length(id) = 1 order by id")
        .await;
    let plans = conn
        .texts("select job from {recents}job_plan order by job")
        .await;
    (jobs, plans)
}

async fn jobs_that_were_finished_for_30_days_go_but_for_the_last_success(db: TestDb) {
    let setup = Setup::plain(db, 120, 20).await;
    old_and_new(&setup.store).await;
    setup.recents(&["backfill", "--dry-run"]).expect(0);
    assert_eq!(
        left(&setup.store).await.0.len(),
        6,
        "a dry run changes nothing"
    );
    setup.recents(&["backfill"]).expect(0);
    // The backfill that goes on now succeeded last; it was not yet when the others went.
    let (jobs, plans) = left(&setup.store).await;
    assert_eq!(jobs, ["b", "e", "f"]);
    assert_eq!(plans, ["e"]);
}

async fn a_service_prunes_them_too(db: TestDb) {
    old_and_new(&db).await;
    let _server = Server::start(&db).await;
    let pruned = until("some are gone", async || {
        let (jobs, plans) = left(&db).await;
        (jobs.len() < 6).then_some((jobs, plans))
    });
    let (jobs, plans) = pruned.await;
    assert_eq!(jobs, ["b", "e", "f"]);
    assert_eq!(plans, ["e"]);
}
