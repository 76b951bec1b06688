//! Repair: whatever is wrong with the table, it ends as the history says.

use crate::support::history::layout::Layout;
use crate::support::history::{History, Run, Setup};
use crate::support::{Backend, TestDb, both};

use super::found::differences;

both!(
    thousands_of_rows_are_mended_at_once,
    an_empty_table_is_filled,
    a_table_of_invented_rows_is_emptied,
    a_repair_of_nothing_changes_nothing,
    a_history_that_lost_all_its_runs_empties_the_table,
);

/// Some thousand rows: each run a row of its own in two lists.
async fn large(db: TestDb) -> Setup {
    let layout = Layout::of(db.backend);
    let runs = (1..=3_500).map(|key| {
        Run::new(key, &format!("w{}", key % 50), key, key % 11).by(&format!("u{}", key % 4))
    });
    let setup = Setup::of(db, History::of(layout, runs.collect())).await;
    setup.recents(&["backfill"]).expect(0);
    setup
}

/// Mends the table, which differs in so many rows, and nothing differs afterwards.
async fn mends(setup: &Setup, rows: usize) {
    let differing = differences(&setup.store.rows().await, &setup.history.rows()).len();
    assert_eq!(differing, rows);
    let summary = setup.json(&["verify", "--repair"], 3);
    assert_eq!(
        (&summary["differences"], &summary["repaired"]),
        (&rows.into(), &true.into())
    );
    setup.assert_equal("after the repair").await;
    let clean = setup.json(&["verify", "--repair"], 0);
    assert_eq!(clean["differences"], 0);
}

async fn thousands_of_rows_are_mended_at_once(db: TestDb) {
    let setup = large(db).await;
    let (minute, uid) = match setup.store.backend {
        Backend::Postgres => ("interval '1 minute'", "u1"),
        Backend::Sqlite => ("60000000", "u1"),
    };
    // 1,750 of each kind: of workspaces 0 to 24 those of one user, of 25 to 49 those of nobody.
    for sql in [
        format!("delete from {{recents}}recent_workflow where uid = '{uid}'"),
        format!(
            "update {{recents}}recent_workflow set last_used_at = last_used_at - {minute} where uid = 'u2'"
        ),
        format!(
            "update {{recents}}recent_workflow set last_used_at = last_used_at + {minute} where uid = 'u3'"
        ),
        "update {recents}recent_workflow set uid = 'invented' where uid = 'u0'".into(),
        "update {recents}recent_workflow set run = '~' where uid = '' and workspace < 'w25'".into(),
    ] {
        setup.store.execute(&sql).await;
    }
    let low = setup
        .history
        .runs
        .iter()
        .filter(|run| run.workspace.as_deref() < Some("w25"))
        .count();
    // A row that was renamed is missing in one list and extra in another.
    mends(&setup, 3_500 + 875 + low).await;
}

async fn an_empty_table_is_filled(db: TestDb) {
    let setup = large(db).await;
    setup
        .store
        .execute("delete from {recents}recent_workflow")
        .await;
    mends(&setup, 7_000).await;
}

async fn a_table_of_invented_rows_is_emptied(db: TestDb) {
    let setup = large(db).await;
    setup
        .store
        .execute("delete from {recents}recent_workflow")
        .await;
    let rows = "select 'w' || (x % 60), case x % 2 when 0 then '' else 'u1' end, 'invented ' || x";
    let sql = match setup.store.backend {
        Backend::Postgres => format!(
            "insert into recents.recent_workflow {rows}, '2023-11-14 22:13:20Z', x::text from generate_series(1, 6000) x"
        ),
        Backend::Sqlite => format!(
            "with recursive n(x) as (select 1 union all select x + 1 from n where x < 6000)
             insert into recent_workflow {rows}, 1700000000000000, x from n"
        ),
    };
    setup.store.execute(&sql).await;
    mends(&setup, 13_000).await;
}

async fn a_repair_of_nothing_changes_nothing(db: TestDb) {
    let setup = Setup::plain(db, 86, 300).await;
    setup.backfill(&[]).await;
    let ended = setup.recents(&["verify", "--repair"]).expect(0);
    assert_eq!(ended.out.lines().count(), 1);
    setup.assert_equal("after a repair of nothing").await;
}

async fn a_history_that_lost_all_its_runs_empties_the_table(db: TestDb) {
    let mut setup = Setup::plain(db, 87, 300).await;
    setup.backfill(&[]).await;
    let rows = setup.history.rows().len();
    setup.source().execute("delete from saved_run").await;
    setup.history.runs.clear();
    mends(&setup, rows).await;
    let verified = setup.recents(&["verify"]).expect(0);
    assert!(
        verified.out.starts_with("0 runs, 0 rows, 0 differences, "),
        "{verified:?}"
    );
}
