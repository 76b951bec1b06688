//! Every way in which a row can be wrong is found and named, and nothing else is.

use std::collections::BTreeMap;

use super::found::{Key, differences, key};
use crate::support::history::layout::{ALL, Layout};
use crate::support::history::{History, Setup, layout};
use crate::support::uses::T0;
use crate::support::{TestDb, both};

/// What a row becomes; `None`: it is removed.
type Change = fn(&(i64, Option<String>)) -> Option<(i64, Option<String>)>;

both!(
    after_a_backfill_nothing_differs,
    each_way_to_be_wrong_is_named,
    a_workspace_is_verified_alone,
    rows_without_a_run_are_computed_by_their_key,
    rows_by_chance_are_named_as_they_differ,
);

async fn after_a_backfill_nothing_differs(db: TestDb) {
    for layout in ALL
        .into_iter()
        .filter(|layout| layout.backend == db.backend)
    {
        println!("{}", layout.name);
        let store = TestDb::migrated(layout.backend).await;
        let setup = Setup::of(store, History::random(layout, 80, 400)).await;
        setup.backfill(&[]).await;
        assert!(setup.verify(&[]).await.is_empty());
    }
}

async fn each_way_to_be_wrong_is_named(db: TestDb) {
    let setup = Setup::plain(db, 81, 600).await;
    setup.backfill(&[]).await;
    let expected = spoil(&setup).await;
    let found = setup.verify(&[]).await;
    let kinds: BTreeMap<_, _> = found
        .into_iter()
        .map(|(key, (kind, ..))| (key, kind))
        .collect();
    assert_eq!(kinds, expected);
    assert_eq!(expected.len(), 31);
}

/// Makes rows of a plain history's table wrong in each way; returns which, and how they differ then.
pub(crate) async fn spoil(setup: &Setup) -> BTreeMap<Key, String> {
    let rows = setup.history.rows();
    let of_user = |user: bool| {
        rows.iter()
            .filter(move |((_, uid, _), _)| uid.is_empty() != user)
    };
    // A row of each list for each of them, so that none hides another.
    let mut expected = BTreeMap::new();
    for user in [false, true] {
        let mut rows = of_user(user);
        let mut wrong = async |change: Change, kind: &str| {
            let (key, newest) = rows.next().expect("a row for each");
            match change(newest) {
                Some(changed) => setup.put(key, &changed).await,
                None => {
                    setup
                        .change("delete from {recents}recent_workflow where {row}", key)
                        .await
                }
            }
            expected.insert(key.clone(), kind.to_owned());
        };
        wrong(|_| None, "missing").await;
        wrong(|(at, run)| Some((at - 1, run.clone())), "stale").await;
        wrong(|(at, run)| Some((at + 1, run.clone())), "ahead").await;
        wrong(|(_, run)| Some((0, run.clone())), "stale").await;
        wrong(
            |(_, run)| Some((253_402_300_799_999_999, run.clone())),
            "ahead",
        )
        .await;
        // Among runs of the same time the greatest counts.
        wrong(|(at, _)| Some((*at, Some("!".into()))), "stale").await;
        wrong(|(at, _)| Some((*at, Some("~".into()))), "ahead").await;
        wrong(
            |(at, run)| Some((*at, run.as_ref().map(|run| format!("{run}0")))),
            "ahead",
        )
        .await;
        wrong(|(at, _)| Some((*at, None)), "stale").await;
        wrong(|(at, _)| Some((at + 1, None)), "ahead").await;
        // Runs that there are, but of other rows.
        wrong(|(at, _)| Some((at + 1, Some("1".into()))), "ahead").await;
        wrong(|(at, _)| Some((at - 1, Some("1".into()))), "stale").await;
    }
    // A use that there was, and that is not the newest: supported, but not complete.
    let uses = setup.history.uses();
    let older = uses.iter().find(|usage| {
        let key = key(&usage.workspace, "", &usage.published_run);
        !expected.contains_key(&key) && rows[&key] != (usage.micros, usage.run.clone())
    });
    let older = older.expect("an older use");
    let of_older = key(&older.workspace, "", &older.published_run);
    setup
        .put(&of_older, &(older.micros, older.run.clone()))
        .await;
    expected.insert(of_older, "stale".into());
    // Rows of nothing, with and without a run that there is, in lists that there are and are not.
    for (workspace, uid, published_run, run) in [
        ("w0", "", "nothing", Some("1")),
        ("w0", "u1", "nothing", None),
        ("w0", "nobody", "p1", older.run.as_deref()),
        ("nowhere", "", "p1", older.run.as_deref()),
        ("nowhere", "u1", "p1", Some("x")),
        ("nowhere", "", "p2", None),
    ] {
        let key = key(workspace, uid, published_run);
        setup.put(&key, &(T0, run.map(Into::into))).await;
        expected.insert(key, "extra".into());
    }
    expected
}

