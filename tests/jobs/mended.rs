//! Re-sync: whatever is wrong with the table is found, told with the reason, and mended.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{post_json, reaches};
use crate::capture::followed::serve;
use crate::support::history::layout::ALL;
use crate::support::history::setup::last_json;
use crate::support::history::{History, Setup};
use crate::support::uses::T0;
use crate::support::{TestDb, both};
use crate::verify::differences::spoil;
use crate::verify::found::{Differs, Key, differences, key, of_lines, parsed};

both!(
    a_plan_names_each_row_that_would_change_and_why,
    merge_mends_what_is_too_low_and_rebuild_the_rest,
    a_workspace_is_mended_alone,
    every_layout_of_a_history_is_mended_from,
    what_is_right_is_left_alone,
    a_dry_run_that_begins_anew_makes_a_new_plan,
);

const PLAN: [&str; 4] = ["--mode", "rebuild", "--dry-run", "--json"];

/// The lines of a plan that a command printed, and its summary.
fn plan(setup: &Setup, args: &[&str]) -> (Vec<Value>, Value) {
    let ended = setup.recents(&[&["resync"], args].concat()).expect(0);
    let mut lines = parsed(&ended.out);
    let summary = lines.pop().expect("a summary");
    (lines, summary)
}

fn counts(summary: &Value) -> [u64; 4] {
    ["added", "raised", "lowered", "removed"].map(|name| summary[name].as_u64().expect("a count"))
}

/// The differences of each kind, in the order of the counts.
fn kinds(differing: &BTreeMap<Key, Differs>) -> [u64; 4] {
    ["missing", "stale", "ahead", "extra"]
        .map(|kind| differing.values().filter(|(of, ..)| of == kind).count() as u64)
}

async fn a_plan_names_each_row_that_would_change_and_why(db: TestDb) {
    let setup = Setup::plain(db, 81, 600).await;
    setup.backfill(&[]).await;
    let expected_kinds = spoil(&setup).await;
    let before = setup.store.rows().await;
    let differing = differences(&before, &setup.history.rows());
    let (lines, summary) = plan(&setup, &[&PLAN[..], &["--all"]].concat());
    let found = of_lines(&lines);
    assert_eq!(found, differing);
    let found_kinds: BTreeMap<_, _> = found
        .into_iter()
        .map(|(key, (kind, ..))| (key, kind))
        .collect();
    assert_eq!(found_kinds, expected_kinds);
    assert_eq!(counts(&summary), kinds(&differing));
    assert_eq!(summary["rows"], before.len());
    // In the order of keys, so that two plans can be compared.
    let keys: Vec<_> = lines
        .iter()
        .map(|line| ["workspace", "uid", "published_run"].map(|name| line[name].as_str()))
        .collect();
    assert!(keys.is_sorted(), "{keys:?}");
    assert_reasons(&setup, &lines);
    assert_eq!(
        setup.store.rows().await,
        before,
        "a dry run changes nothing"
    );
    // Of a merge, what it would raise.
    let (lines, summary) = plan(&setup, &["--all", "--dry-run", "--json"]);
    let raised: BTreeMap<_, _> = differing
        .into_iter()
        .filter(|(_, (kind, ..))| kind == "missing" || kind == "stale")
        .collect();
    assert_eq!(of_lines(&lines), raised);
    assert_eq!(counts(&summary), kinds(&raised));
    // Any service can tell it.
    let server = serve(&setup).await;
    let job = summary["job"].as_str().expect("its job");
    let path = format!("/admin/v1/jobs/{job}/plan");
    let told = server.admin.get(&path).await.expect(200);
    assert_eq!(told.header("content-type"), Some("application/x-ndjson"));
    assert_eq!(told.header("recents-plan-omitted"), Some("0"));
    assert_eq!(parsed(told.text()), lines);
}

