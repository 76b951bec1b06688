//! A schema that is not this program's is left alone.

use std::time::Instant;

use crate::cli::doctor::finding;
use crate::support::client::list_path;
use crate::support::database::migrations;
use crate::support::uses::body_of;
use crate::support::{Backend, Server, TestDb, Use, both, recents, until};

both!(
    a_migration_that_reads_differently_is_refused,
    a_schema_from_the_future_is_refused,
    a_migration_that_fails_changes_nothing,
    a_table_that_is_gone_is_told_by_migrate_with_the_way_back,
);

/// Everything in the database that a migration could change.
async fn everything(db: &TestDb) -> Vec<String> {
    db.connect()
        .await
        .texts(match db.backend {
            Backend::Postgres => {
                "select format('%s.%s %s', n.nspname, c.relname, a.attname) from pg_class c
                 join pg_namespace n on n.oid = c.relnamespace and n.nspname !~ '^pg_|^information_schema$'
                 left join pg_attribute a on a.attrelid = c.oid and a.attnum > 0
                 union all select format('%s', h) from recents.refinery_schema_history h order by 1"
            }
            Backend::Sqlite => {
                "select sql from sqlite_master
                 union all select version || name || checksum from refinery_schema_history order by 1"
            }
        })
        .await
}

/// Neither `migrate` nor `serve` touches the database; both say why in one line and exit with 1.
async fn assert_refused(db: &TestDb, reason: &str) {
    let before = everything(db).await;
    let migrate = recents(&["migrate", "--database-url", &db.url]).expect(1);
    assert_eq!(migrate.one_line(), reason);
    assert_eq!(migrate.out, "");
    for migrate_on_start in ["true", "false"] {
        let mut server = Server::spawn(&db.url, &["--migrate-on-start", migrate_on_start]).await;
        assert_eq!(server.ended().await.code(), Some(1));
        until("it said why", async || {
            server
                .log
                .lines()
                .contains(&format!("recents: {reason}"))
                .then_some(())
        })
        .await;
    }
    recents(&["list", "w", "--database-url", &db.url]).expect(1);
    assert_eq!(everything(db).await, before, "nothing was changed");
}

async fn a_migration_that_reads_differently_is_refused(db: TestDb) {
    db.execute("update {recents}refinery_schema_history set checksum = '1' where version = 1")
        .await;
    let reason = "migration V1__recent_workflow was applied to this database with another text than this \
                  program has; run the version of recents that applied it, or restore the database";
    assert_refused(&db, reason).await;
}

async fn a_schema_from_the_future_is_refused(db: TestDb) {
    db.execute(
        "insert into {recents}refinery_schema_history
         select 999, 'from_the_future', applied_on, checksum from {recents}refinery_schema_history where version = 1",
    )
    .await;
    let known = migrations().pop().expect("a migration");
    let reason = format!(
        "the database has schema version 999, this program knows {known} at the most; run a newer recents"
    );
    assert_refused(&db, &reason).await;
}

/// Takes the migrated one only for its kind.
async fn a_migration_that_fails_changes_nothing(db: TestDb) {
    let db = TestDb::empty(db.backend).await;
    // In the way of the second migration, not of the first.
    db.execute(match db.backend {
        Backend::Postgres => "create schema recents; create table recents.job (x int)",
        Backend::Sqlite => "create table job (x int)",
    })
    .await;
    let migrate = recents(&["migrate", "--database-url", &db.url]).expect(1);
    let line = migrate.one_line();
    assert!(
        line.starts_with("the migration failed and was rolled back: "),
        "{line}"
    );
    let tables = match db.backend {
        Backend::Postgres => {
            "select relname::text from pg_class where relnamespace = 'recents'::regnamespace"
        }
        Backend::Sqlite => "select name from sqlite_master",
    };
    assert_eq!(
        db.connect().await.texts(tables).await,
        ["job"],
        "all migrations or none"
    );
    db.execute("drop table {recents}job").await;
    recents(&["migrate", "--database-url", &db.url]).expect(0);
}

/// "recents" in ASCII, what the service locks while it migrates.
const ADVISORY_LOCK: i64 = 0x72_65_63_65_6e_74_73;

