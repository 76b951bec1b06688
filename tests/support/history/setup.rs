//! A table, a history, and the commands that run over both.

use std::process::Command;

use recents::config::HistoryConfig;
use serde_json::Value;
use tempfile::TempDir;

use super::{History, Layout, Worker};
use crate::support::cluster::temp_dir;
use crate::support::command::{Ended, command};
use crate::support::uses::Rows;
use crate::support::{Backend, TestDb};

/// A migrated database for the table, and a history in it or in another one.
pub(crate) struct Setup {
    pub(crate) store: TestDb,
    /// Where the history is, unless beside the table.
    pub(crate) apart: Option<TestDb>,
    pub(crate) history: History,
    /// The mapping query.
    pub(crate) query: String,
    pub(crate) dir: TempDir,
}

impl Setup {
    /// The history beside the table, or in an own database where it is of the other kind.
    pub(crate) async fn of(store: TestDb, history: History) -> Self {
        if store.backend == history.layout.backend {
            history.create(&store).await;
            return Self::beside(store, None, history);
        }
        Self::apart(store, history).await
    }

    /// The history in a database of its own.
    pub(crate) async fn apart(store: TestDb, history: History) -> Self {
        let apart = TestDb::empty(history.layout.backend).await;
        history.create(&apart).await;
        Self::beside(store, Some(apart), history)
    }

    fn beside(store: TestDb, apart: Option<TestDb>, history: History) -> Self {
        let query = history.layout.query();
        Self {
            store,
            apart,
            history,
            query,
            dir: temp_dir(),
        }
    }

    /// A plain random history of `runs` runs beside the table.
    pub(crate) async fn plain(store: TestDb, seed: u64, runs: usize) -> Self {
        let history = History::random(Layout::of(store.backend), seed, runs);
        Self::of(store, history).await
    }

    /// The database of the history.
    pub(crate) fn source(&self) -> &TestDb {
        self.apart.as_ref().unwrap_or(&self.store)
    }

    /// The history, as it is configured.
    pub(crate) fn config(&self) -> HistoryConfig {
        HistoryConfig {
            url: self.source().url.to_string(),
            table: self.history.layout.table.into(),
            key: self.history.layout.key.into(),
            query: self.query.clone(),
        }
    }

    /// The command, configured by its environment.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = command(self.dir.path());
        command
            .env("RECENTS_DATABASE_URL", &self.store.url)
            .env("RECENTS_HISTORY_TABLE", self.history.layout.table)
            .env("RECENTS_HISTORY_KEY", self.history.layout.key)
            .env("RECENTS_HISTORY_QUERY", &self.query)
            .args(args);
        if let Some(apart) = &self.apart {
            command.env("RECENTS_HISTORY_URL", &apart.url);
        }
        command
    }

    /// Runs it to its end.
    pub(crate) fn recents(&self, args: &[&str]) -> Ended {
        self.command(args).output().expect("recents runs").into()
    }

    /// The same, with JSON out, from which the last line is returned.
    #[track_caller]
    pub(crate) fn json(&self, args: &[&str], code: i32) -> Value {
        let ended = self.recents(&[args, &["--json"]].concat()).expect(code);
        last_json(&ended)
    }

    /// Starts it.
    pub(crate) fn start(&self, args: &[&str]) -> Worker {
        Worker::start(self.command(args))
    }

    /// A backfill to its end, which wrote what the history says.
    pub(crate) async fn backfill(&self, args: &[&str]) -> Value {
        let summary = self.json(&[&["backfill"], args].concat(), 0);
        self.assert_equal(&format!("after a backfill {args:?}"))
            .await;
        summary
    }

    /// The table says what the history says.
    pub(crate) async fn assert_equal(&self, when: &str) {
        same(&self.store.rows().await, &self.history.rows(), when);
    }

    /// Makes the lease of whoever holds the job run out.
    pub(crate) async fn age_lease(&self) {
        let long_ago = match self.store.backend {
            Backend::Postgres => "'2001-01-01Z'",
            Backend::Sqlite => "1",
        };
        let sql = format!(
            "update {{recents}}job set lease_until = {long_ago} where lease_until is not null"
        );
        self.store.execute(&sql).await;
    }

    /// A column of the newest job.
    pub(crate) async fn job(&self, column: &str) -> String {
        let newest =
            format!("select cast({column} as text) from {{recents}}job order by id desc limit 1");
        self.store
            .connect()
            .await
            .texts(&newest)
            .await
            .pop()
            .unwrap_or_default()
    }
}

/// The last line of what a command printed, as JSON.
#[track_caller]
pub(crate) fn last_json(ended: &Ended) -> Value {
    let last = ended
        .out
        .lines()
        .last()
        .unwrap_or_else(|| panic!("no data: {ended:?}"));
    serde_json::from_str(last).unwrap_or_else(|e| panic!("not JSON ({e}): {last}"))
}

/// The two are the same; where not, says which rows differ.
#[track_caller]
pub(crate) fn same(found: &Rows, expected: &Rows, when: &str) {
    let differing: Vec<_> = expected
        .keys()
        .chain(found.keys())
        .filter(|key| found.get(*key) != expected.get(*key))
        .take(5)
        .map(|key| (key, found.get(key), expected.get(key)))
        .collect();
    assert!(
        differing.is_empty(),
        "{when}: {} rows, {} expected; (key, found, expected): {differing:#?}",
        found.len(),
        expected.len()
    );
}
