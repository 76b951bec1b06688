//! Estimate: what the history's question costs, told by one who may only read.

use serde_json::Value;

use crate::support::history::layout::Layout;
use crate::support::history::setup::last_json;
use crate::support::history::{History, Setup};
use crate::support::{Backend, TestDb};

/// An estimate needs no tables of ours, and leaves none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_estimate_only_reads_and_tells_of_the_busiest_workspaces() {
    let history = History::random(Layout::of(Backend::Postgres), 90, 5_000);
    let runs_of = |workspace: &str| {
        let runs = history.runs.iter();
        let own = runs.filter(|run| run.workspace.as_deref() == Some(workspace));
        own.count() as u64
    };
    let expected: std::collections::BTreeMap<_, _> = history
        .runs
        .iter()
        .filter_map(|run| run.workspace.clone())
        .map(|workspace| (workspace.clone(), runs_of(&workspace)))
        .collect();
    let rows = history.rows().len() as u64;
    let mut setup = Setup::apart(TestDb::empty(Backend::Postgres).await, history).await;
    let apart = setup.apart.as_mut().expect("a history of its own");
    apart.execute("analyze").await;
    let grants = ["grant select on saved_run, saved_run_version to %"];
    apart.url = apart.role(&grants).await;

    let ended = setup.recents(&["estimate", "--json"]).expect(0);
    assert_eq!(ended.err, "");
    let told = last_json(&ended);
    let near = |told: &Value, is: u64| {
        let told = told.as_f64().expect("a number");
        told >= is as f64 * 0.5 && told <= is as f64 * 2.0
    };
    assert!(near(&told["runs"], 5_000), "{told}");
    assert!(near(&told["rows"], rows), "{rows} rows: {told}");
    let busiest = told["busiest"].as_array().expect("workspaces");
    assert!((1..=5).contains(&busiest.len()), "{told}");
    let most = expected.values().max().expect("a workspace");
    for workspace in busiest {
        let runs = expected[workspace["workspace"].as_str().expect("an id")];
        assert!(near(&workspace["runs"], runs), "{runs} runs: {workspace}");
        assert!(runs * 2 >= *most, "{workspace} is not of the busiest");
        assert!(
            workspace["seconds_today"].as_f64() > Some(0.0),
            "{workspace}"
        );
        assert!(
            workspace["seconds_with_recents"].as_f64() > Some(0.0),
            "{workspace}"
        );
    }
    for name in ["table_bytes", "backfill_seconds"] {
        assert!(told[name].as_f64() > Some(0.0), "{name}: {told}");
    }
    let text = setup.recents(&["estimate"]).expect(0).out;
    for words in [
        "The busiest workspaces",
        "with recents",
        "The table would have",
    ] {
        assert!(text.contains(words), "no `{words}` in:\n{text}");
    }
    for database in [&setup.store, setup.source()] {
        let schemas = "select count(*)::text from pg_namespace where nspname = 'recents'";
        let count = TestDb::connect(database).await.texts(schemas).await;
        assert_eq!(count, ["0"]);
    }
}

/// Each run counts for the list of its workspace and for that of its user; more runs than are sampled,
/// half of them by a user of their own, the others by one of a thousand.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_runs_that_count_for_two_lists_are_estimated_within_a_factor_of_two() {
    let layout = Layout::of(Backend::Postgres);
    let mut setup = Setup::apart(
        TestDb::empty(Backend::Postgres).await,
        History::of(layout, Vec::new()),
    )
    .await;
    let apart = setup.apart.as_mut().expect("a history of its own");
    apart
        .execute(
            "insert into saved_run_version select v, 'p' || v from generate_series(0, 19) as v;
             insert into saved_run
             select n, 'w' || n % 7, 'u' || case n % 2 when 0 then n else n % 2000 end, n % 20,
                    '2026-01-01Z'::timestamptz + n * interval '1 second'
             from generate_series(1, 200000) as n;
             analyze",
        )
        .await;
    let rows = "select sum(n)::text from (
            select count(distinct (workspace_id, parent_version_id)) as n from saved_run
            union all select count(distinct (workspace_id, uid, parent_version_id)) from saved_run
        ) as lists";
    let rows = apart.connect().await.texts(rows).await;
    let rows: f64 = rows[0].parse().expect("a number");
    let told = last_json(&setup.recents(&["estimate", "--json"]).expect(0));
    assert!(told["sampled"].as_f64() < Some(100_000.0), "{told}");
    let estimated = told["rows"].as_f64().expect("a number");
    assert!(
        estimated >= rows / 2.0 && estimated <= rows * 2.0,
        "{rows} rows: {told}"
    );
    assert!(told["table_bytes"].as_f64() > Some(rows * 50.0), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_estimate_of_a_sqlite_history_is_refused() {
    let setup = Setup::plain(TestDb::empty(Backend::Sqlite).await, 91, 10).await;
    let refused = setup.recents(&["estimate"]).expect(2);
    assert!(
        refused.one_line().contains("estimate works on PostgreSQL"),
        "{refused:?}"
    );
}

/// Nothing that an `analyze` would mend.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_estimate_of_a_view_says_that_it_is_one() {
    let mut setup = Setup::plain(TestDb::empty(Backend::Postgres).await, 93, 1_000).await;
    let view = "alter table saved_run rename to saved_run_all;
                create view saved_run as select * from saved_run_all; analyze";
    setup.source().execute(view).await;
    let refused = setup.recents(&["estimate"]).expect(2);
    let said = refused.one_line();
    assert!(
        said.starts_with("history.table: saved_run is a view"),
        "{said}"
    );
    assert!(!said.contains("analyze"), "{said}");
    setup.history.layout.table = "saved_run_all";
    setup.recents(&["estimate"]).expect(0);
}

/// What the database says, once, and nothing of its own source code.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_of_the_database_is_in_its_own_words_once() {
    let history = History::random(Layout::of(Backend::Postgres), 92, 1_000);
    let mut setup = Setup::apart(TestDb::empty(Backend::Postgres).await, history).await;
    let apart = setup.apart.as_ref().expect("a history of its own");
    apart.execute("analyze").await;
    setup.query = setup.query.replace("r.uid,", "r.uid::bigint as uid,");
    let ended = setup.recents(&["estimate"]).expect(1);
    let said = ended.one_line();
    let words = "invalid input syntax for type bigint: ";
    assert_eq!(said.matches(words).count(), 1, "{said}");
    for word in [" at line ", "error returned from database"] {
        assert!(!said.contains(word), "{said}");
    }
}
