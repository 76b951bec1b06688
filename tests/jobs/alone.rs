//! Jobs whose scopes overlap do not run together: the database itself refuses it.

use serde_json::json;

use super::{execute, insert};
use crate::support::{TestDb, both};

both!(
    of_two_jobs_that_overlap_the_database_lets_one_be_active,
    a_job_that_is_over_is_in_nobodys_way,
);

const ALL: Option<&str> = None;

async fn of_two_jobs_that_overlap_the_database_lets_one_be_active(db: TestDb) {
    let scopes = [
        (ALL, ALL, true),
        (ALL, Some("1"), true),
        (Some("1"), ALL, true),
        (Some("1"), Some("1"), true),
        (Some("1"), Some("2"), false),
        // As text: a number that reads alike is another one.
        (Some("1"), Some("01"), false),
        (Some("a"), Some("A"), false),
    ];
    for (first, second, overlap) in scopes {
        for (states, kind) in [
            (["running", "running"], "resync"),
            (["queued", "running"], "resync"),
            (["running", "queued"], "backfill"),
            (["queued", "queued"], "backfill"),
        ] {
            let what = format!("{first:?} {second:?} {states:?}");
            execute(&db, "delete from {recents}job").await.expect("SQL");
            let job = |id, workspace: Option<&str>, state| {
                insert(
                    id,
                    &json!({"workspace": workspace, "kind": kind, "state": state}),
                )
            };
            execute(&db, &job("a", first, states[0]))
                .await
                .expect(&what);
            let begun = execute(&db, &job("b", second, states[1])).await;
            assert_eq!(begun.is_err(), overlap, "{what}");
            // Nor by a change of state.
            execute(&db, &job("c", second, "paused"))
                .await
                .expect(&what);
            let resumed = "update {recents}job set state = 'queued' where id = 'c'";
            let refused = execute(&db, resumed).await.is_err();
            // Where the second was let in, it is what is in the way.
            assert!(refused, "{what}");
        }
    }
}

async fn a_job_that_is_over_is_in_nobodys_way(db: TestDb) {
    for (at, state) in ["paused", "succeeded", "failed", "cancelled"]
        .iter()
        .enumerate()
    {
        let over = insert(&format!("over {at}"), &json!({"state": state}));
        execute(&db, &over).await.expect("it is over");
    }
    let job = insert("now", &json!({"state": "running"}));
    execute(&db, &job).await.expect("nobody is in its way");
    // A job that is active may change all the same.
    let changes = "update {recents}job set scanned = 1, state = 'queued' where id = 'now'";
    execute(&db, changes).await.expect("it is alone");
}
