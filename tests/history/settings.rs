//! The mapping query means the same whatever a PostgreSQL database and its roles have set, and reading
//! it needs no more than the right to read.

use crate::support::history::layout::{ALL, Layout};
use crate::support::history::{History, Setup};
use crate::support::{Backend, TestDb};

const SETTINGS: [&str; 8] = [
    "timezone = 'Asia/Kathmandu'",
    "datestyle = 'SQL, DMY'",
    "intervalstyle = 'iso_8601'",
    "search_path = decoy, public",
    "standard_conforming_strings = off",
    "default_transaction_isolation = 'serializable'",
    "extra_float_digits = -15",
    "client_encoding = 'LATIN1'",
];

async fn setup(layout: Layout) -> Setup {
    let store = TestDb::migrated(Backend::Postgres).await;
    Setup::apart(store, History::random(layout, 110, 400)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_of_the_database_change_nothing() {
    let layouts = ALL
        .into_iter()
        .filter(|layout| layout.backend == Backend::Postgres);
    for layout in layouts.filter(|layout| layout.table == "saved_run" && layout.parts.is_empty()) {
        println!("{}", layout.name);
        let setup = setup(layout).await;
        let source = setup.source();
        // Tables of the same names, which the database's search path would find first.
        source
            .execute(
                "create schema decoy;
                 create table decoy.saved_run as select * from public.saved_run limit 3;
                 create table decoy.saved_run_version as select * from public.saved_run_version limit 1",
            )
            .await;
        let database = source
            .url
            .rsplit_once('/')
            .expect("a url with a database")
            .1;
        for setting in SETTINGS {
            source
                .execute(&format!("alter database {database} set {setting}"))
                .await;
        }
        setup.backfill(&["--window-runs", "50"]).await;
        setup
            .store
            .execute("delete from {recents}recent_workflow")
            .await;
        setup.backfill(&["--one-pass"]).await;
        let verified = setup.json(&["verify"], 0);
        assert_eq!(verified["runs"], 400);
        setup.json(&["verify", "--workspace", "w1"], 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_may_only_read_is_enough() {
    let mut setup = setup(Layout::of(Backend::Postgres)).await;
    let history = setup.apart.as_mut().expect("a history of its own");
    let grants = ["grant select on saved_run, saved_run_version to %"];
    history.url = history.role(&grants).await;
    setup.backfill(&["--window-runs", "50"]).await;
    setup.backfill(&["--one-pass"]).await;
    setup.recents(&["verify"]).expect(0);
}

/// A function that a mapping query may call, because the catalogue calls it stable, and that writes
/// what even a stable one can.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_written_to_a_history() {
    let mut setup = setup(Layout::of(Backend::Postgres)).await;
    setup
        .source()
        .execute(
            "create sequence numbers;
             create function numbered(id bigint) returns bigint language plpgsql stable as $$
             begin
                 perform nextval('numbers');
                 return id;
             end $$",
        )
        .await;
    setup.query = setup.query.replace("r.id as", "numbered(r.id) as");
    for args in [&["backfill"][..], &["backfill", "--one-pass"], &["verify"]] {
        let failed = setup.recents(args).expect(1);
        assert!(
            failed.err.contains("read-only transaction"),
            "{args:?}: {failed:?}"
        );
    }
    let used = "select is_called::text from numbers";
    assert_eq!(setup.source().connect().await.texts(used).await, ["false"]);
}
