//! Keys of a history in SQLite, whose columns hold values of any type.

use crate::support::history::layout::{Layout, SQLITE};
use crate::support::history::{History, Setup};
use crate::support::{Backend, TestDb};

async fn keyed_by(key_type: &'static str) -> Setup {
    let layout = Layout { key_type, ..SQLITE };
    let db = TestDb::migrated(Backend::Sqlite).await;
    Setup::of(db, History::random(layout, 71, 300)).await
}

/// The middle one, and the one behind all others.
fn some_keys(setup: &Setup) -> [String; 2] {
    let runs = &setup.history.runs;
    [runs[150].key.clone(), runs[299].key.clone()]
}

/// Every command that reads the history.
const COMMANDS: [&[&str]; 9] = [
    &["backfill", "--restart"],
    &["backfill", "--restart", "--one-pass"],
    &["backfill", "--dry-run"],
    &["verify"],
    &["verify", "--workspace", "w1"],
    &["verify", "--repair"],
    &["resync", "--all"],
    &["resync", "--workspace", "w1", "--mode", "rebuild"],
    &["estimate"],
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_a_blob_is_refused_and_never_passed_over() {
    for key_type in ["text", "int"] {
        let setup = keyed_by(key_type).await;
        setup.backfill(&[]).await;
        let before = setup.store.rows().await;
        for key in some_keys(&setup) {
            let to = |form: &str| {
                format!("update saved_run set id = {form} where cast(id as text) = '{key}'")
            };
            setup.source().execute(&to("cast(id as blob)")).await;
            for args in COMMANDS {
                let refused = setup.recents(args).expect(2);
                for words in [
                    "history.key: `id` holds a value of type blob",
                    "select * from main.saved_run where typeof(id) = 'blob'",
                ] {
                    assert!(refused.one_line().contains(words), "{args:?}: {refused:?}");
                }
            }
            assert_eq!(setup.store.rows().await, before, "{key_type}");
            setup.source().execute(&to("cast(id as text)")).await;
        }
        setup.backfill(&["--restart"]).await;
        setup.recents(&["verify"]).expect(0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_last_key_that_its_text_does_not_name_is_refused() {
    let setup = keyed_by("int").await;
    let [_, last] = some_keys(&setup);
    let long = format!("update saved_run set id = 1234567890.1234567 where id = {last}");
    setup.source().execute(&long).await;
    for args in COMMANDS {
        let refused = setup.recents(args).expect(2);
        let words = "history.key: `id` holds a value of type real";
        assert!(refused.one_line().contains(words), "{args:?}: {refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_its_text_does_not_name_ends_a_walk_in_its_midst() {
    let setup = keyed_by("int").await;
    let [middle, _] = some_keys(&setup);
    // Its text is that of the next integer.
    let nearly = format!("update saved_run set id = id + 0.99999999999997 where id = {middle}");
    setup.source().execute(&nearly).await;
    let refused = setup.recents(&["backfill", "--window-runs", "1"]).expect(1);
    let words = "is not that number; a key is an integer or text";
    assert!(refused.err.contains(words), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_and_texts_in_one_column_are_read_by_every_way_alike() {
    let mut setup = keyed_by("int").await;
    for run in setup.history.runs.iter_mut().step_by(7) {
        let text = format!("x{}", run.key);
        let change = format!("update saved_run set id = '{text}' where id = {}", run.key);
        setup.store.execute(&change).await;
        run.key = text;
    }
    for args in [
        &["--window-runs", "10"][..],
        &["--restart"],
        &["--restart", "--one-pass"],
    ] {
        setup
            .store
            .execute("delete from {recents}recent_workflow")
            .await;
        setup.backfill(args).await;
        setup.recents(&["verify"]).expect(0);
    }
}
