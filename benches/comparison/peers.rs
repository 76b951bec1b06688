//! The ways to the four workflows that a workspace used last.

use std::net::SocketAddr;

use recents::model::Time;
use sqlx::{Connection as _, PgConnection, Row};

use crate::Failure;
use crate::http::{Connection, get};
use crate::program::Serving;
use crate::server::{Server, run};

/// The query: every run of the workspace, sorted.
const DISTINCT_ON: &str = "
select published_run_id, updated_at from (
    select distinct on (v.published_run_id) v.published_run_id, r.updated_at
    from app.saved_run r join app.saved_run_version v on v.id = r.parent_version_id
    where r.workspace_id = $1
    order by v.published_run_id, r.updated_at desc
) as newest
order by updated_at desc, published_run_id desc limit 4";

/// Every run of the workspace, hashed.
const GROUP_BY: &str = "
select v.published_run_id, max(r.updated_at) as updated_at
from app.saved_run r join app.saved_run_version v on v.id = r.parent_version_id
where r.workspace_id = $1
group by v.published_run_id
order by updated_at desc, v.published_run_id desc limit 4";

/// One step of an index a workflow, where the run itself names its workflow.
const SKIP_SCAN: &str = "
with recursive newest as (
    (select published_run_id, updated_at from app.saved_run
     where workspace_id = $1 and published_run_id is not null
     order by published_run_id, updated_at desc limit 1)
    union all
    select next.published_run_id, next.updated_at from newest, lateral (
        select r.published_run_id, r.updated_at from app.saved_run r
        where r.workspace_id = $1 and r.published_run_id > newest.published_run_id
        order by r.published_run_id, r.updated_at desc limit 1
    ) as next
)
select published_run_id, updated_at from newest
order by updated_at desc, published_run_id desc limit 4";

/// One step of an index a version; the workflow is a join away, as in the issue.
const SKIP_SCAN_JOIN: &str = "
with recursive newest as (
    (select parent_version_id, updated_at from app.saved_run
     where workspace_id = $1 and parent_version_id is not null
     order by parent_version_id, updated_at desc limit 1)
    union all
    select next.parent_version_id, next.updated_at from newest, lateral (
        select r.parent_version_id, r.updated_at from app.saved_run r
        where r.workspace_id = $1 and r.parent_version_id > newest.parent_version_id
        order by r.parent_version_id, r.updated_at desc limit 1
    ) as next
)
select v.published_run_id, max(newest.updated_at) as updated_at
from newest join app.saved_run_version v on v.id = newest.parent_version_id
group by v.published_run_id
order by updated_at desc, v.published_run_id desc limit 4";

/// The indexes that only the skip scans read, and the history's statistics with them.
pub(crate) const SKIP_INDEXES: [&str; 3] = [
    "create index saved_run_skip on app.saved_run (workspace_id, published_run_id, updated_at desc)",
    "create index saved_run_skip_join on app.saved_run (workspace_id, parent_version_id, updated_at desc)",
    "vacuum analyze app.saved_run",
];

/// As an application reads the table by SQL.
const TABLE: &str = "
select published_run, last_used_at from recents.recent_workflows
where workspace = $1 and uid = '' order by last_used_at desc, published_run desc limit 4";

/// One of the ways, with a connection of its own that is kept.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    way: Way,
}