async fn a_workspace_is_verified_alone(db: TestDb) {
    let setup = Setup::plain(db, 82, 500).await;
    setup.backfill(&[]).await;
    for sql in [
        "delete from {recents}recent_workflow where published_run = 'p1'",
        "update {recents}recent_workflow set run = '~' where published_run = 'p2'",
    ] {
        setup.store.execute(sql).await;
    }
    setup.put(&key("w1", "", "nothing"), &(T0, None)).await;
    setup.put(&key("nowhere", "", "nothing"), &(T0, None)).await;
    let (table, history) = (setup.store.rows().await, setup.history.rows());
    let all = differences(&table, &history);
    for workspace in ["w0", "w1", "w2", "w5", "nowhere", "never"] {
        let own = all
            .clone()
            .into_iter()
            .filter(|((of, ..), _)| of == workspace)
            .collect();
        let found = setup.verify_is(&["--workspace", workspace], own).await;
        assert_eq!(found.is_empty(), workspace == "never", "{workspace}");
        let summary = setup.json(
            &["verify", "--workspace", workspace],
            if found.is_empty() { 0 } else { 3 },
        );
        let rows = table.keys().filter(|(of, ..)| of == workspace).count();
        assert_eq!(summary["rows"], rows, "{workspace}");
    }
    // Mending one leaves the others as they are.
    setup
        .recents(&["verify", "--repair", "--workspace", "w1"])
        .expect(3);
    let left = differences(&setup.store.rows().await, &history);
    let others: BTreeMap<_, _> = all.into_iter().filter(|((of, ..), _)| of != "w1").collect();
    assert_eq!(left, others);
}

async fn rows_without_a_run_are_computed_by_their_key(db: TestDb) {
    let setup = Setup::plain(db, 83, 300).await;
    setup.backfill(&[]).await;
    // A hook that was called without the run, as is possible until there is a history.
    setup
        .store
        .execute("update {recents}recent_workflow set run = null")
        .await;
    let found = setup.verify(&[]).await;
    assert_eq!(found.len(), setup.history.rows().len());
    assert!(
        found.values().all(|(kind, ..)| kind == "stale"),
        "{found:?}"
    );
    setup.recents(&["verify", "--repair"]).expect(3);
    setup.assert_equal("after the repair").await;
    assert!(setup.verify(&[]).await.is_empty());
}

async fn rows_by_chance_are_named_as_they_differ(db: TestDb) {
    let mut rng = fastrand::Rng::with_seed(84);
    let numbers = layout::NUMBERS.into_iter();
    let layouts = ALL
        .into_iter()
        .filter(|layout| layout.key_type == "uuid" || layout.key_type == "text");
    for layout in numbers
        .chain(layouts)
        .filter(|layout: &Layout| layout.backend == db.backend)
    {
        println!("{}", layout.name);
        let store = TestDb::migrated(layout.backend).await;
        let setup = Setup::of(store, History::random(layout, 85, 400)).await;
        setup.backfill(&[]).await;
        let rows = setup.history.rows();
        let runs: Vec<_> = setup
            .history
            .runs
            .iter()
            .map(|run| run.key.clone())
            .collect();
        for key in rows.keys() {
            let newest = (
                T0 + rng.i64(0..25) * 500_000,
                Some(runs[rng.usize(..runs.len())].clone()),
            );
            let mut key = key.clone();
            match rng.u8(..6) {
                0 => {
                    setup
                        .change("delete from {recents}recent_workflow where {row}", &key)
                        .await
                }
                1 => setup.put(&key, &newest).await,
                2 => {
                    key.2 = "~!".into();
                    setup.put(&key, &newest).await;
                }
                _ => {}
            }
        }
        let found = setup.verify(&[]).await;
        assert!(found.len() > 50, "{} say little", found.len());
        setup.recents(&["verify", "--repair"]).expect(3);
        setup.assert_equal("after the repair").await;
    }
}
