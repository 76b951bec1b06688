//! What verify prints: a line for each difference, then one that sums up.

use serde_json::json;

use super::found::key;
use crate::support::command::Ended;
use crate::support::history::layout::Layout;
use crate::support::history::{History, Run, Setup};
use crate::support::uses::T0;
use crate::support::{TestDb, both};

both!(
    each_difference_is_a_line_and_the_last_one_sums_up,
    as_json_each_difference_is_an_object_and_the_last_one_sums_up,
    what_would_move_the_cursor_is_escaped,
    without_a_history_there_is_nothing_to_verify_by,
    a_table_that_was_never_made_is_a_failure,
);

/// A history of 1,200 runs of two workflows, and a table that differs from it in each way.
async fn differing(db: TestDb) -> Setup {
    let layout = Layout::of(db.backend);
    let runs = (1..=1_200).map(|n| Run::new(n, "w", n % 2, n).by("u"));
    let setup = Setup::of(db, History::of(layout, runs.collect())).await;
    setup.backfill(&[]).await;
    let newest = |after: i64, run: &str| (T0 + after, Some(run.to_owned()));
    setup
        .change(
            "delete from {recents}recent_workflow where {row}",
            &key("w", "", "p0"),
        )
        .await;
    setup.put(&key("w", "", "p1"), &newest(1, "1")).await;
    setup
        .put(&key("w", "u", "p0"), &newest(2_000_000, "7"))
        .await;
    setup.put(&key("w", "v", "p0"), &(T0, None)).await;
    setup
}

/// The lines before the last, sorted, and the last without its time.
fn lines(ended: &Ended) -> (Vec<String>, String) {
    let mut lines: Vec<_> = ended.out.lines().map(ToOwned::to_owned).collect();
    let last = lines.pop().expect("a last line");
    lines.sort();
    let (last, seconds) = last.rsplit_once(", ").expect("a time");
    let seconds = seconds.strip_suffix(" s").expect("seconds");
    let (whole, tenths) = seconds.split_once('.').expect("a fraction");
    assert!(
        whole.parse::<u32>().is_ok() && tenths.len() == 1,
        "{seconds}"
    );
    (lines, last.into())
}

async fn each_difference_is_a_line_and_the_last_one_sums_up(db: TestDb) {
    let setup = differing(db).await;
    let ended = setup.recents(&["verify"]).expect(3);
    // Where it takes longer than two seconds, progress is shown.
    let is_progress = |line: &str| line.contains(" runs/s");
    assert!(ended.err.lines().all(is_progress), "{}", ended.err);
    let (found, last) = lines(&ended);
    assert_eq!(last, "1,200 runs, 4 rows, 4 differences");
    // T0 is 2023-11-14T22:13:20Z.
    let expected = [
        "ahead    workspace w user u published run p0: history 2023-11-14T22:13:20.001200Z (run 1200), \
         table 2023-11-14T22:13:22.000000Z (run 7)",
        "extra    workspace w user v published run p0: history nothing, \
         table 2023-11-14T22:13:20.000000Z (run -)",
        "missing  workspace w published run p0: history 2023-11-14T22:13:20.001200Z (run 1200), \
         table nothing",
        "stale    workspace w published run p1: history 2023-11-14T22:13:20.001199Z (run 1199), \
         table 2023-11-14T22:13:20.000001Z (run 1)",
    ];
    assert_eq!(found, expected);
    let repaired = setup.recents(&["verify", "--repair"]).expect(3);
    assert_eq!(lines(&repaired), (found, last));
    let clean = setup.recents(&["verify"]).expect(0);
    assert_eq!(
        lines(&clean),
        (Vec::new(), "1,200 runs, 4 rows, 0 differences".into())
    );
}

async fn as_json_each_difference_is_an_object_and_the_last_one_sums_up(db: TestDb) {
    let setup = differing(db).await;
    let ended = setup
        .recents(&["verify", "--json", "--workspace", "w"])
        .expect(3);
    let lines: Vec<serde_json::Value> = ended
        .out
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(lines.len(), 5);
    let stale = lines
        .iter()
        .find(|line| line["kind"] == "stale")
        .expect("it is stale");
    assert_eq!(
        *stale,
        json!({
            "kind": "stale", "workspace": "w", "uid": null, "published_run": "p1",
            "history": {"last_used_at": "2023-11-14T22:13:20.001199Z", "run": "1199"},
            "table": {"last_used_at": "2023-11-14T22:13:20.000001Z", "run": "1"},
        })
    );
    let extra = lines
        .iter()
        .find(|line| line["kind"] == "extra")
        .expect("it is extra");
    assert_eq!(
        (&extra["uid"], &extra["history"], &extra["table"]["run"]),
        (&json!("v"), &json!(null), &json!(null))
    );
    let last = &lines[4];
    let counts = ["runs", "rows", "differences", "repaired"].map(|name| last[name].clone());
    assert_eq!(counts, [json!(1_200), json!(4), json!(4), json!(false)]);
    assert!(last["seconds"].is_f64(), "{last}");
}

/// Written by someone's SQL: no way in takes such an id.
async fn what_would_move_the_cursor_is_escaped(db: TestDb) {
    let setup = differing(db).await;
    let newest = (T0, Some("7\r".to_owned()));
    setup.put(&key("w", "v\n\u{1b}[2J", "p0"), &newest).await;
    let ended = setup.recents(&["verify"]).expect(3);
    let odd = ended.out.lines().find(|line| line.contains("[2J"));
    let odd = odd.unwrap_or_else(|| panic!("{ended:?}"));
    assert!(
        odd.contains("user v\\n\\u{1b}[2J published run p0"),
        "{odd:?}"
    );
    assert!(odd.ends_with("(run 7\\r)"), "{odd:?}");
    assert_eq!(ended.out.lines().count(), 6, "{ended:?}");
}

async fn without_a_history_there_is_nothing_to_verify_by(db: TestDb) {
    let ended = crate::support::recents(&["verify", "--database-url", &db.url]).expect(2);
    assert!(
        ended.one_line().starts_with("history: is not configured"),
        "{ended:?}"
    );
}

async fn a_table_that_was_never_made_is_a_failure(db: TestDb) {
    let store = TestDb::empty(db.backend).await;
    let setup = Setup::apart(store, History::of(Layout::of(db.backend), Vec::new())).await;
    let ended = setup.recents(&["verify"]).expect(1);
    assert!(ended.one_line().contains("recents migrate"), "{ended:?}");
    assert_eq!(ended.out, "");
}