enum Way {
    History(PgConnection, &'static str),
    Table(PgConnection),
    /// A read of one list with the parameters of the service's.
    Statement(PgConnection, &'static str),
    Http(Connection),
}

impl Peer {
    /// All of them; the last is the one by HTTP, and before it the one by SQL.
    pub(crate) async fn all(server: &Server, serving: &Serving) -> Result<Vec<Self>, Failure> {
        let mut peers = Vec::new();
        for (name, query, planned_each_time) in [
            ("`DISTINCT ON` over the history", DISTINCT_ON, true),
            ("`GROUP BY`, `max` over the history", GROUP_BY, true),
            (
                "skip scan, version → workflow joined",
                SKIP_SCAN_JOIN,
                false,
            ),
            ("skip scan, workflow copied into each run", SKIP_SCAN, false),
        ] {
            let mut conn = server.connect().await?;
            if planned_each_time {
                // What fits a workspace of one run is a disaster for one of millions.
                run(&mut conn, "set plan_cache_mode = force_custom_plan").await?;
            }
            let way = Way::History(conn, query);
            peers.push(Self { name, way });
        }
        peers.extend(Self::of_table(&server.url, serving.address).await?);
        Ok(peers)
    }

    /// The table: by SQL, and by HTTP.
    pub(crate) async fn of_table(url: &str, address: SocketAddr) -> Result<[Self; 2], Failure> {
        Ok([
            Self {
                name: "the table, by SQL",
                way: Way::Table(PgConnection::connect(url).await?),
            },
            Self {
                name: "the table, by HTTP",
                way: Way::Http(Connection::open(address).await?),
            },
        ])
    }

    /// From now on plans the statement once, as the service does.
    pub(crate) async fn plan_once(&mut self) -> Result<(), Failure> {
        match &mut self.way {
            Way::Table(conn) => run(conn, "set plan_cache_mode = force_generic_plan").await,
            _ => Ok(()),
        }
    }

    /// A statement that reads one list, `$1` to `$3`, or to `$5` with a position, as the service's.
    pub(crate) fn statement(name: &'static str, text: &'static str, conn: PgConnection) -> Self {
        let way = Way::Statement(conn, text);
        Self { name, way }
    }

    /// Reads the top four of a workspace.
    pub(crate) async fn read(&mut self, workspace: u64) -> Result<Top, Failure> {
        Ok(match &mut self.way {
            Way::History(conn, query) => {
                let query = sqlx::query(*query).bind(i64::try_from(workspace)?);
                Top::Numbers(
                    query
                        .fetch_all(conn)
                        .await?
                        .iter()
                        .map(|row| row.get(0))
                        .collect(),
                )
            }
            Way::Table(conn) => {
                let query = sqlx::query(TABLE).bind(workspace.to_string());
                Top::Texts(
                    query
                        .fetch_all(conn)
                        .await?
                        .iter()
                        .map(|row| row.get(0))
                        .collect(),
                )
            }
            Way::Statement(conn, text) => {
                // A page of four, and the item that tells whether there is a next one.
                let query = sqlx::query(*text).bind(5_i64).bind(workspace.to_string());
                let query = match text.contains("$5") {
                    true => query.bind("").bind(Time::MAX).bind(""),
                    false => query.bind(""),
                };
                Top::Texts(
                    query
                        .fetch_all(conn)
                        .await?
                        .iter()
                        .map(|row| row.get(1))
                        .collect(),
                )
            }
            Way::Http(connection) => {
                let path = format!("/v1/workspaces/{workspace}/recent-workflows");
                Top::Json(connection.send(&get(&path)).await?.into())
            }
        })
    }
}

/// The four, as they came.
pub(crate) enum Top {
    Numbers(Vec<i64>),
    Texts(Vec<String>),
    Json(Vec<u8>),
}

impl Top {
    /// The ids of the workflows, to compare the answers with each other.
    pub(crate) fn ids(&self) -> Result<Vec<String>, Failure> {
        Ok(match self {
            Self::Numbers(ids) => ids.iter().map(ToString::to_string).collect(),
            Self::Texts(ids) => ids.clone(),
            Self::Json(body) => {
                let page: serde_json::Value = serde_json::from_slice(body)?;
                let items = page["recent_workflows"].as_array().ok_or("no list")?;
                let id = |item: &serde_json::Value| item["published_run"].as_str().map(Into::into);
                items.iter().filter_map(id).collect()
            }
        })
    }
}
