//! `recents doctor` in broken worlds: each check answers, and says the statement that mends it.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::doctor::{finding, findings, followed, not_ok};
use crate::cache::standby::pause;
use crate::support::command::{Ended, run};
use crate::support::history::layout::{Layout, POSTGRES};
use crate::support::history::{History, Setup};
use crate::support::{Backend, Beside, Cluster, TestDb, both, recents, until};

both!(
    lists_that_come_from_a_table_that_was_never_filled_are_a_failure,
    a_setting_that_this_version_does_not_know_is_told,
    a_failed_resync_is_mended_by_one_of_its_mode,
    a_pause_query_that_does_not_run_is_told_in_the_databases_words,
    without_the_table_a_history_in_another_database_is_looked_at,
);

/// As the doctor is to answer while something hangs: some checks give up, each after some seconds.
const WITHIN: Duration = Duration::from_secs(25);

/// Runs it on the history and the table of a set-up.
#[track_caller]
fn doctor(setup: &Setup, more: &[&str], code: i32) -> Value {
    let mut command = setup.command(&[&["doctor", "--json"], more].concat());
    let ended = run(&mut command).expect(code);
    serde_json::from_str(&ended.out).expect("JSON")
}

/// Runs it on a table alone.
#[track_caller]
fn doctor_of(url: &str, code: i32) -> Value {
    let ended = recents(&["doctor", "--json", "--database-url", url]).expect(code);
    serde_json::from_str(&ended.out).expect("JSON")
}