#[tokio::test]
async fn only_a_migration_waits_for_another_one_and_for_five_seconds_at_the_most() {
    let (fresh, done) = (
        TestDb::empty(Backend::Postgres).await,
        TestDb::migrated(Backend::Postgres).await,
    );
    let migrate = |db: &TestDb| recents(&["migrate", "--database-url", &db.url]);
    let mut holders = Vec::new();
    for db in [&fresh, &done] {
        let mut holder = db.connect().await;
        holder
            .execute(&format!(
                "begin; select pg_advisory_xact_lock({ADVISORY_LOCK})"
            ))
            .await;
        holders.push(holder);
    }
    migrate(&done).expect(0);
    let started = Instant::now();
    let waited = migrate(&fresh).expect(1);
    assert!(waited.one_line().contains("lock timeout"), "{}", waited.err);
    let took = started.elapsed().as_secs_f64();
    assert!((4.9..10.0).contains(&took), "it waits 5 s, not {took} s");
    drop(holders);
    until("the holder is gone", async || {
        (migrate(&fresh).code == Some(0)).then_some(())
    })
    .await;
}

async fn a_table_that_is_gone_is_told_by_migrate_with_the_way_back(db: TestDb) {
    let migrate = || recents(&["migrate", "--database-url", &db.url]);
    migrate().expect(0);
    db.execute("drop table {recents}identity").await;
    let told = migrate().expect(1).err;
    let named = told
        .split_once("gone: ")
        .and_then(|(_, rest)| rest.split_once("; "));
    let (gone, mend) = named.expect("both");
    assert!(gone == "identity" || gone == "recents.identity", "{told}");
    assert!(mend.contains("restore them from a backup"), "{told}");
}

#[tokio::test]
async fn a_role_that_may_create_nothing_serves_a_schema_that_is_up_to_date() {
    let mut db = TestDb::migrated(Backend::Postgres).await;
    let url = db
        .role(&[
            "revoke create on schema public from public",
            "grant usage on schema recents to %",
            "grant select on all tables in schema recents to %",
            "grant insert, update, delete on recents.recent_workflow, recents.job to %",
        ])
        .await;
    let migrate = recents(&["migrate", "--database-url", &url]).expect(0);
    assert_eq!(migrate.err, "the schema is up to date\n");
    let server = Server::with(&url, &[]).await;
    server
        .public
        .post("/v1/runs", &body_of(&[Use::new("w", "p", 0)]))
        .await
        .expect(200);
    assert_eq!(
        server
            .public
            .get(&list_path("w", None))
            .await
            .expect(200)
            .published_runs(),
        ["p"]
    );
}

#[tokio::test]
async fn a_role_that_may_create_nothing_is_told_so_where_the_schema_is_missing() {
    let mut db = TestDb::empty(Backend::Postgres).await;
    let url = db.role(&[]).await;
    let migrate = recents(&["migrate", "--database-url", &url]).expect(1);
    let line = migrate.one_line();
    assert!(line.contains("permission denied"), "{line}");
}

/// An id that such a database has no characters for would fail what others read and write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_has_not_every_character_of_an_id_is_refused() {
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let made = format!("template template0 encoding '{encoding}' lc_collate 'C' lc_ctype 'C'");
        let db = TestDb::create(&made).await;
        let reason = format!(
            "the database's encoding is {encoding}, which has no room for every id; make one with \
             `create database … encoding 'UTF8' template template0` for database_url"
        );
        for command in [&["migrate"][..], &["list", "w"]] {
            let ended = recents(&[command, &["--database-url", &db.url]].concat()).expect(2);
            assert_eq!(ended.one_line(), reason);
        }
        for migrate_on_start in ["true", "false"] {
            let mut server =
                Server::spawn(&db.url, &["--migrate-on-start", migrate_on_start]).await;
            assert_eq!(server.ended().await.code(), Some(2));
            let said = format!("recents: {reason}");
            assert!(server.log.lines().contains(&said), "{}", server.log.text());
        }
        let ended = recents(&["doctor", "--json", "--database-url", &db.url]).expect(1);
        let told = serde_json::from_str(&ended.out).expect("JSON");
        let (verdict, detail, mend) = finding(&told, "schema");
        assert_eq!((verdict.as_str(), detail), ("failure", reason));
        assert!(mend.contains("encoding 'UTF8'"), "{mend}");
        let schemas = "select nspname::text from pg_namespace where nspname = 'recents'";
        let schemas = db.connect().await.texts(schemas).await;
        assert!(schemas.is_empty(), "nothing was made");
    }
}
