//! `recents resync`, as it is called and what it prints.

use crate::support::command::Ended;
use crate::support::history::{History, Layout, Run, Setup};
use crate::support::uses::T0;
use crate::support::{TestDb, both};
use crate::verify::found::key;

both!(
    what_is_no_good_call_exits_with_2_and_changes_nothing,
    each_row_is_a_line_and_the_last_one_sums_up,
    a_table_that_was_never_made_is_a_failure,
);

async fn what_is_no_good_call_exits_with_2_and_changes_nothing(db: TestDb) {
    let setup = Setup::plain(db, 160, 50).await;
    for args in [
        &["resync"][..],
        &["resync", "--all", "--workspace", "w1"],
        &["resync", "--all", "--mode", "mirror"],
        &["resync", "--workspace", ""],
        &["resync", "w1"],
        // Nobody can be asked here.
        &["resync", "--all", "--mode", "rebuild"],
    ] {
        let refused = setup.recents(args).expect(2);
        assert_eq!(refused.out, "", "{args:?}");
        assert!(!refused.err.is_empty(), "{args:?}");
    }
    let asked = setup
        .recents(&["resync", "--all", "--mode", "rebuild"])
        .expect(2);
    assert!(asked.one_line().contains("--yes"), "{asked:?}");
    assert!(setup.store.rows().await.is_empty());
    assert_eq!(setup.job("id").await, "", "there is no job");
    // What lowers nothing, or only one workspace, is not asked about.
    setup
        .recents(&["resync", "--all", "--mode", "rebuild", "--dry-run"])
        .expect(0);
    setup
        .recents(&["resync", "--workspace", "w1", "--mode", "rebuild"])
        .expect(0);
    setup.recents(&["resync", "--all"]).expect(0);
    setup.assert_equal("after a merge").await;
}

/// The lines, and the last without its time.
fn lines(ended: &Ended) -> (Vec<&str>, &str) {
    let mut lines: Vec<_> = ended.out.lines().collect();
    let last = lines.pop().expect("a last line");
    let (last, seconds) = last.rsplit_once(", ").expect("a time");
    assert!(seconds.ends_with(" s"), "{seconds}");
    (lines, last)
}

async fn each_row_is_a_line_and_the_last_one_sums_up(db: TestDb) {
    let layout = Layout::of(db.backend);
    let runs = (1..=1_200).map(|n| Run::new(n, "w", n % 2, n).by("u"));
    let setup = Setup::of(db, History::of(layout, runs.collect())).await;
    setup.backfill(&[]).await;
    let newest = |after: i64, run: &str| (T0 + after, Some(run.to_owned()));
    let gone = "delete from {recents}recent_workflow where {row}";
    setup.change(gone, &key("w", "", "p0")).await;
    setup.put(&key("w", "", "p1"), &newest(1, "1")).await;
    setup
        .put(&key("w", "u", "p0"), &newest(2_000_000, "7"))
        .await;
    setup.put(&key("w", "v", "p0"), &(T0, None)).await;
    let rebuild = ["resync", "--all", "--mode", "rebuild"];
    let planned = setup
        .recents(&[&rebuild[..], &["--dry-run"]].concat())
        .expect(0);
    assert_eq!(planned.err, "");
    // T0 is 2023-11-14T22:13:20Z.
    let expected = [
        "missing  workspace w published run p0: history 2023-11-14T22:13:20.001200Z (run 1200), \
         table nothing; no_row",
        "stale    workspace w published run p1: history 2023-11-14T22:13:20.001199Z (run 1199), \
         table 2023-11-14T22:13:20.000001Z (run 1); newer_use",
        "ahead    workspace w user u published run p0: history 2023-11-14T22:13:20.001200Z (run 1200), \
         table 2023-11-14T22:13:22.000000Z (run 7); run_of_another_row",
        "extra    workspace w user v published run p0: history nothing, \
         table 2023-11-14T22:13:20.000000Z (run -); no_run",
    ];
    let sum = "1,200 runs, 4 rows, 1 to add, 1 to raise, 1 to lower, 1 to remove";
    assert_eq!(lines(&planned), (expected.to_vec(), sum));
    let rebuilt = setup
        .recents(&[&rebuild[..], &["--yes"]].concat())
        .expect(0);
    let sum = "1,200 runs, 4 rows, 1 added, 1 raised, 1 lowered, 1 removed";
    assert_eq!(lines(&rebuilt), (Vec::new(), sum));
    let again = setup
        .recents(&[&rebuild[..], &["--yes"]].concat())
        .expect(0);
    let sum = "1,200 runs, 4 rows, 0 added, 0 raised, 0 lowered, 0 removed";
    assert_eq!(lines(&again), (Vec::new(), sum));
}

async fn a_table_that_was_never_made_is_a_failure(db: TestDb) {
    let store = TestDb::empty(db.backend).await;
    let setup = Setup::apart(store, History::of(Layout::of(db.backend), Vec::new())).await;
    let ended = setup.recents(&["resync", "--all"]).expect(1);
    assert!(ended.one_line().contains("recents migrate"), "{ended:?}");
    assert_eq!(ended.out, "");
}