/// Each reason is so, by the history, and each occurs.
fn assert_reasons(setup: &Setup, lines: &[Value]) {
    let uses = setup.history.uses();
    let mut met = BTreeSet::new();
    for line in lines {
        let reason = line["reason"].as_str().expect("a reason");
        met.insert(reason.to_owned());
        let expected = match line["kind"].as_str() {
            Some("missing") => "no_row",
            Some("stale") => "newer_use",
            _ => {
                let run = line["table"]["run"].as_str().map(ToOwned::to_owned);
                let said = uses.iter().find(|usage| run.is_some() && usage.run == run);
                let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
                match said {
                    _ if run.is_none() => "no_run",
                    None => "unknown_run",
                    Some(said)
                        if said.workspace != text("workspace")
                            || said.published_run != text("published_run")
                            || (!text("uid").is_empty() && said.uid != Some(text("uid"))) =>
                    {
                        "run_of_another_row"
                    }
                    Some(_) => "run_has_another_time",
                }
            }
        };
        assert_eq!(reason, expected, "{line}");
    }
    let all = [
        "newer_use",
        "no_row",
        "no_run",
        "run_has_another_time",
        "run_of_another_row",
        "unknown_run",
    ];
    assert!(met.iter().eq(all), "{met:?}");
}

async fn merge_mends_what_is_too_low_and_rebuild_the_rest(db: TestDb) {
    let setup = Setup::plain(db, 81, 600).await;
    setup.backfill(&[]).await;
    spoil(&setup).await;
    let differing = differences(&setup.store.rows().await, &setup.history.rows());
    let [missing, stale, ahead, extra] = kinds(&differing);
    let merged = setup.json(&["resync", "--all"], 0);
    assert_eq!(counts(&merged), [missing, stale, 0, 0]);
    let left = differences(&setup.store.rows().await, &setup.history.rows());
    // A row that names a run which a raised row names too was looked at again with that one.
    let [.., still_ahead, still_extra] = kinds(&left);
    assert_eq!(kinds(&left)[..2], [0, 0]);
    assert!(
        still_ahead + 1 >= ahead && still_extra == extra,
        "merge only raises: {left:?}"
    );
    let rebuilt = setup.json(&["resync", "--all", "--mode", "rebuild", "--yes"], 0);
    assert_eq!(counts(&rebuilt), kinds(&left));
    setup.assert_equal("after a rebuild").await;
    setup.recents(&["verify"]).expect(0);
    // Rows whose run is unknown are lowered where there are uses, and so on: a rebuild alone does all.
    spoil(&setup).await;
    let rebuilt = setup.json(&["resync", "--all", "--mode", "rebuild", "--yes"], 0);
    let [added, raised, lowered, removed] = counts(&rebuilt);
    assert_eq!(
        [added, raised, lowered, removed],
        [missing, stale, ahead, extra]
    );
    setup.assert_equal("after a rebuild alone").await;
}

async fn a_workspace_is_mended_alone(db: TestDb) {
    let setup = Setup::plain(db, 82, 500).await;
    setup.backfill(&[]).await;
    for sql in [
        "delete from {recents}recent_workflow where published_run = 'p1'",
        "update {recents}recent_workflow set run = '~' where published_run = 'p2'",
    ] {
        setup.store.execute(sql).await;
    }
    for workspace in ["w1", "nowhere"] {
        setup.put(&key(workspace, "", "nothing"), &(T0, None)).await;
    }
    let server = serve(&setup).await;
    let history = setup.history.rows();
    let mut left = differences(&setup.store.rows().await, &history);
    let of = |workspace: &str, left: &BTreeMap<Key, Differs>| -> BTreeMap<Key, Differs> {
        let mut own = left.clone();
        own.retain(|(of, ..), _| of == workspace);
        own
    };
    for (at, workspace) in ["w0", "w1", "nowhere", "never"].into_iter().enumerate() {
        let own = of(workspace, &left);
        let (lines, _) = plan(&setup, &[&PLAN[..], &["--workspace", workspace]].concat());
        assert_eq!(of_lines(&lines), own, "{workspace}");
        let merged = setup.json(&["resync", "--workspace", workspace], 0);
        let [missing, stale, ahead, extra] = kinds(&own);
        assert_eq!(counts(&merged), [missing, stale, 0, 0], "{workspace}");
        // By command and by service.
        let rebuilt = match at % 2 {
            0 => setup.json(
                &["resync", "--workspace", workspace, "--mode", "rebuild"],
                0,
            ),
            _ => {
                let body = json!({"workspace": workspace, "mode": "rebuild"});
                let asked = post_json(&server, "/admin/v1/resyncs", &body)
                    .await
                    .expect(202);
                let id = asked.json()["id"].as_str().expect("an id").to_owned();
                let done = reaches(&server, &id, "succeeded").await;
                assert_eq!(done["workspace"], workspace);
                done["result"].clone()
            }
        };
        assert_eq!(counts(&rebuilt), [0, 0, ahead, extra], "{workspace}");
        left.retain(|(of, ..), _| of != workspace);
        let now = differences(&setup.store.rows().await, &history);
        assert_eq!(now, left, "after {workspace}, the others are as they were");
    }
    assert!(!left.is_empty());
}

