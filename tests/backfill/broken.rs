//! A window that cannot be read stops the backfill there: nothing behind it counts as read.

use crate::support::history::setup::last_json;
use crate::support::history::{Gate, History, Layout, Run, Setup, maximum};
use crate::support::{Backend, TestDb, both};

both!(
    a_run_that_cannot_be_mapped_is_passed_over_and_read_once_it_can_be,
    one_pass_that_fails_counts_for_nothing,
    a_history_that_does_not_fit_stops_everything_before_a_row_is_written,
);

/// A history whose users stand in JSON, and the text of run 250 is broken: in eight windows of a
/// hundred runs it is in the third, and in no sample from either end.
async fn broken(db: TestDb) -> Setup {
    let runs = (1..=800).map(|key| {
        let workspace = format!("w{}", key % 5);
        Run::new(key, &workspace, key % 30, key * 31 % 97).by(&format!("u{}", key % 3))
    });
    let mut setup = Setup::of(
        db,
        History::of(Layout::of(Backend::Postgres), runs.collect()),
    )
    .await;
    let (uid, to_json) = match setup.source().backend {
        Backend::Postgres => ("r.uid::json ->> 'u'", "concat('{\"u\":\"', uid, '\"}')"),
        Backend::Sqlite => ("r.uid ->> 'u'", "'{\"u\":\"' || uid || '\"}'"),
    };
    setup.query = setup.query.replace("r.uid", &format!("{uid} as uid"));
    setup
        .source()
        .execute(&format!("update saved_run set uid = {to_json}"))
        .await;
    break_run(&setup, 250, "replace(uid, '}', '')").await;
    setup
}

async fn break_run(setup: &Setup, run: u32, uid: &str) {
    let change = format!("update saved_run set uid = {uid} where id = {run}");
    setup.source().execute(&change).await;
}

async fn a_run_that_cannot_be_mapped_is_passed_over_and_read_once_it_can_be(db: TestDb) {
    for backend in [db.backend, Backend::Sqlite] {
        let mut setup = broken(TestDb::migrated(backend).await).await;
        // Another one is among those that every command tries the mapping with.
        break_run(&setup, 1, "replace(uid, '}', '')").await;
        let all = setup.history.runs.clone();
        setup
            .history
            .runs
            .retain(|run| !["1", "250"].contains(&run.key.as_str()));
        let command = ["backfill", "--window-runs", "100", "--json"];
        let ended = setup.recents(&command).expect(0);
        for run in [1, 250] {
            let named = format!("run {run} cannot be mapped and is passed over: ");
            assert!(ended.err.contains(&named), "{ended:?}");
        }
        let words = ended.err.to_lowercase();
        assert!(words.contains("json"), "it says why: {ended:?}");
        let summary = last_json(&ended);
        assert_eq!(
            (&summary["scanned"], &summary["reasons"]["unmappable"]),
            (&800.into(), &2.into())
        );
        setup.assert_equal("around them").await;
        setup.recents(&["verify"]).expect(0);
        for run in [1, 250] {
            break_run(&setup, run, "uid || '}'").await;
        }
        setup.history.runs = all;
        setup.backfill(&[]).await;
        setup.recents(&["verify"]).expect(0);
    }
}

/// A failure that is none of the run's values.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_that_fails_is_named_and_read_again_once_it_can_be() {
    let setup = Gate::setup(TestDb::migrated(Backend::Postgres).await).await;
    let unwell =
        "create or replace function gate(id bigint) returns bigint language plpgsql stable as $$
        begin
            if id = -250 then raise exception 'out of order' using errcode = '55000'; end if;
            return id;
        end $$";
    setup.source().execute(unwell).await;
    let command = ["backfill", "--window-runs", "100", "--json"];
    for attempt in 1..=2 {
        let failed = setup.recents(&command).expect(1);
        let place = "the runs before -200 down to -300 of the history were not read: ";
        assert!(failed.err.contains(place), "attempt {attempt}: {failed:?}");
        assert!(
            failed.err.contains("out of order"),
            "it says why: {failed:?}"
        );
        assert_eq!(failed.out, "");
        assert_eq!(
            setup.job("cursor").await,
            "-200",
            "behind the second window"
        );
        assert_eq!(setup.job("state").await, "failed");
        let error = setup.job("error").await;
        assert!(error.contains(place) && error.contains("55000"), "{error}");
        assert!(
            !error.contains("out of order"),
            "the database's words: {error}"
        );
        // Uses of the third window's neighbours may be there, they do no harm; those before it
        // have to be.
        let (uses, rows) = (setup.history.uses(), setup.store.rows().await);
        for (key, newest) in maximum(&uses[..200]) {
            assert!(rows.get(&key) >= Some(&newest), "{key:?}: {newest:?}");
        }
    }
    let well = Gate::FUNCTION.replace("create", "create or replace");
    setup.source().execute(&well).await;
    let ended = setup.recents(&command).expect(0);
    assert!(ended.err.contains("going on behind 200 runs"), "{ended:?}");
    assert_eq!(last_json(&ended)["scanned"], 1_000, "each run once");
    setup.assert_equal("after it was mended").await;
    setup.recents(&["verify"]).expect(0);
}

async fn one_pass_that_fails_counts_for_nothing(db: TestDb) {
    let setup = broken(db).await;
    let failed = setup.recents(&["backfill", "--one-pass"]).expect(1);
    assert!(failed.err.to_lowercase().contains("json"), "{failed:?}");
    assert_eq!(
        (setup.job("state").await, setup.job("cursor").await),
        ("failed".into(), "NULL".into())
    );
    break_run(&setup, 250, "uid || '}'").await;
    let summary = setup.backfill(&["--one-pass"]).await;
    assert_eq!(summary["scanned"], 800);
}

/// The first window, of all runs, waits at a gate until its time is over; then its halves do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_that_takes_too_long_is_read_in_halves() {
    let setup = Gate::setup(TestDb::migrated(Backend::Postgres).await).await;
    let mut closed = Gate::close(&setup, 500).await;
    let mut worker = setup.start(&["backfill", "--json"]);
    for windows in [1, 2] {
        let waiting = async || (closed.waiting().await == windows).then_some(());
        worker
            .until(&format!("{windows} windows wait"), waiting)
            .await;
    }
    closed.open().await;
    let ended = worker.ended().await.expect(0);
    assert_eq!(last_json(&ended)["scanned"], 1_000);
    setup.assert_equal("after a window was halved").await;
}

async fn a_history_that_does_not_fit_stops_everything_before_a_row_is_written(db: TestDb) {
    let mut setup = Setup::plain(db, 97, 50).await;
    setup.history.layout.table = "nowhere";
    let file = setup.dir.path().join("uses.csv");
    let uses = "workspace,published_run,last_used_at,run\nw,p,2024-01-01T00:00:00Z,1\n";
    std::fs::write(&file, uses).expect("a file");
    let refused = setup
        .recents(&["backfill", "--from", &file.to_string_lossy()])
        .expect(2);
    assert!(refused.err.contains("nowhere"), "{refused:?}");
    assert!(setup.store.rows().await.is_empty());
    let serve = [
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--admin-listen",
        "127.0.0.1:0",
    ];
    let refused = setup.recents(&serve).expect(2);
    assert!(refused.err.contains("nowhere"), "{refused:?}");
}
