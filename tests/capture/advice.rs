//! The index that `capture status` advises: only where it is missing, and as it is to be made there.

use serde_json::Value;

use crate::support::history::layout::{ALL, POSTGRES};
use crate::support::history::{History, Layout, Setup};
use crate::support::{Backend, TestDb};

/// Enough that reading all of them is slower than an index.
const RUNS: u32 = 12_000;

const PLAIN: &str = "create index concurrently on public.saved_run (workspace_id);";

/// A captured history in many workspaces, with its statistics; `change` comes before these.
async fn large(layout: Layout, change: &str) -> Setup {
    let store = TestDb::migrated(Backend::Postgres).await;
    let mut setup = Setup::of(store, History::of(layout, Vec::new())).await;
    let time = "r.updated_at::timestamptz as";
    setup.query = setup.query.replace("r.updated_at as", time);
    let runs = format!(
        "insert into saved_run_version select n, 'p' || n from generate_series(1, 3) n;
         insert into saved_run select n, 'w' || n % 500, 'u', 1 + n % 3, now()
         from generate_series(1, {RUNS}) n;
         {change}"
    );
    setup.source().execute(&runs).await;
    setup.source().execute("analyze").await;
    setup.recents(&["capture", "install"]).expect(0);
    setup
}

fn advice(setup: &Setup) -> Value {
    setup.json(&["capture", "status"], 0)["index"].clone()
}

/// Makes what is advised, a statement at a time: none of them may be within a transaction.
async fn follow(setup: &Setup, advice: &Value) {
    let mut conn = setup.source().connect().await;
    for statement in advice.as_str().expect("there is advice").lines() {
        conn.execute(statement).await;
    }
}

#[tokio::test]
async fn an_index_is_advised_where_it_is_missing_and_no_longer_when_it_is_there() {
    let setup = large(POSTGRES, "").await;
    assert_eq!(advice(&setup), PLAIN);
    let told = setup.recents(&["capture", "status"]).expect(0);
    assert!(told.out.contains(PLAIN), "{told:?}");
    follow(&setup, &advice(&setup)).await;
    assert_eq!(advice(&setup), Value::Null);
}

#[tokio::test]
async fn the_index_of_the_key_is_advised_too_where_it_is_missing() {
    let setup = large(
        POSTGRES,
        "alter table saved_run drop constraint saved_run_pkey;",
    )
    .await;
    let both = format!("create unique index concurrently on public.saved_run (id);\n{PLAIN}");
    assert_eq!(advice(&setup), both);
    follow(&setup, &advice(&setup)).await;
    assert_eq!(advice(&setup), Value::Null);
}

#[tokio::test]
async fn an_index_that_is_there_is_not_advised_again_where_most_runs_are_one_workspaces() {
    let index =
        "update saved_run set workspace_id = 'w'; create index on saved_run (workspace_id);";
    assert_eq!(advice(&large(POSTGRES, index).await), Value::Null);
}

/// An index on it cannot be made there, and of a view not at all.
#[tokio::test]
async fn a_column_that_the_history_does_not_have_is_not_advised() {
    let view =
        "create table place_all as select distinct workspace_id as code, workspace_id as place_id
                from saved_run;
                create view place as select * from place_all;";
    let mut setup = large(POSTGRES, view).await;
    let workspace = setup.query.replace("r.workspace_id as", "place_id as");
    setup.query = format!("{workspace} join place on code = r.workspace_id");
    let advised = "create index concurrently on public.saved_run \
                   (<the columns by which `workspace` is joined>);";
    assert_eq!(advice(&setup), advised);
}

#[tokio::test]
async fn the_first_and_the_last_run_need_be_no_uses() {
    let null = format!(
        "update saved_run set workspace_id = null, uid = null, parent_version_id = null
         where id < 50 or id > {RUNS} - 50"
    );
    assert_eq!(advice(&large(POSTGRES, &null).await), PLAIN);
}

#[tokio::test]
async fn nor_need_every_run_be_mappable() {
    let layout = Layout {
        time_type: "text",
        ..POSTGRES
    };
    let never = "update saved_run set updated_at = 'never' where id = 1";
    assert_eq!(advice(&large(layout, never).await), PLAIN);
}

#[tokio::test]
async fn of_a_partitioned_history_the_partitions_take_it_first() {
    let layout = ALL.into_iter().find(|layout| layout.name == "partitions");
    let setup = large(layout.expect("it is there"), "").await;
    let told = advice(&setup);
    let advised = "create index concurrently on public.saved_run_0 (workspace_id);\n\
                   create index concurrently on public.saved_run_1 (workspace_id);\n\
                   create index concurrently on public.saved_run_2 (workspace_id);\n\
                   create index on public.saved_run (workspace_id);";
    assert_eq!(told, advised);
    follow(&setup, &told).await;
    assert_eq!(advice(&setup), Value::Null);
    // The parent's took those of the partitions, and made none of its own.
    let indexes = "select indexname::text from pg_indexes where tablename like 'saved\\_run%'
                   and indexdef like '%workspace_id%'";
    let mut conn = setup.source().connect().await;
    assert_eq!(conn.texts(indexes).await.len(), 4);
}

/// A service's look at one run, too, is told from a plan that names partitions.
#[tokio::test]
async fn a_partitioned_history_without_an_index_on_its_key_is_told() {
    let layout = ALL.into_iter().find(|layout| layout.name == "partitions");
    let setup = large(
        layout.expect("it is there"),
        "alter table saved_run drop constraint saved_run_pkey;",
    )
    .await;
    let ended = setup.recents(&["doctor", "--json"]).expect(1);
    let told: Value = serde_json::from_str(&ended.out).expect("JSON");
    let findings = told.as_array().expect("findings");
    let of_indexes = |finding: &&Value| finding["check"] == "history's indexes";
    let finding = findings.iter().find(of_indexes).expect("it was looked at");
    assert_eq!(finding["verdict"], "failure", "{told:#}");
    let mend = finding["mend"].as_str().unwrap_or_default();
    assert!(
        mend.ends_with("on public.saved_run_2 (id); create index on public.saved_run (id);"),
        "{mend}"
    );
}