/// Nothing that was told has these words.
#[track_caller]
fn never_says(told: &Value, words: &[&str]) {
    let text = told.to_string();
    for word in words {
        assert!(!text.contains(word), "`{word}` in {told:#}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_history_is_told_within_seconds_and_the_rest_is_looked_at() {
    let setup = followed(TestDb::migrated(Backend::Postgres).await).await;
    let mut holds = setup.source().connect().await;
    holds
        .execute("begin; lock table saved_run in access exclusive mode")
        .await;
    let started = Instant::now();
    let told = doctor(&setup, &[], 1);
    assert!(started.elapsed() < WITHIN, "{:?}", started.elapsed());
    let (verdict, detail, mend) = finding(&told, "history");
    assert_eq!(verdict, "failure", "{told:#}");
    assert!(detail.contains("is locked"), "{detail}");
    assert!(mend.contains("pg_locks"), "{mend}");
    let query = mend.split_once(": ").map_or("", |(_, query)| query);
    let holders = format!(
        "select count(*)::text from ({}) as holders",
        query.trim_end_matches(';')
    );
    let holders = setup.source().connect().await.texts(&holders).await;
    assert_eq!(holders, ["1"], "{mend}");
    for check in ["settings", "backfill", "notifications", "capture"] {
        assert_eq!(finding(&told, check).0, "ok", "{told:#}");
    }
    let mend = until("the lock is old", async || {
        let (verdict, detail, mend) = finding(&doctor(&setup, &[], 1), "transactions");
        (verdict == "warning" && detail.contains("saved_run")).then_some(mend)
    })
    .await;
    setup.store.execute(&mend).await;
    until("it is gone", async || {
        let told = doctor(&setup, &[], 0);
        not_ok(&told).is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_broken_off_by_a_deadlock_tries_again() {
    let setup = followed(TestDb::migrated(Backend::Postgres).await).await;
    let mut application = setup.source().connect().await;
    // Before it would give up waiting for the lock.
    let looks_early = "do $$ begin
        execute format('alter database %I set deadlock_timeout = 300', current_database());
    end $$";
    application.execute(looks_early).await;
    let lock = "lock table saved_run_version in access exclusive mode";
    application.execute(&format!("begin; {lock}")).await;
    let mut verify = setup.command(&["verify"]);
    let verify = tokio::task::spawn_blocking(move || verify.output().expect("recents runs"));
    let waits = "select count(*)::text from pg_locks
                 where relation = 'saved_run_version'::regclass and not granted";
    until("it waits for the version", async || {
        (application.texts(waits).await != ["0"]).then_some(())
    })
    .await;
    // It is the one that finds out.
    let lock = "lock table saved_run in access exclusive mode";
    application.execute(lock).await;
    application.execute("commit").await;
    let ended: Ended = verify.await.expect("it ran").into();
    ended.expect(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_table_is_told_within_seconds_and_the_rest_is_looked_at() {
    let setup = followed(TestDb::migrated(Backend::Postgres).await).await;
    let mut holds = setup.store.connect().await;
    holds
        .execute("begin; lock table recents.recent_workflow in access exclusive mode")
        .await;
    let started = Instant::now();
    let told = doctor(&setup, &[], 1);
    assert!(started.elapsed() < WITHIN, "{:?}", started.elapsed());
    let (verdict, detail, _) = finding(&told, "plans");
    assert_eq!(verdict, "failure", "{told:#}");
    assert!(detail.contains("did not answer"), "{detail}");
    for check in ["notifications", "history", "mapping", "capture"] {
        assert_eq!(finding(&told, check).0, "ok", "{told:#}");
    }
}

const EVERYTHING: [&str; 2] = [
    "grant usage on schema recents to %",
    "grant all on all tables in schema recents to %",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_only_reads_is_told_as_that() {
    let mut db = TestDb::migrated(Backend::Postgres).await;
    let read_only = "alter role % set default_transaction_read_only = on";
    let url = db.role(&[&EVERYTHING[..], &[read_only]].concat()).await;
    let told = doctor_of(&url, 1);
    let (verdict, detail, mend) = finding(&told, "writing");
    assert_eq!(verdict, "failure", "{told:#}");
    assert!(detail.contains("default_transaction_read_only"), "{detail}");
    never_says(&told, &["out of reach", "set listen_url"]);
    let dismiss = recents(&["dismiss", "w", "p", "--database-url", &url]).expect(1);
    assert!(
        dismiss.err.contains("default_transaction_read_only"),
        "{dismiss:?}"
    );
    db.execute(&mend).await;
    doctor_of(&url, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hot_standby_is_told_as_that() {
    let cluster = Cluster::start();
    recents(&["migrate", "--database-url", &cluster.url]).expect(0);
    let standby = cluster.standby();
    let told = until("the standby has the tables", async || {
        let told = doctor_of(&standby.url, 1);
        (finding(&told, "schema").0 == "ok").then_some(told)
    })
    .await;
    let (verdict, detail, mend) = finding(&told, "writing");
    assert_eq!(verdict, "failure", "{told:#}");
    assert!(detail.contains("hot standby"), "{detail}");
    assert!(mend.contains("read_database_url"), "{mend}");
    never_says(&told, &["out of reach", "set listen_url"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_lags_is_told() {
    let cluster = Cluster::start();
    recents(&["migrate", "--database-url", &cluster.url]).expect(0);
    let standby = cluster.standby();
    let urls = [
        "--database-url",
        &cluster.url,
        "--read-database-url",
        &standby.url,
    ];
    let replica = || {
        let told = recents(&[&["doctor", "--json"][..], &urls].concat()).expect(0);
        finding(&serde_json::from_str(&told.out).expect("JSON"), "replica")
    };
    until("it is well", async || (replica().0 == "ok").then_some(())).await;
    pause(&standby).await;
    let mut beside = Beside::connect(Backend::Postgres, &cluster.url).await;
    beside.execute("create table something (n int)").await;
    let (verdict, detail, _) = replica();
    assert_eq!(verdict, "warning", "{detail}");
    assert!(detail.contains("behind"), "{detail}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_may_not_make_the_schema_hears_which_grant_it_needs() {
    let mut db = TestDb::empty(Backend::Postgres).await;
    let url = db.role(&[]).await;
    let refused = recents(&["migrate", "--database-url", &url]).expect(1);
    assert!(refused.err.contains("`recents doctor`"), "{refused:?}");
    let told = doctor_of(&url, 1);
    let (verdict, detail, mend) = finding(&told, "privileges");
    assert_eq!(verdict, "failure", "{told:#}");
    assert!(detail.contains("recents migrate"), "{detail}");
    assert!(mend.starts_with("grant create on database"), "{mend}");
    db.execute(&mend).await;
    assert_eq!(finding(&doctor_of(&url, 1), "privileges").0, "ok");
    recents(&["migrate", "--database-url", &url]).expect(0);
    doctor_of(&url, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_may_not_read_the_history_hears_which_grants_it_needs() {
    let layout = Layout {
        before: "create schema app;",
        table: "app.saved_run",
        ..POSTGRES
    };
    let store = TestDb::migrated(Backend::Postgres).await;
    let mut setup = Setup::apart(store, History::random(layout, 43, 50)).await;
    setup.recents(&["backfill"]).expect(0);
    setup.recents(&["verify"]).expect(0);
    let apart = setup.apart.as_mut().expect("a history of its own");
    let owner = apart.url.clone();
    apart.url = apart.role(&[]).await;
    for command in ["backfill", "verify", "estimate"] {
        let refused = setup.recents(&[command]).expect(2);
        assert!(refused.err.contains("`recents doctor`"), "{refused:?}");
    }
    let told = doctor(&setup, &[], 1);
    let (verdict, detail, mend) = finding(&told, "history");
    assert_eq!(verdict, "failure", "{told:#}");
    assert!(detail.contains("may not read"), "{detail}");
    for grant in [
        "grant usage on schema app to",
        "grant select on app.saved_run to",
        "grant select on public.saved_run_version to",
    ] {
        assert!(mend.contains(grant), "no `{grant}` in {mend}");
    }
    let apart = setup.apart.as_mut().expect("a history of its own");
    let role = std::mem::replace(&mut apart.url, owner);
    apart.execute(&mend).await;
    apart.url = role;
    let told = doctor(&setup, &[], 0);
    assert_eq!(finding(&told, "history").0, "ok", "{told:#}");
}

async fn a_pause_query_that_does_not_run_is_told_in_the_databases_words(db: TestDb) {
    let setup = followed(db).await;
    let told = doctor(&setup, &["--resync-pause-while", "select nope"], 1);
    let (verdict, detail, mend) = finding(&told, "resync.pause_while");
    assert_eq!(verdict, "failure", "{told:#}");
    assert!(detail.contains("nope"), "{detail}");
    assert_eq!(mend, "mend resync.pause_while");
    let told = doctor(&setup, &["--resync-pause-while", "select 1 > 2"], 0);
    assert!(not_ok(&told).is_empty(), "{told:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_whose_directory_is_not_there_is_a_failure() {
    let told = doctor_of("sqlite:///nowhere/at/all/recents.db", 1);
    let (verdict, detail, mend) = finding(&told, "connection");
    assert_eq!(verdict, "failure", "{told:#}");
    assert!(detail.contains("/nowhere/at/all"), "{detail}");
    assert!(mend.starts_with("mkdir -p /nowhere/at/all"), "{mend}");
}

async fn without_the_table_a_history_in_another_database_is_looked_at(db: TestDb) {
    let backend = db.backend;
    let history = History::random(Layout::of(backend), 44, 50);
    let setup = Setup::apart(db, history).await;
    let nobody = "postgres://postgres@127.0.0.1:1/none";
    let told = doctor(&setup, &["--database-url", nobody], 1);
    let (verdict, detail, _) = finding(&told, "connection");
    assert_eq!(verdict, "failure", "{told:#}");
    assert!(detail.ends_with("nothing answers there"), "{detail}");
    never_says(&told, &["pool timed out"]);
    assert_eq!(finding(&told, "history").0, "ok", "{told:#}");
    assert_eq!(finding(&told, "mapping").0, "ok", "{told:#}");
    // Where it is in the same database, that is told once.
    let told = doctor(
        &setup,
        &["--database-url", nobody, "--history-url", nobody],
        1,
    );
    assert!(findings(&told, "history").is_empty(), "{told:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_tables_are_told_as_dropped() {
    let setup = followed(TestDb::migrated(Backend::Postgres).await).await;
    setup
        .store
        .execute("drop table recents.outbox cascade")
        .await;
    let (verdict, detail, mend) = finding(&doctor(&setup, &[], 1), "capture");
    assert_eq!((&*verdict, &*mend), ("failure", "recents capture install"));
    assert!(detail.contains("the application cannot write"), "{detail}");
    setup.recents(&["capture", "install"]).expect(0);
    assert_eq!(finding(&doctor(&setup, &[], 0), "capture").0, "ok");
    setup.store.execute("drop table recents.note cascade").await;
    let told = doctor(&setup, &[], 1);
    let (verdict, detail, _) = finding(&told, "capture");
    assert_eq!(verdict, "failure", "{told:#}");
    assert!(detail.contains("tables are gone"), "{detail}");
    setup.store.execute("drop schema recents cascade").await;
    let told = doctor(&setup, &[], 1);
    let (verdict, _, mend) = finding(&told, "schema");
    assert_eq!((&*verdict, &*mend), ("failure", "recents migrate"));
    let (verdict, detail, mend) = finding(&told, "capture");
    assert_eq!((&*verdict, &*mend), ("warning", "recents capture install"));
    assert!(detail.starts_with("not installed"), "{detail}");
    // Where that would be refused, so is the advice.
    let of = "create table whole () inherits (saved_run); alter table saved_run rename to part;
              alter table whole rename to saved_run";
    setup.store.execute(of).await;
    let (_, _, mend) = finding(&doctor(&setup, &[], 1), "capture");
    assert!(mend.contains("part"), "{mend}");
    never_says(&told, &["does not exist", "could not be looked at"]);
}

async fn lists_that_come_from_a_table_that_was_never_filled_are_a_failure(db: TestDb) {
    let setup = Setup::plain(db, 45, 50).await;
    let from_the_table = ["settings", "set", "read_path", "materialized"];
    setup.recents(&from_the_table).expect(0);
    let told = doctor(&setup, &[], 1);
    let (verdict, detail, mend) = finding(&told, "backfill");
    assert_eq!(verdict, "failure", "{told:#}");
    assert!(detail.contains("lists"), "{detail}");
    assert_eq!(
        mend,
        "recents backfill, or recents settings set read_path auto"
    );
    setup.recents(&["backfill"]).expect(0);
    assert_eq!(finding(&doctor(&setup, &[], 0), "backfill").0, "ok");
}

async fn a_setting_that_this_version_does_not_know_is_told(db: TestDb) {
    let setup = followed(db).await;
    setup
        .recents(&["settings", "set", "read_path", "auto"])
        .expect(0);
    setup
        .store
        .execute("update {recents}setting set value = 'telepathy' where name = 'read_path'")
        .await;
    let told = doctor(&setup, &[], 0);
    let found = findings(&told, "settings");
    let warning = found.iter().find(|(verdict, ..)| verdict == "warning");
    let (_, detail, mend) = warning.unwrap_or_else(|| panic!("{told:#}"));
    assert!(detail.contains("read_path is `telepathy`"), "{detail}");
    assert_eq!(mend, "recents settings set read_path auto");
}

async fn a_failed_resync_is_mended_by_one_of_its_mode(db: TestDb) {
    let setup = followed(db).await;
    for (args, mend) in [
        (
            &["--all", "--mode", "rebuild", "--yes"][..],
            "recents resync --all --mode rebuild",
        ),
        (
            &["--workspace", "w1", "--mode", "rebuild"],
            "recents resync --workspace w1 --mode rebuild",
        ),
        (
            &["--workspace", "w1"],
            "recents resync --workspace w1 --mode merge",
        ),
    ] {
        setup.recents(&[&["resync"], args].concat()).expect(0);
        let id = setup.job("id").await;
        let failed =
            format!("update {{recents}}job set state = 'failed', error = 'x' where id = '{id}'");
        setup.store.execute(&failed).await;
        let (verdict, _, said) = finding(&doctor(&setup, &[], 0), "jobs");
        assert_eq!((&*verdict, &*said), ("warning", mend));
    }
}
