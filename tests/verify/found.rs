//! What verify found, and what it should find.

use std::collections::BTreeMap;

use recents::model::Time;
use serde_json::Value;

use crate::support::command::Ended;
use crate::support::history::Setup;
use crate::support::uses::Rows;

pub(crate) type Key = (String, String, String);
pub(crate) type Newest = (i64, Option<String>);

/// A difference: its kind, what the history says, what the table says.
pub(crate) type Differs = (String, Option<Newest>, Option<Newest>);

/// How the table differs from what it should be, by its definition.
pub(crate) fn differences(table: &Rows, history: &Rows) -> BTreeMap<Key, Differs> {
    let mut differences = BTreeMap::new();
    for key in history.keys().chain(table.keys()) {
        let (said, is) = (history.get(key), table.get(key));
        // Text orders by bytes, and no run below every run.
        let kind = match (said, is) {
            (Some(_), None) => "missing",
            (None, _) => "extra",
            (Some(said), Some(is)) if is < said => "stale",
            (Some(said), Some(is)) if is > said => "ahead",
            _ => continue,
        };
        differences.insert(key.clone(), (kind.into(), said.cloned(), is.cloned()));
    }
    differences
}

/// The differences that `verify --json` printed, and its last line.
#[track_caller]
pub(crate) fn found(ended: &Ended) -> (BTreeMap<Key, Differs>, Value) {
    let mut lines = parsed(&ended.out);
    let summary = lines.pop().expect("a summary");
    let found = of_lines(&lines);
    assert_eq!(summary["differences"], found.len());
    (found, summary)
}

/// Lines of JSON.
#[track_caller]
pub(crate) fn parsed(lines: &str) -> Vec<Value> {
    let parse =
        |line: &str| serde_json::from_str::<Value>(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    lines.lines().map(parse).collect()
}

/// The differences that these lines name.
#[track_caller]
pub(crate) fn of_lines(lines: &[Value]) -> BTreeMap<Key, Differs> {
    let newest = |value: &Value| {
        let at = Time::parse_rfc3339(value["last_used_at"].as_str()?).expect("a time");
        Some((at.micros(), value["run"].as_str().map(Into::into)))
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let found: BTreeMap<_, _> = lines
        .iter()
        .map(|line| {
            let key = (
                text(&line["workspace"]),
                text(&line["uid"]),
                text(&line["published_run"]),
            );
            (
                key,
                (
                    text(&line["kind"]),
                    newest(&line["history"]),
                    newest(&line["table"]),
                ),
            )
        })
        .collect();
    assert_eq!(found.len(), lines.len(), "a row was named twice: {lines:?}");
    found
}

impl Setup {
    /// Verifies; what is found is what differs, and the exit code says whether something does.
    pub(crate) async fn verify(&self, args: &[&str]) -> BTreeMap<Key, Differs> {
        let expected = differences(&self.store.rows().await, &self.history.rows());
        self.verify_is(args, expected).await
    }

    /// Verifies; what is found is this.
    pub(crate) async fn verify_is(
        &self,
        args: &[&str],
        expected: BTreeMap<Key, Differs>,
    ) -> BTreeMap<Key, Differs> {
        let ended = self.recents(&[&["verify", "--json"], args].concat());
        let ended = ended.expect(if expected.is_empty() { 0 } else { 3 });
        let (found, _) = found(&ended);
        for (key, expected) in &expected {
            assert_eq!(found.get(key), Some(expected), "{key:?} by verify {args:?}");
        }
        let invented = found.iter().find(|(key, _)| !expected.contains_key(*key));
        assert_eq!(invented, None, "by verify {args:?}");
        found
    }

    /// A statement for one row: `{row}` is a condition on its key.
    pub(crate) async fn change(&self, sql: &str, (workspace, uid, published_run): &Key) {
        let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
        let row = format!(
            "workspace = {} and uid = {} and published_run = {}",
            quoted(workspace),
            quoted(uid),
            quoted(published_run)
        );
        self.store.execute(&sql.replace("{row}", &row)).await;
    }

    /// Writes a row into the table, whatever the history says.
    pub(crate) async fn put(&self, (workspace, uid, published_run): &Key, (micros, run): &Newest) {
        let usage = crate::support::Use::new("", "", 0).at(*micros);
        let time = match self.store.backend {
            crate::support::Backend::Postgres => format!("'{}'", usage.time()),
            crate::support::Backend::Sqlite => micros.to_string(),
        };
        let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
        let run = run.as_deref().map_or("null".into(), quoted);
        let key = [workspace, uid, published_run]
            .map(|text| quoted(text))
            .join(", ");
        self.store
            .execute(&format!(
                "insert into {{recents}}recent_workflow (workspace, uid, published_run, last_used_at, run)
                 values ({key}, {time}, {run})
                 on conflict (workspace, uid, published_run)
                 do update set last_used_at = excluded.last_used_at, run = excluded.run"
            ))
            .await;
    }
}

/// A key.
pub(crate) fn key(workspace: &str, uid: &str, published_run: &str) -> Key {
    (workspace.into(), uid.into(), published_run.into())
}
