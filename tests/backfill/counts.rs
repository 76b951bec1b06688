//! What is no use is skipped, counted by its reason, and never stops a backfill.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::odd::{Odd, bad_ids};
use crate::support::history::{At, History, Run, Setup, layout};
use crate::support::{Backend, TestDb, both};

both!(
    every_reason_to_skip_a_run_is_counted_and_the_others_are_applied,
    without_an_inner_join_runs_without_a_version_have_no_published_run,
    a_run_counts_once_for_the_first_reason,
    ids_that_are_numbers_skip_nothing_that_is_one,
);

/// The reasons that a backfill gave.
fn reasons(summary: &Value) -> BTreeMap<String, u64> {
    let reasons = summary["reasons"].as_object().expect("reasons");
    let count = |count: &Value| count.as_u64().expect("a count");
    reasons
        .iter()
        .map(|(name, n)| (name.clone(), count(n)))
        .collect()
}

fn expected<const N: usize>(of: [(&str, u64); N]) -> BTreeMap<String, u64> {
    of.into_iter()
        .map(|(name, count)| (name.into(), count))
        .collect()
}

async fn every_reason_to_skip_a_run_is_counted_and_the_others_are_applied(db: TestDb) {
    let backend = db.backend;
    let mut odd = Odd::new(backend);
    odd.odd(|run| run.workspace = None);
    odd.odd(|run| run.version = Some(2));
    odd.odd(|run| run.version = None);
    odd.odd(|run| run.version = Some(99));
    (0..2).for_each(|_| odd.odd(|run| run.at = None));
    let (mut bad_workspaces, mut bad_published_runs, mut bad_runs, mut bad_uids) = (0, 0, 0, 0);
    for id in bad_ids() {
        let version = odd.version(&id);
        odd.odd(|run| run.workspace = Some(id.clone()));
        odd.odd(|run| run.version = Some(version));
        odd.odd(|run| run.key.clone_from(&id));
        (bad_workspaces, bad_published_runs) = (bad_workspaces + 1, bad_published_runs + 1);
        bad_runs += 1;
        // An empty user is no user; any other bad one costs the user's list only.
        bad_uids += u64::from(!id.is_empty());
        odd.good(|run| run.uid = Some(id));
        odd.good.last_mut().expect("pushed").uid = None;
    }
    let (infinite, never) = match backend {
        Backend::Postgres => (
            &["infinity", "-infinity"][..],
            &[
                "294276-12-31 23:59:59.999999Z",
                "4713-01-01 BC",
                "1969-12-31 23:59:59.999999Z",
                "10000-01-01Z",
            ][..],
        ),
        Backend::Sqlite => (
            &["infinity", "-infinity"][..],
            &[
                "1969-12-31 23:59:59",
                "yesterday",
                "",
                "10000-01-01 00:00:00",
                "2020-02-30 00:00:00",
            ][..],
        ),
    };
    for at in infinite.iter().chain(never) {
        odd.odd(|run| run.at = Some(At::Never(at)));
    }
    // The longest ids, characters that only look like trouble, and the ends of time.
    let longest = odd.version(&"é".repeat(64));
    odd.good(|run| {
        (run.workspace, run.uid, run.version) =
            (Some("x".repeat(128)), Some("...".into()), Some(longest))
    });
    odd.good(|run| run.at = Some(At::Micros(0)));
    // 9999-12-31T23:59:59.999999Z
    odd.good(|run| run.at = Some(At::Micros(253_402_300_799_999_999)));
    let year = 365 * 24 * 3_600 * 1_000_000;
    let now = std::time::UNIX_EPOCH
        .elapsed()
        .expect("after 1970")
        .as_micros() as i64;
    odd.good(|run| run.at = Some(At::Micros(now + year)));

    let never = never.len() as u64;
    let reasons_expected = expected([
        ("null_workspace", 1),
        ("null_published_run", 1),
        ("null_last_used_at", 2),
        ("unmapped", 2),
        ("invalid_workspace", bad_workspaces),
        ("invalid_published_run", bad_published_runs),
        ("invalid_run", bad_runs),
        ("invalid_uid", bad_uids),
        ("infinite_last_used_at", 2),
        ("invalid_last_used_at", never),
        ("future_last_used_at", 2),
    ]);
    let skipped = 8 + bad_workspaces + bad_published_runs + bad_runs + never;
    let runs = odd.history.runs.len() as u64;
    let good = History {
        runs: odd.good.clone(),
        ..odd.history.clone()
    };
    let mut setup = Setup::of(db, odd.history).await;
    setup.history = good;
    for window in ["5", "200000"] {
        let summary = setup
            .backfill(&["--restart", "--window-runs", window])
            .await;
        assert_eq!(
            reasons(&summary),
            reasons_expected,
            "in windows of {window}"
        );
        assert_eq!(
            (&summary["scanned"], &summary["skipped"]),
            (&json!(runs), &json!(skipped))
        );
    }
    // One query sees only what the join leaves over.
    let summary = setup.backfill(&["--one-pass"]).await;
    let mut mapped = reasons_expected.clone();
    mapped.remove("unmapped");
    assert_eq!(reasons(&summary), mapped);
    assert_eq!(summary["scanned"], json!(runs - 2));
    let verified = setup.recents(&["verify"]).expect(0);
    assert!(
        verified.out.starts_with(&format!("{runs} runs, ")),
        "{verified:?}"
    );
}

