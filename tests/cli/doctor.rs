//! `recents doctor`: each fault is a line with what mends it, and what it says mends it.

use serde_json::Value;

use crate::support::history::layout::POSTGRES;
use crate::support::history::{History, Run, Setup};
use crate::support::{Backend, Cluster, TestDb, both, recents, until};

both!(
    a_table_as_it_should_be_is_all_ok,
    a_table_that_was_never_filled_or_checked_is_told,
    a_time_far_ahead_of_the_clock_is_named_with_its_run,
);

/// The verdict, what was seen and what mends it, of each finding of a check.
pub(super) fn findings(told: &Value, check: &str) -> Vec<(String, String, String)> {
    let all = told.as_array().expect("findings");
    let of = all.iter().filter(|finding| finding["check"] == check);
    let text = |finding: &Value, name: &str| finding[name].as_str().unwrap_or("").to_owned();
    of.map(|f| (text(f, "verdict"), text(f, "detail"), text(f, "mend")))
        .collect()
}

/// The one finding of a check.
#[track_caller]
pub(crate) fn finding(told: &Value, check: &str) -> (String, String, String) {
    let mut found = findings(told, check);
    assert_eq!(found.len(), 1, "{check}: {told:#}");
    found.remove(0)
}

/// Runs it with this exit code.
#[track_caller]
pub(crate) fn doctor(setup: &Setup, more: &[&str], code: i32) -> Value {
    let ended = setup.recents(&[&["doctor", "--json"], more].concat());
    let ended = ended.expect(code);
    serde_json::from_str(&ended.out).expect("JSON")
}

pub(super) fn not_ok(told: &Value) -> Vec<&Value> {
    let all = told.as_array().expect("findings");
    all.iter()
        .filter(|finding| finding["verdict"] != "ok")
        .collect()
}

pub(super) async fn followed(db: TestDb) -> Setup {
    let setup = Setup::plain(db, 41, 300).await;
    if setup.store.backend == Backend::Postgres {
        setup.recents(&["capture", "install"]).expect(0);
    }
    setup.recents(&["backfill"]).expect(0);
    setup.recents(&["verify"]).expect(0);
    setup
}

async fn a_table_as_it_should_be_is_all_ok(db: TestDb) {
    let setup = followed(db).await;
    let told = doctor(&setup, &[], 0);
    assert!(not_ok(&told).is_empty(), "{told:#}");
    for check in [
        "connection",
        "schema",
        "settings",
        "backfill",
        "audit",
        "jobs",
        "times",
        "history",
        "mapping",
    ] {
        assert_eq!(finding(&told, check).0, "ok", "{check}");
    }
    let lines = setup.recents(&["doctor"]).expect(0).out;
    assert!(lines.lines().all(|line| line.starts_with("ok ")), "{lines}");
}

/// One wrong year is on top of its lists for ever.
async fn a_time_far_ahead_of_the_clock_is_named_with_its_run(db: TestDb) {
    let setup = followed(db).await;
    let ahead = "update saved_run set updated_at = '2500-01-01 00:00:00Z' where id =
                     (select min(r.id) from saved_run r join saved_run_version v on v.id = r.parent_version_id
                      where published_run_id is not null and workspace_id is not null)";
    setup.source().execute(ahead).await;
    setup.recents(&["backfill", "--restart"]).expect(0);
    let told = doctor(&setup, &[], 0);
    let (verdict, detail, mend) = finding(&told, "times");
    assert_eq!(verdict, "warning", "{told:#}");
    assert!(detail.contains("2500-01-01T00:00:00.000000Z"), "{detail}");
    assert!(mend.starts_with("recents verify --repair; "), "{mend}");
    assert!(mend.contains("mend the time of run "), "{mend}");
}