async fn every_layout_of_a_history_is_mended_from(db: TestDb) {
    let mut rng = fastrand::Rng::with_seed(123);
    for layout in ALL
        .into_iter()
        .filter(|layout| layout.backend == db.backend)
    {
        println!("{}", layout.name);
        let store = TestDb::migrated(layout.backend).await;
        let setup = Setup::of(store, History::random(layout, 124, 300)).await;
        setup.backfill(&[]).await;
        let runs = &setup.history.runs;
        for key in setup.history.rows().keys() {
            let run = runs[rng.usize(..runs.len())].key.clone();
            let newest = (T0 + rng.i64(0..25) * 500_000, Some(run));
            let (mut other, delete) = (
                key.clone(),
                "delete from {recents}recent_workflow where {row}",
            );
            other.2 = "~!".into();
            match rng.u8(..6) {
                0 => setup.change(delete, key).await,
                1 => setup.put(key, &newest).await,
                2 => setup.put(&other, &newest).await,
                _ => {}
            }
        }
        let differing = differences(&setup.store.rows().await, &setup.history.rows());
        assert!(differing.len() > 30, "{} say little", differing.len());
        let (lines, _) = plan(&setup, &[&PLAN[..], &["--all"]].concat());
        assert_eq!(of_lines(&lines), differing);
        let rebuilt = setup.json(&["resync", "--all", "--mode", "rebuild", "--yes"], 0);
        assert_eq!(counts(&rebuilt), kinds(&differing));
        setup.assert_equal("after a rebuild").await;
    }
}

async fn what_is_right_is_left_alone(db: TestDb) {
    let setup = Setup::plain(db, 125, 300).await;
    setup.backfill(&[]).await;
    for args in [
        &["--all"][..],
        &["--all", "--mode", "rebuild", "--yes"],
        &["--workspace", "w1", "--mode", "rebuild"],
        &["--all", "--mode", "rebuild", "--dry-run"],
    ] {
        let ended = setup
            .recents(&[&["resync", "--json"], args].concat())
            .expect(0);
        assert_eq!(counts(&last_json(&ended)), [0; 4], "{args:?}");
        assert_eq!(ended.out.lines().count(), 1, "{args:?}");
        setup.assert_equal("after a re-sync of nothing").await;
    }
    // Without a run, and without a row.
    setup.source().execute("delete from saved_run").await;
    let emptied = setup.json(&["resync", "--all", "--mode", "rebuild", "--yes"], 0);
    assert_eq!(emptied["removed"], setup.history.rows().len());
    assert!(setup.store.rows().await.is_empty());
    let nothing = setup.json(&["resync", "--all", "--mode", "rebuild", "--yes"], 0);
    assert_eq!(counts(&nothing), [0; 4]);
}

/// As after a kill before its first row was looked at, or with another history: what an earlier worker
/// found is not told.
async fn a_dry_run_that_begins_anew_makes_a_new_plan(db: TestDb) {
    let setup = Setup::plain(db, 126, 100).await;
    let (before, _) = plan(&setup, &["--all", "--dry-run", "--json"]);
    assert!(!before.is_empty());
    setup.backfill(&[]).await;
    let again = "update {recents}job set state = 'paused', source = 'another', finished_at = null
                 where kind = 'resync'";
    setup.store.execute(again).await;
    let (lines, summary) = plan(&setup, &["--all", "--dry-run", "--json"]);
    assert_eq!(lines, Vec::<Value>::new(), "of the table as it was");
    assert_eq!(
        (counts(&summary), &summary["scanned"]),
        ([0; 4], &json!(100))
    );
    let jobs = "select id from {recents}job where kind = 'resync'";
    assert_eq!(
        setup.store.connect().await.texts(jobs).await,
        [summary["job"].as_str().expect("its job")]
    );
}
