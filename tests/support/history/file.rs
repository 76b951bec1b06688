//! Histories in files.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;

use super::setup::{last_json, same};
use super::{Worker, maximum};
use crate::support::cluster::temp_dir;
use crate::support::command::{Ended, command};
use crate::support::uses::Rows;
use crate::support::{TestDb, Use};

/// A table, and a directory for files.
pub(crate) struct Files {
    pub(crate) db: TestDb,
    dir: tempfile::TempDir,
}

impl Files {
    pub(crate) fn beside(db: TestDb) -> Self {
        Self {
            db,
            dir: temp_dir(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), content).expect("the file is written");
    }

    /// The backfill of a file; the working directory is the files'.
    pub(crate) fn command(&self, name: &str, args: &[&str]) -> Command {
        let mut command = command(self.dir.path());
        command.env("RECENTS_DATABASE_URL", &self.db.url);
        command
            .args(["backfill", "--json", "--from", name])
            .args(args);
        command
    }

    pub(crate) fn backfill(&self, name: &str, args: &[&str]) -> Ended {
        self.command(name, args)
            .output()
            .expect("recents runs")
            .into()
    }

    pub(crate) fn start(&self, name: &str) -> Worker {
        Worker::start(self.command(name, &[]))
    }

    /// Backfills a file of this content into an empty table, which is then what `uses` make of it.
    pub(crate) async fn ends_as(
        &self,
        name: &str,
        content: impl AsRef<[u8]>,
        uses: &[Use],
    ) -> serde_json::Value {
        self.db
            .execute("delete from {recents}recent_workflow")
            .await;
        self.write(name, content);
        let ended = self.backfill(name, &[]).expect(0);
        same(&self.db.rows().await, &maximum(uses), name);
        last_json(&ended)
    }

    /// A column of the newest job.
    pub(crate) async fn job(&self, column: &str) -> String {
        let newest =
            format!("select cast({column} as text) from {{recents}}job order by id desc limit 1");
        self.db
            .connect()
            .await
            .texts(&newest)
            .await
            .pop()
            .unwrap_or_default()
    }

    pub(crate) async fn assert_rows(&self, expected: &Rows, when: &str) {
        same(&self.db.rows().await, expected, when);
    }
}

pub(crate) const HEADER: &str = "run,workspace,uid,published_run,last_used_at\n";

/// A use as a line of CSV, in the order of [`HEADER`].
pub(crate) fn csv_line(usage: &Use) -> String {
    let field = |text: Option<&String>| text.cloned().unwrap_or_default();
    format!(
        "{},{},{},{},{}\n",
        field(usage.run.as_ref()),
        usage.workspace,
        field(usage.uid.as_ref()),
        usage.published_run,
        usage.time()
    )
}

pub(crate) fn csv(uses: &[Use]) -> String {
    let lines: String = uses.iter().map(csv_line).collect();
    HEADER.to_owned() + &lines
}

pub(crate) fn ndjson(uses: &[Use]) -> String {
    uses.iter()
        .map(|usage| format!("{}\n", json!(usage.json())))
        .collect()
}

pub(crate) fn gzip(content: impl AsRef<[u8]>) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(content.as_ref()).expect("in memory");
    encoder.finish().expect("in memory")
}