async fn a_table_that_was_never_filled_or_checked_is_told(db: TestDb) {
    let setup = Setup::plain(db, 42, 50).await;
    let told = doctor(&setup, &[], 0);
    let (verdict, _, mend) = finding(&told, "backfill");
    assert_eq!((&*verdict, &*mend), ("warning", "recents backfill"));
    assert_eq!(finding(&told, "audit").0, "warning");
    if setup.store.backend == Backend::Postgres {
        let (verdict, _, mend) = finding(&told, "capture");
        assert_eq!((&*verdict, &*mend), ("warning", "recents capture install"));
    }
    let told = doctor(&setup, &["--audit", "false"], 0);
    assert!(
        finding(&told, "audit").1.starts_with("turned off"),
        "{told:#}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_does_not_answer_or_has_no_tables_is_a_failure() {
    let nobody = "postgres://postgres@127.0.0.1:1/none";
    let ended = recents(&["doctor", "--json", "--database-url", nobody]).expect(1);
    let told: Value = serde_json::from_str(&ended.out).expect("JSON");
    assert_eq!(finding(&told, "connection").0, "failure");
    assert_eq!(ended.one_line(), "something does not work; see above");
    for backend in [Backend::Postgres, Backend::Sqlite] {
        let db = TestDb::empty(backend).await;
        if backend == Backend::Sqlite {
            // A file that is there, and empty.
            db.execute("create table other (x)").await;
        }
        let ended = recents(&["doctor", "--json", "--database-url", &db.url]).expect(1);
        let told: Value = serde_json::from_str(&ended.out).expect("JSON");
        let (verdict, _, mend) = finding(&told, "schema");
        assert_eq!((&*verdict, &*mend), ("failure", "recents migrate"));
        recents(&["migrate", "--database-url", &db.url]).expect(0);
        recents(&["doctor", "--database-url", &db.url]).expect(0);
    }
}

/// What it says to run is run, and then it is content.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_doctor_says_mends_what_it_found() {
    let setup = followed(TestDb::migrated(Backend::Postgres).await).await;
    for (check, verdict, breaks) in [
        (
            "plans",
            "failure",
            "drop index recents.recent_workflow_newest",
        ),
        (
            "vacuum",
            "warning",
            "alter table recents.recent_workflow reset (vacuum_truncate, autovacuum_vacuum_threshold)",
        ),
    ] {
        setup.store.execute(breaks).await;
        let code = if verdict == "failure" { 1 } else { 0 };
        let told = doctor(&setup, &[], code);
        let found = findings(&told, check);
        let found = found.iter().find(|found| found.0 == verdict);
        let (_, _, mend) = found.unwrap_or_else(|| panic!("{check}: {told:#}"));
        setup.store.execute(mend).await;
        let told = doctor(&setup, &[], 0);
        assert!(not_ok(&told).is_empty(), "{check}: {told:#}");
    }
    // A partition, or here the whole table, whose triggers are gone.
    setup
        .source()
        .execute("alter table saved_run disable trigger user")
        .await;
    let told = doctor(&setup, &[], 1);
    let (verdict, detail, mend) = finding(&told, "capture");
    assert_eq!(
        (&*verdict, &*mend),
        ("failure", "recents capture install"),
        "{detail}"
    );
    setup.recents(&["capture", "install"]).expect(0);
    // What changed meanwhile, nobody noted.
    let told = doctor(&setup, &[], 0);
    let (verdict, detail, mend) = finding(&told, "audit");
    assert_eq!(verdict, "warning", "{detail}");
    assert!(mend.starts_with("recents verify, or "), "{mend}");
    setup.recents(&["verify"]).expect(0);
    assert!(not_ok(&doctor(&setup, &[], 0)).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_lacks_a_right_hears_which_grant_it_needs() {
    let mut db = TestDb::migrated(Backend::Postgres).await;
    let url = db.role(&["grant usage on schema recents to %"]).await;
    db.execute("grant select on recents.refinery_schema_history to public")
        .await;
    let ended = recents(&["doctor", "--json", "--database-url", &url]).expect(1);
    let told: Value = serde_json::from_str(&ended.out).expect("JSON");
    let (verdict, detail, mend) = finding(&told, "privileges");
    assert_eq!(verdict, "failure");
    assert!(detail.contains("recent_workflow: insert"), "{detail}");
    db.execute(&mend).await;
    recents(&["doctor", "--database-url", &url]).expect(0);
    // Of everybody, but where somebody was careful.
    db.execute("revoke execute on function pg_control_system() from public")
        .await;
    let ended = recents(&["doctor", "--json", "--database-url", &url]).expect(1);
    let told: Value = serde_json::from_str(&ended.out).expect("JSON");
    let (verdict, _, mend) = finding(&told, "privileges");
    assert_eq!(verdict, "failure");
    db.execute(&mend).await;
    recents(&["doctor", "--database-url", &url]).expect(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_transaction_and_a_mapping_without_uses_are_warnings() {
    let useless = vec![Run::new(1, "", 1, 0), Run::new(2, "", 2, 0)];
    let db = TestDb::migrated(Backend::Postgres).await;
    let setup = Setup::of(db, History::of(POSTGRES, useless)).await;
    let mut open = setup.store.connect().await;
    open.execute("begin isolation level repeatable read; select 1 from saved_run")
        .await;
    let told = doctor(&setup, &[], 0);
    let (verdict, detail, _) = finding(&told, "mapping");
    assert_eq!(verdict, "warning", "{detail}");
    let mend = until("it is old", async || {
        let (verdict, _, mend) = finding(&doctor(&setup, &[], 0), "transactions");
        (verdict == "warning").then_some(mend)
    })
    .await;
    setup.store.execute(&mend).await;
    until("it is gone", async || {
        let (verdict, ..) = finding(&doctor(&setup, &[], 0), "transactions");
        (verdict == "ok").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_is_not_declared_is_found() {
    let cluster = Cluster::start();
    recents(&["migrate", "--database-url", &cluster.url]).expect(0);
    let pooler = cluster.pooler();
    let ended = recents(&["doctor", "--json", "--database-url", &pooler.url]).expect(1);
    let told: Value = serde_json::from_str(&ended.out).expect("JSON");
    let (verdict, _, mend) = finding(&told, "connection");
    assert_eq!(verdict, "failure");
    assert!(mend.contains("transaction_pooler = true"), "{mend}");
    let declared = [
        "doctor",
        "--json",
        "--database-url",
        &pooler.url,
        "--transaction-pooler",
        "true",
    ];
    let told = recents(&declared).expect(0);
    let told: Value = serde_json::from_str(&told.out).expect("JSON");
    let (verdict, _, mend) = finding(&told, "notifications");
    assert_eq!(verdict, "warning");
    assert!(mend.contains("listen_url"), "{mend}");
    let heard = [&declared[..], &["--listen-url", &cluster.url]].concat();
    let told = recents(&heard).expect(0);
    let told: Value = serde_json::from_str(&told.out).expect("JSON");
    assert!(not_ok(&told).is_empty(), "{told:#}");
}
