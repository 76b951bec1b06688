//! Which SQL statements a server sends: by the driver's own log, not by our counters.

use std::cell::Cell;

use hyper::body::Bytes;
use recents::store::Dialect;
use serde_json::Value;

use super::client::{Client, list_path};
use super::database::TestDb;
use super::server::Server;
use super::uses::{Use, body_of};

/// What the service asks by itself now and then, whatever its clients do.
const BACKGROUND: [&str; 16] = [
    "ping",
    "connected",
    "job_last_success",
    "settings",
    "listening",
    "tell",
    "tell_itself",
    "any_dismissal",
    "hidden_after",
    "sweep",
    "needless_after",
    "prune_dismissals",
    "job_prune",
    "audit_take",
    "audit_save",
    "audit_passed_at",
];
/// Whether an old transaction is open: no statement of the product's own tables.
const ACTIVITY: &str = "pg_stat_activity";

/// A server with one connection, whose statements are counted.
pub(crate) struct Meter {
    pub(crate) server: Server,
    dialect: Dialect,
    passed: Cell<u32>,
}

/// A request whose statement marks an end of what is counted; of a kind that is not counted.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fence {
    Read,
    Write,
    /// Of the admin listener, whatever lists are read from.
    Jobs,
}

impl Fence {
    /// Whether it sends a statement itself.
    fn is(self, statement: &str) -> bool {
        match self {
            // Of the two, what has seen a dismissal sends the other one.
            Self::Read => ["read_1", "visible_1"].contains(&statement),
            Self::Write => ["raise", "position"].contains(&statement),
            Self::Jobs => statement == "job_list",
        }
    }
}

impl Meter {
    /// Every read asks the database.
    pub(crate) async fn start(db: &TestDb) -> Self {
        Self::with(db, &["--cache-capacity", "0"]).await
    }

    pub(crate) async fn with(db: &TestDb, flags: &[&str]) -> Self {
        let more = flags;
        // One connection: when a statement's line is in the log, so is that of every earlier one.
        let flags = [
            "--pool-size",
            "1",
            "--log-level",
            "info,recents::http=debug,recents::dismiss=debug,sqlx::query=debug",
        ];
        let flags = [flags.as_slice(), more].concat();
        let server = Server::with(&db.url, &flags).await;
        let meter = Self {
            server,
            dialect: db.store().dialect(),
            passed: Cell::new(0),
        };
        // What the driver asks once per connection is asked now.
        meter.pass(Fence::Read).await;
        meter.pass(Fence::Write).await;
        meter
    }

    pub(crate) fn client(&self) -> &Client {
        &self.server.public
    }

    /// The statements sent while `work` is done, by name; by text where they have none.
    pub(crate) async fn statements(&self, fence: Fence, work: impl AsyncFnOnce()) -> Vec<String> {
        let apart = |name: &String| !fence.is(name);
        self.pass(fence).await;
        let before = self.sent().into_iter().filter(apart).count();
        work().await;
        self.pass(fence).await;
        self.sent().into_iter().filter(apart).skip(before).collect()
    }

    /// Waits until the log has the statement of every request before this one.
    async fn pass(&self, fence: Fence) {
        let id = format!("fence-{}", self.passed.get());
        self.passed.set(self.passed.get() + 1);
        // The connection takes the second statement when the first one's line is written, and the
        // second answer is logged after both.
        for id in ["", &id] {
            let headers = [("x-request-id", id), ("content-type", "application/json")];
            let usage = Use::new("fence", "fence", 0).run("fence");
            let (client, method, path, body) = match fence {
                Fence::Read => (self.client(), "GET", list_path("fence", None), Bytes::new()),
                Fence::Write => (
                    self.client(),
                    "POST",
                    "/v1/runs".into(),
                    body_of(&[usage]).to_string().into(),
                ),
                Fence::Jobs => (
                    &self.server.admin,
                    "GET",
                    "/admin/v1/jobs".into(),
                    Bytes::new(),
                ),
            };
            client.send(method, &path, &headers, body).await.expect(200);
        }
        let answered =
            |event: &Value| event["message"] == "answered" && event["span"]["request_id"] == *id;
        self.server
            .log
            .event("the fence is in the log", answered)
            .await;
    }

    fn sent(&self) -> Vec<String> {
        let events = self.server.log.events();
        let statements = events
            .iter()
            .filter(|event| event["target"] == "sqlx::query");
        let names = statements.map(|event| self.name(&text(event)));
        names
            .filter(|name| !BACKGROUND.contains(&name.as_str()) && !name.contains(ACTIVITY))
            .collect()
    }

    fn name(&self, text: &str) -> String {
        let known = recents::store::statements()
            .find(|statement| statement.text(self.dialect).trim() == text);
        match known {
            Some(statement) => statement.name.to_owned(),
            None if text.contains("notify recents_") => "listening".to_owned(),
            None if text.starts_with("select set_config('synchronous_commit'") => {
                "connected".to_owned()
            }
            None => text.to_owned(),
        }
    }
}

/// The whole statement; the driver repeats short ones in the summary only.
fn text(event: &Value) -> String {
    let field = |name: &str| {
        event[name]
            .as_str()
            .expect("a field of the driver's")
            .trim()
    };
    match field("db.statement") {
        "" => field("summary"),
        text => text,
    }
    .to_owned()
}
