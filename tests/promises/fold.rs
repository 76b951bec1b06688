//! The table keeps the greatest use of each key: by time, then by run as bytes, no run lowest.

use std::sync::Arc;

use recents::record::{Recorder, Recording};
use recents::store::Store;
use recents::telemetry::Metrics;

use crate::support::uses::{Rows, T0};
use crate::support::{TestDb, Use, both};

both!(
    a_newer_use_replaces_and_an_older_one_changes_nothing,
    of_equal_times_the_greatest_run_in_byte_order_stays,
    a_use_with_a_user_counts_in_both_lists_and_each_list_folds_by_itself,
    within_one_request_only_the_greatest_use_of_a_key_applies,
    sending_the_same_uses_again_changes_nothing,
    the_outcome_does_not_depend_on_the_order,
);

/// A recorder on `db`.
pub(crate) fn recorder(db: &TestDb) -> Recorder {
    recorder_on(&db.store())
}

/// A recorder that writes to `store`.
pub(crate) fn recorder_on(store: &Store) -> Recorder {
    let metrics = Arc::new(Metrics::new(store));
    Recorder::start(store.clone(), metrics, Recording::default()).0
}

/// Records `uses` in one request.
pub(crate) async fn record(recorder: &Recorder, uses: &[Use]) -> (u64, u64) {
    let uses: Vec<_> = uses.iter().map(Use::usage).collect();
    let recorded = recorder.record(&uses).await.expect("the uses are recorded");
    (recorded.applied, recorded.superseded)
}

/// So many applied, so many superseded.
fn outcome(applied: u64, superseded: u64) -> (u64, u64) {
    (applied, superseded)
}

fn row(uid: &str, published_run: &str, after: i64, run: Option<&str>) -> Rows {
    let key = ("w".into(), uid.into(), published_run.into());
    Rows::from([(key, (T0 + after, run.map(Into::into)))])
}

async fn a_newer_use_replaces_and_an_older_one_changes_nothing(db: TestDb) {
    let recorder = recorder(&db);
    let at = |after, run| [Use::new("w", "p", after).run(run)];
    assert_eq!(record(&recorder, &at(10, "a")).await, outcome(1, 0));
    assert_eq!(db.rows().await, row("", "p", 10, Some("a")));
    assert_eq!(
        record(&recorder, &at(9, "z")).await,
        outcome(0, 1),
        "older by a microsecond"
    );
    assert_eq!(db.rows().await, row("", "p", 10, Some("a")));
    assert_eq!(
        record(&recorder, &at(11, "a")).await,
        outcome(1, 0),
        "newer by a microsecond"
    );
    assert_eq!(db.rows().await, row("", "p", 11, Some("a")));
}

async fn of_equal_times_the_greatest_run_in_byte_order_stays(db: TestDb) {
    let recorder = recorder(&db);
    // Each greater than the one before it as bytes, where a language's order, numbers or UTF-16
    // would disagree.
    let rising = [
        None,
        Some("10"),
        Some("9"),
        Some("Z"),
        Some("a"),
        Some("é"),
        Some("\u{fffd}"),
        Some("😀"),
    ];
    let at = |run: Option<&str>| match run {
        None => [Use::new("w", "p", 0)],
        Some(run) => [Use::new("w", "p", 0).run(run)],
    };
    for (i, run) in rising.into_iter().enumerate() {
        assert_eq!(
            record(&recorder, &at(run)).await,
            outcome(1, 0),
            "{run:?} is greater"
        );
        assert_eq!(db.rows().await, row("", "p", 0, run));
        for lower in &rising[..=i] {
            assert_eq!(
                record(&recorder, &at(*lower)).await,
                outcome(0, 1),
                "{lower:?} under {run:?}"
            );
        }
        assert_eq!(db.rows().await, row("", "p", 0, run));
    }
    assert_eq!(
        record(&recorder, &[Use::new("w", "p", 1)]).await,
        outcome(1, 0),
        "time before run"
    );
    assert_eq!(db.rows().await, row("", "p", 1, None));
}

