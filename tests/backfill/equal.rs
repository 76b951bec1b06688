//! The table ends as the newest use of each key in the history, whatever the history looks like.

use crate::support::history::layout::{ALL, Layout};
use crate::support::history::{History, Run, Setup};
use crate::support::{Backend, TestDb, both};

both!(
    a_history_of_any_layout_ends_as_its_grouped_maximum,
    one_pass_ends_as_windows_do,
    windows_of_every_size_end_alike,
    a_history_in_another_database_is_read_from_there,
    an_empty_history_makes_an_empty_table,
    a_history_of_one_run_makes_its_rows,
);

/// The layouts of histories that go beside a table of this kind, and all others.
fn layouts(db: &TestDb) -> impl Iterator<Item = Layout> {
    let backend = db.backend;
    ALL.into_iter()
        .filter(move |layout| layout.backend == backend)
}

async fn a_history_of_any_layout_ends_as_its_grouped_maximum(db: TestDb) {
    for (seed, layout) in (1..).zip(layouts(&db)) {
        println!("{}", layout.name);
        let store = TestDb::migrated(layout.backend).await;
        let setup = Setup::of(store, History::random(layout, seed, 700)).await;
        // In several windows, whose keys tie.
        setup.backfill(&["--window-runs", "97"]).await;
        let verified = setup.recents(&["verify"]).expect(0);
        assert!(verified.out.contains("700 runs, "), "{verified:?}");
    }
}

async fn one_pass_ends_as_windows_do(db: TestDb) {
    for (seed, layout) in (1..).zip(layouts(&db)) {
        println!("{}", layout.name);
        let store = TestDb::migrated(layout.backend).await;
        let setup = Setup::of(store, History::random(layout, seed, 700)).await;
        setup.backfill(&["--one-pass"]).await;
        let windows = setup.backfill(&[]).await;
        assert_eq!(
            windows["applied"], 0,
            "windows find nothing that one pass did not"
        );
    }
}

async fn windows_of_every_size_end_alike(db: TestDb) {
    let setup = Setup::plain(db, 3, 500).await;
    for runs in ["1", "7", "499", "500", "501", "200000"] {
        setup
            .store
            .execute("delete from {recents}recent_workflow")
            .await;
        let summary = setup.backfill(&["--restart", "--window-runs", runs]).await;
        assert_eq!(summary["scanned"], 500, "in windows of {runs}");
    }
}

async fn a_history_in_another_database_is_read_from_there(db: TestDb) {
    let other = match db.backend {
        Backend::Postgres => Backend::Sqlite,
        Backend::Sqlite => Backend::Postgres,
    };
    for backend in [db.backend, other] {
        let store = TestDb::migrated(db.backend).await;
        let history = History::random(Layout::of(backend), 5, 300);
        let setup = Setup::apart(store, history).await;
        setup.backfill(&[]).await;
        setup.recents(&["verify"]).expect(0);
    }
}

async fn an_empty_history_makes_an_empty_table(db: TestDb) {
    let setup = Setup::plain(db, 1, 0).await;
    for args in [&[][..], &["--one-pass"], &["--dry-run"]] {
        let summary = setup.backfill(args).await;
        let counts = ["scanned", "skipped", "applied"].map(|count| summary[count].clone());
        assert_eq!(counts, [0, 0, 0], "{args:?}");
        assert_eq!(summary["complete"], true);
    }
    let verified = setup.json(&["verify"], 0);
    assert_eq!(
        (&verified["runs"], &verified["rows"]),
        (&0.into(), &0.into())
    );
}

async fn a_history_of_one_run_makes_its_rows(db: TestDb) {
    let run = Run::new(1, "w", 1, 0).by("u");
    let setup = Setup::of(db, History::of(Layout::of(Backend::Postgres), vec![run])).await;
    for args in [&[][..], &["--one-pass"], &["--window-runs", "1"]] {
        setup
            .store
            .execute("delete from {recents}recent_workflow")
            .await;
        let summary = setup.backfill(args).await;
        assert_eq!(
            (&summary["scanned"], &summary["applied"]),
            (&1.into(), &2.into())
        );
    }
}
