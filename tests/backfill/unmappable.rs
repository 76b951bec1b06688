//! A run that cannot be mapped costs itself and nothing else: it is named and counted, and everything
//! around it is read.

use serde_json::json;

use crate::support::history::garbled::GARBAGE;
use crate::support::history::setup::last_json;
use crate::support::history::{Setup, Turnstile};
use crate::support::{Backend, TestDb, both};

both!(
    a_run_that_cannot_be_mapped_is_named_and_counted_and_everything_else_is_read,
    the_first_few_are_named_and_the_others_counted,
    with_too_many_of_them_the_mapping_is_said_to_be_wrong,
    one_pass_says_how_such_runs_are_passed_over,
);

async fn a_run_that_cannot_be_mapped_is_named_and_counted_and_everything_else_is_read(db: TestDb) {
    // The ends, neighbours, and one alone.
    let garbage = [0, 149, 150, 151, 299];
    let setup = Setup::garbled(db, 201, 300, &garbage).await;
    for window in ["1", "7", "50", "200000"] {
        let ended = setup.recents(&["backfill", "--restart", "--json", "--window-runs", window]);
        let ended = ended.expect(0);
        let summary = last_json(&ended);
        assert_eq!(
            (&summary["scanned"], &summary["reasons"]["unmappable"]),
            (&json!(300), &json!(garbage.len())),
            "in windows of {window}"
        );
        for at in garbage {
            let named = format!(
                "run {} cannot be mapped and is passed over: ",
                setup.key(at)
            );
            assert_eq!(ended.err.matches(&named).count(), 1, "{window}: {ended:?}");
        }
        assert!(
            ended.err.contains(GARBAGE),
            "the database's words: {ended:?}"
        );
        setup.assert_equal(&format!("in windows of {window}")).await;
    }
    let text = setup.recents(&["backfill"]).expect(0);
    assert!(text.out.contains("\n  unmappable: 5\n"), "{text:?}");
    let dry = setup.json(&["backfill", "--dry-run"], 0);
    assert_eq!(dry["reasons"]["unmappable"], 5);
}

async fn the_first_few_are_named_and_the_others_counted(db: TestDb) {
    let garbage: Vec<_> = (100..130).collect();
    let setup = Setup::garbled(db, 202, 200, &garbage).await;
    let ended = setup.recents(&["backfill"]).expect(0);
    assert_eq!(
        ended.err.matches("cannot be mapped and is").count(),
        5,
        "{ended:?}"
    );
    assert!(
        ended.err.contains("\n25 more runs cannot be mapped\n"),
        "{ended:?}"
    );
    setup.assert_equal("around them").await;
}

async fn with_too_many_of_them_the_mapping_is_said_to_be_wrong(db: TestDb) {
    let garbage: Vec<_> = (100..300).collect();
    let setup = Setup::garbled(db, 203, 400, &garbage).await;
    let failed = setup
        .recents(&["backfill", "--window-runs", "50"])
        .expect(1);
    for said in [
        "more than 100 runs cannot be mapped",
        "history.query itself seems to be wrong",
        GARBAGE,
    ] {
        assert!(failed.err.contains(said), "{said}: {failed:?}");
    }
    // Two windows are read at once: whose come first is open.
    let named = failed.err.split_once("runs cannot be mapped, ");
    let named = named.and_then(|(_, rest)| rest.split_once(" among them"));
    let named: Vec<_> = named.map_or(vec![], |(names, _)| names.split(", ").collect());
    let wrong: Vec<_> = garbage.iter().map(|at| setup.key(*at)).collect();
    assert_eq!(named.len(), 5, "{failed:?}");
    assert!(
        named.iter().all(|run| wrong.iter().any(|key| key == run)),
        "{failed:?}"
    );
    // Whoever asks for the job over HTTP hears nothing of what stands in a run.
    let error = setup.job("error").await;
    assert!(
        error.contains("more than 100 runs cannot be mapped"),
        "{error}"
    );
    assert!(
        !error.contains(GARBAGE) && !error.contains("syntax"),
        "{error}"
    );
    assert_eq!(setup.job("state").await, "failed");
}

async fn one_pass_says_how_such_runs_are_passed_over(db: TestDb) {
    let setup = Setup::garbled(db, 204, 300, &[150]).await;
    let failed = setup.recents(&["backfill", "--one-pass"]).expect(1);
    assert!(failed.err.contains("without --one-pass"), "{failed:?}");
    let error = setup.job("error").await;
    assert_eq!(error, "a run cannot be mapped");
    setup.backfill(&[]).await;
}

/// Whoever has none of these runs pays nothing for them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_good_history_is_read_by_seven_statements_a_window_and_proven_by_less_than_one_for_four_runs()
 {
    let setup = Setup::plain(TestDb::migrated(Backend::Postgres).await, 205, 400).await;
    let mut counts = Vec::new();
    for window in ["10", "20"] {
        let way = Turnstile::letting(usize::MAX, &setup.source().url).await;
        let args = ["backfill", "--restart", "--window-runs", window];
        let mut command = setup.command(&args);
        command.env("RECENTS_HISTORY_URL", &way.url);
        let ended = command.output().expect("recents runs");
        assert!(ended.status.success(), "{ended:?}");
        counts.push(way.executed());
    }
    // The beginning of a transaction, the window's end, the end of that transaction; of another one the beginning,
    // the locks, COPY, and the end. Which connections there are is chance, and each has some statements of its own.
    let each = (counts[0] - counts[1]) as f64 / 20.0;
    assert_eq!(each.round(), 7.0, "{counts:?}");
    let way = Turnstile::letting(usize::MAX, &setup.source().url).await;
    let mut command = setup.command(&["verify"]);
    command.env("RECENTS_HISTORY_URL", &way.url);
    let ended = command.output().expect("recents runs");
    assert!(ended.status.success(), "{ended:?}");
    assert!(way.executed() < 100, "{} for 400 runs", way.executed());
}