async fn a_use_with_a_user_counts_in_both_lists_and_each_list_folds_by_itself(db: TestDb) {
    let recorder = recorder(&db);
    record(&recorder, &[Use::new("w", "p", 5).by("u").run("a")]).await;
    let mut expected = row("", "p", 5, Some("a"));
    expected.extend(row("u", "p", 5, Some("a")));
    assert_eq!(db.rows().await, expected);

    let by_nobody = record(&recorder, &[Use::new("w", "p", 9).run("b")]).await;
    assert_eq!(by_nobody, outcome(1, 0));
    expected.extend(row("", "p", 9, Some("b")));
    assert_eq!(
        db.rows().await,
        expected,
        "the user's list is not the workspace's"
    );

    // Newer than what the user's list says, older than the workspace's: counted by the latter.
    let late = record(&recorder, &[Use::new("w", "p", 7).by("u").run("c")]).await;
    assert_eq!(late, outcome(0, 1));
    expected.extend(row("u", "p", 7, Some("c")));
    assert_eq!(db.rows().await, expected);

    record(&recorder, &[Use::new("w", "p", 8).by("v").run("d")]).await;
    expected.extend(row("v", "p", 8, Some("d")));
    assert_eq!(
        db.rows().await,
        expected,
        "one user's list is not another's"
    );
}

async fn within_one_request_only_the_greatest_use_of_a_key_applies(db: TestDb) {
    let recorder = recorder(&db);
    let uses = [
        Use::new("w", "p", 1).run("a"),
        Use::new("w", "p", 3).run("b"),
        Use::new("w", "p", 3).run("c"),
        Use::new("w", "p", 3).run("c"),
        Use::new("w", "p", 2).run("d"),
    ];
    assert_eq!(record(&recorder, &uses).await, outcome(1, 4));
    assert_eq!(db.rows().await, row("", "p", 3, Some("c")));
    let two_users = [Use::new("w", "q", 1).by("u"), Use::new("w", "q", 1).by("v")];
    assert_eq!(
        record(&recorder, &two_users).await,
        outcome(1, 1),
        "of equal uses one applies"
    );
    assert_eq!(
        db.rows().await.len(),
        4,
        "but each counts in its user's list"
    );
}

async fn sending_the_same_uses_again_changes_nothing(db: TestDb) {
    let recorder = recorder(&db);
    let uses: Vec<_> = (0..1_000)
        .map(|i| {
            Use::new(&format!("w{}", i % 7), &format!("p{}", i % 90), i).by(&format!("u{}", i % 11))
        })
        .collect();
    let first = record(&recorder, &uses).await;
    assert_eq!(first, outcome(630, 370), "a use for each of 7 × 90 keys");
    let rows = db.rows().await;
    assert_eq!(record(&recorder, &uses).await, outcome(0, 1_000));
    assert_eq!(db.rows().await, rows);
}

async fn the_outcome_does_not_depend_on_the_order(db: TestDb) {
    let recorder = recorder(&db);
    let (early, late) = (
        Use::new("w", "p", 1).by("u").run("b"),
        Use::new("w", "p", 2).by("u").run("a"),
    );
    let orders = [[&early, &late], [&late, &early]];
    for (i, order) in orders.into_iter().enumerate() {
        for usage in order {
            let usage = Use {
                workspace: i.to_string(),
                ..usage.clone()
            };
            record(&recorder, &[usage]).await;
        }
    }
    let rows = db.rows().await;
    let of = |workspace: &str| -> Vec<_> {
        let mine = rows.iter().filter(|((w, ..), _)| w == workspace);
        mine.map(|((_, uid, p), newest)| (uid.clone(), p.clone(), newest.clone()))
            .collect()
    };
    assert_eq!(of("0"), of("1"));
    assert_eq!(of("0")[0].2, (T0 + 2, Some("a".into())));
}
