//! Whatever kind of statement changes the history, the table follows.

use super::followed::{Followed, plain};
use crate::support::{TestDb, both};

both!(
    each_kind_of_statement_is_followed,
    a_truncated_history_leaves_an_empty_table,
    work_that_is_rolled_back_leaves_nothing,
);

async fn each_kind_of_statement_is_followed(db: TestDb) {
    let followed = plain(db, 50, 400).await;
    follow(&followed, "saved_run").await;
}

/// Each kind of statement on this table of the history; the table follows each of them.
pub(super) async fn follow(followed: &Followed, table: &str) {
    let steps = [
        (
            "an insert",
            "insert into {t} select 10000 + n, 'w1', 'u1', 1 + n % 5, now() + n * interval '1 s' from generate_series(1, 50) n",
        ),
        (
            "a move to another workspace",
            "update {t} set workspace_id = 'moved' where id % 7 = 0",
        ),
        (
            "a move to another user",
            "update {t} set uid = 'u9' where id % 5 = 0",
        ),
        (
            "a time that steps back",
            "update {t} set updated_at = updated_at - interval '1 year' where id % 3 = 0",
        ),
        (
            "a user that goes",
            "update {t} set uid = null where uid = 'u9' and id % 2 = 0",
        ),
        (
            "parents set to null",
            "update {t} set parent_version_id = null where parent_version_id = 2",
        ),
        (
            "an insert on conflict that updates",
            "insert into {t} values (10001, 'w2', 'u2', 3, now() + interval '1 day'), (20000, 'w2', 'u2', 3, now()) on conflict (id) do update set workspace_id = excluded.workspace_id, uid = excluded.uid, parent_version_id = excluded.parent_version_id, updated_at = excluded.updated_at",
        ),
        (
            "a merge",
            "merge into {t} r using (values (10002, 'w3'), (30000, 'w3'), (10003, null)) as s (id, w) on s.id = r.id when matched and s.w is null then delete when matched then update set workspace_id = s.w when not matched then insert values (s.id, s.w, 'u3', 1, now())",
        ),
        (
            "a merge that only updates",
            "merge into {t} r using (values (10004)) as s (id) on s.id = r.id when matched then update set workspace_id = 'merged'",
        ),
        (
            "writable CTEs",
            "with gone as (delete from {t} where id % 11 = 0 returning *) insert into {t} select id + 40000, workspace_id, uid, parent_version_id, updated_at from gone",
        ),
        (
            "a key that is updated",
            "update {t} set id = id + 100000 where id % 13 = 0",
        ),
        (
            "deletes of the newest runs",
            "delete from {t} r where not exists (select from {t} n where n.workspace_id = r.workspace_id and n.updated_at > r.updated_at)",
        ),
        (
            "a delete of everything of a workspace",
            "delete from {t} where workspace_id = 'w1'",
        ),
        (
            "a copy",
            "copy {t} from program 'for i in 1 2 3; do printf \"5000%s\\tw7\\tu7\\t1\\t2024-01-0%s 00:00:00Z\\n\" $i $i; done'",
        ),
    ];
    for (what, statement) in steps {
        followed.app(&statement.replace("{t}", table)).await;
        followed.assert_exact(&format!("{what} on {table}")).await;
    }
}

async fn a_truncated_history_leaves_an_empty_table(db: TestDb) {
    let followed = plain(db, 51, 300).await;
    assert!(!followed.setup.store.rows().await.is_empty());
    followed.app("truncate saved_run").await;
    followed.assert_exact("after a truncate").await;
    assert!(followed.setup.store.rows().await.is_empty());
}

async fn work_that_is_rolled_back_leaves_nothing(db: TestDb) {
    let followed = plain(db, 52, 200).await;
    followed.quiet().await;
    let before = followed.setup.store.rows().await;
    followed
        .app(
            "begin; delete from saved_run; rollback;
             begin; update saved_run set workspace_id = 'kept' where id = 1;
             savepoint s; update saved_run set workspace_id = 'lost' where id > 1;
             rollback to s; commit",
        )
        .await;
    followed.assert_exact("after the rollback").await;
    let after = followed.setup.store.rows().await;
    assert!(after.keys().all(|key| key.0 != "lost"));
    assert!(after.len() + 4 > before.len());
}
