//! What a backfill says of itself: how much it changed or would change, and where it says so.

use std::sync::Arc;

use recents::history;
use recents::jobs::backfill::{Origin, dry_run};
use serde_json::json;
use tokio::sync::watch;

use crate::support::command::Ended;
use crate::support::history::layout::Layout;
use crate::support::history::{History, Run, Setup};
use crate::support::{Backend, TestDb, both};

both!(
    a_dry_run_tells_what_would_change_and_writes_nothing,
    a_dry_run_that_does_not_fit_into_memory_says_at_most,
    a_second_backfill_changes_nothing,
    a_backfill_makes_the_table_where_there_is_none,
    data_goes_to_stdout_and_messages_to_stderr,
);

async fn a_dry_run_tells_what_would_change_and_writes_nothing(db: TestDb) {
    let setup = Setup::plain(db, 9, 400).await;
    let all = setup.history.rows();
    let dry = setup.json(&["backfill", "--dry-run", "--window-runs", "50"], 0);
    let (applied, dry_run, scanned) = (&dry["applied"], &dry["dry_run"], &dry["scanned"]);
    assert_eq!(
        (applied, dry_run, scanned),
        (&json!(all.len()), &json!(true), &json!(400))
    );
    assert!(setup.store.rows().await.is_empty(), "it wrote rows");
    assert_eq!(setup.job("id").await, "", "it left a job");
    // Half of the rows are there, some of them too low, and one too high.
    setup.backfill(&[]).await;
    let t = match setup.store.backend {
        Backend::Postgres => [
            "last_used_at - interval '1 year'",
            "last_used_at + interval '1 year'",
        ],
        Backend::Sqlite => [
            "last_used_at - 31536000000000",
            "last_used_at + 31536000000000",
        ],
    };
    for change in [
        "delete from {recents}recent_workflow where published_run in ('p1', 'p2')".to_owned(),
        format!(
            "update {{recents}}recent_workflow set last_used_at = {} where published_run = 'p3'",
            t[0]
        ),
        format!(
            "update {{recents}}recent_workflow set last_used_at = {} where published_run = 'p4'",
            t[1]
        ),
    ] {
        setup.store.execute(&change).await;
    }
    let (before, job) = (setup.store.rows().await, setup.job("state").await);
    let differing = all
        .keys()
        .filter(|(.., p)| ["p1", "p2", "p3"].contains(&p.as_str()))
        .count();
    assert!(
        differing > 10 && differing < all.len(),
        "{differing} says nothing"
    );
    for args in [&["--window-runs", "7"][..], &["--one-pass"], &[]] {
        let dry = setup.json(&[&["backfill", "--dry-run"], args].concat(), 0);
        assert_eq!(dry["applied"], json!(differing), "{args:?}");
        assert_eq!(
            (setup.store.rows().await, setup.job("state").await),
            (before.clone(), job.clone())
        );
    }
    let text = setup.recents(&["backfill", "--dry-run"]).expect(0).out;
    assert!(
        text.contains(&format!("{differing} rows would be applied")),
        "{text}"
    );
    assert_eq!(setup.json(&["backfill"], 0)["applied"], json!(differing));
}

async fn a_dry_run_that_does_not_fit_into_memory_says_at_most(db: TestDb) {
    let setup = Setup::plain(db, 12, 600).await;
    let rows = setup.history.rows().len() as u64;
    let history = Arc::new(history::connect(&setup.config()).await.expect("a history"));
    let dry = async |fold_bytes| {
        // Many more windows than are read ahead.
        let origin = Origin::Windows(Arc::clone(&history), 5);
        let (_stop, stopped) = watch::channel(false);
        let store = setup.store.store();
        let ran = dry_run(&store, origin, fold_bytes, stopped, |_| {}).await;
        let (_, report) = ran.expect("both are there");
        (report.applied, report.at_most)
    };
    assert_eq!(dry(usize::MAX).await, (rows, false));
    let (applied, at_most) = dry(0).await;
    assert!(applied > rows && at_most, "{applied} of {rows}, {at_most}");
    setup.backfill(&[]).await;
    assert_eq!(dry(0).await, (0, false));
}

async fn a_second_backfill_changes_nothing(db: TestDb) {
    let setup = Setup::plain(db, 10, 300).await;
    let first = setup.backfill(&[]).await;
    assert_eq!(first["applied"], json!(setup.history.rows().len()));
    for args in [
        &[][..],
        &["--restart"],
        &["--one-pass"],
        &["--window-runs", "10"],
    ] {
        let again = setup.backfill(args).await;
        assert_eq!(
            (&again["applied"], &again["scanned"]),
            (&json!(0), &json!(300 - unseen(&setup, args)))
        );
    }
}

/// Runs that one query cannot see, because the join drops them.
fn unseen(setup: &Setup, args: &[&str]) -> usize {
    let known = |run: &&Run| {
        !run.version
            .is_some_and(|v| setup.history.versions.contains_key(&v))
    };
    match args.contains(&"--one-pass") {
        true => setup.history.runs.iter().filter(known).count(),
        false => 0,
    }
}

async fn a_backfill_makes_the_table_where_there_is_none(db: TestDb) {
    let store = TestDb::empty(db.backend).await;
    let setup = Setup::of(store, History::random(Layout::of(db.backend), 11, 100)).await;
    for args in [&["--dry-run"][..], &["--migrate-on-start", "false"]] {
        let failed = setup.recents(&[&["backfill"], args].concat()).expect(1);
        assert!(
            failed.one_line().contains("recents migrate"),
            "{args:?}: {failed:?}"
        );
    }
    setup.backfill(&[]).await;
}

async fn data_goes_to_stdout_and_messages_to_stderr(db: TestDb) {
    let setup = Setup::of(
        db,
        History::of(
            Layout::of(Backend::Postgres),
            vec![
                Run::new(1, "w", 1, 0).by("u"),
                Run {
                    workspace: None,
                    ..Run::new(2, "w", 1, 0)
                },
            ],
        ),
    )
    .await;
    let ended = setup.recents(&["backfill"]).expect(0);
    let lines: Vec<_> = ended.out.lines().collect();
    let first = lines[0].split(" runs/s, ").next().expect("a line");
    assert!(
        first.starts_with("2 runs scanned, 1 skipped, 2 rows applied, "),
        "{first}"
    );
    assert_eq!(lines[1..], ["  null_workspace: 1"]);
    assert_eq!(ended.err, "");
    let dry = setup
        .recents(&["backfill", "--dry-run", "--json"])
        .expect(0);
    assert_eq!((dry.out.lines().count(), dry.err.as_str()), (1, ""));
    // A backfill that failed has said so, and printed no data.
    let mut failing = setup.command(&["backfill", "--json"]);
    failing.env("RECENTS_HISTORY_TABLE", "nothing_here");
    let failed: Ended = failing.output().expect("recents runs").into();
    let failed = failed.expect(2);
    assert_eq!(failed.out, "");
    assert!(failed.one_line().contains("nothing_here"), "{failed:?}");
}
