//! Starts at once on a fresh database.

use std::process::Stdio;

use crate::support::cluster::temp_dir;
use crate::support::command::{Ended, command};
use crate::support::database::migrations;
use crate::support::{Backend, TestDb};

const PROCESSES: usize = 8;

/// Lets every process migrate the database at once.
async fn migrate_at_once(db: &TestDb) -> Vec<Ended> {
    let dir = temp_dir();
    let spawn = |_| {
        let mut command = command(dir.path());
        command
            .args(["migrate", "--database-url", &db.url])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().expect("recents runs")
    };
    let processes: Vec<_> = (0..PROCESSES).map(spawn).collect();
    processes
        .into_iter()
        .map(|p| p.wait_with_output().expect("its end").into())
        .collect()
}

async fn migrations_are_applied_once(backend: Backend) {
    for _ in 0..3 {
        let db = TestDb::empty(backend).await;
        let ended = migrate_at_once(&db).await;
        for process in &ended {
            assert_eq!(process.code, Some(0), "{process:?}");
        }
        let did = ended
            .iter()
            .filter(|process| process.err.starts_with("applied "))
            .count();
        assert_eq!(did, 1, "one applies them, the others find them: {ended:?}");
        let mut conn = db.connect().await;
        let applied = conn
            .texts(
                "select cast(h.version as text) from {recents}refinery_schema_history as h
                 order by h.version",
            )
            .await;
        let expected = migrations().into_iter().map(|n| n.to_string());
        assert_eq!(applied, expected.collect::<Vec<_>>());
        let again = migrate_at_once(&db).await;
        assert!(
            again
                .iter()
                .all(|process| process.err == "the schema is up to date\n"),
            "{again:?}"
        );
    }
}

#[tokio::test]
async fn migrations_are_applied_once_postgres() {
    migrations_are_applied_once(Backend::Postgres).await;
}

#[tokio::test]
async fn migrations_are_applied_once_sqlite() {
    migrations_are_applied_once(Backend::Sqlite).await;
}
