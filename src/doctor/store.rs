//! The table's database, whichever it is: whether it answers, and what it holds.

use std::time::Instant;

use super::findings::{Findings, said};
use crate::config::Config;
use crate::store::migrate::MigrateError;
use crate::store::{Store, StoreError, is_missing_file, missing_directory};

/// Whether the database answers.
pub(super) async fn connection(
    config: &Config,
    store: &Store,
    findings: &mut Findings<'_>,
) -> bool {
    if is_missing_file(&config.database_url) {
        if let Some(directory) = missing_directory(&config.database_url) {
            let directory = directory.display();
            let detail = format!("there is no directory {directory} to make the file in");
            let mend = format!("mkdir -p {directory}, or mend database_url");
            findings.fail("connection", detail, mend);
            return false;
        }
        let detail = "there is no such file yet; it is made by the first command that writes";
        findings.warn("connection", detail, "recents migrate");
        return false;
    }
    let started = Instant::now();
    match store.ping().await {
        Ok(()) => {
            let took = started.elapsed().as_secs_f64() * 1e3;
            findings.ok(
                "connection",
                format!("it answers, {took:.1} ms with connecting"),
            );
            true
        }
        Err(error) => {
            let text = said(&error);
            let mend = match &*text {
                of if of.contains("unsupported startup parameter") => {
                    "a pooler stands between: set transaction_pooler = true, and listen_url"
                }
                of if of.contains("readonly database") => {
                    "let this user write the file and its directory"
                }
                _ => "mend database_url, or start the database",
            };
            findings.fail("connection", text, mend);
            false
        }
    }
}

/// Whether the schema is this program's.
pub(super) async fn schema(store: &Store, findings: &mut Findings<'_>) -> bool {
    match store.check_schema().await {
        Ok(()) => {
            findings.ok("schema", "as this version needs it");
            true
        }
        Err(StoreError::Schema(error)) => {
            let mend = match *error {
                MigrateError::Newer { .. } => "run a newer version of recents",
                MigrateError::Encoding { .. } => {
                    "create database … encoding 'UTF8' template template0; for database_url"
                }
                _ => "recents migrate",
            };
            findings.fail("schema", said(&error), mend);
            false
        }
        Err(error) => {
            let mend = "see `privileges`, or what the database says";
            findings.fail("schema", said(&error), mend);
            false
        }
    }
}