async fn without_an_inner_join_runs_without_a_version_have_no_published_run(db: TestDb) {
    let mut odd = Odd::new(db.backend);
    odd.odd(|run| run.version = None);
    odd.odd(|run| run.version = Some(99));
    odd.odd(|run| run.version = Some(2));
    odd.good(|_| {});
    let mut setup = Setup::of(db, odd.history).await;
    setup.query = setup.history.layout.query_of("r.id", "left join");
    let summary = setup.backfill(&[]).await;
    assert_eq!(reasons(&summary), expected([("null_published_run", 3)]));
}

async fn a_run_counts_once_for_the_first_reason(db: TestDb) {
    let mut odd = Odd::new(db.backend);
    odd.odd(|run| (run.workspace, run.version, run.at) = (None, Some(2), None));
    odd.odd(|run| (run.version, run.at) = (Some(2), None));
    odd.odd(|run| (run.workspace, run.at) = (Some(String::new()), None));
    odd.odd(|run| (run.workspace, run.uid) = (None, Some(".".into())));
    let setup = Setup::of(db, odd.history).await;
    let summary = setup.json(&["backfill"], 0);
    let once = [
        ("null_workspace", 2),
        ("null_published_run", 1),
        ("null_last_used_at", 1),
    ];
    assert_eq!(reasons(&summary), expected(once));
    assert_eq!(
        (&summary["skipped"], &summary["applied"]),
        (&json!(4), &json!(0))
    );
}

async fn ids_that_are_numbers_skip_nothing_that_is_one(db: TestDb) {
    let backend = db.backend;
    let layout = layout::NUMBERS
        .into_iter()
        .find(|layout| layout.backend == backend);
    let ids = ["0", "-1", "9223372036854775807", "-9223372036854775808"];
    let runs = (-2..).zip(ids).map(|(key, id)| Run::new(key, id, 1, 0));
    let mut history = History::of(layout.expect("one of numbers"), runs.collect());
    history.versions = BTreeMap::from([(1, Some("-5".into()))]);
    let setup = Setup::of(db, history).await;
    let summary = setup.backfill(&[]).await;
    assert_eq!(
        (&summary["skipped"], &summary["applied"]),
        (&json!(0), &json!(4))
    );
    for id in ids {
        // `=`, because a number may begin with what looks like a flag.
        let verified = setup.json(&["verify", &format!("--workspace={id}")], 0);
        assert_eq!(
            (&verified["runs"], &verified["rows"]),
            (&json!(1), &json!(1)),
            "{id}"
        );
    }
}
