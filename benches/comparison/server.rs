//! The PostgreSQL on which everything is measured.

use std::path::PathBuf;

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::Failure;
use crate::cluster::Cluster;

const DATABASE: &str = "recents_comparison";

/// A server with a database of our own.
pub(crate) struct Server {
    /// The url of that database.
    pub(crate) url: String,
    /// The server's own database, from which ours is made and dropped.
    maintenance: String,
    /// `None` for somebody else's server.
    cluster: Option<Cluster>,
}

impl Server {
    /// Starts a cluster, or takes the one at `url`.
    pub(crate) async fn start(url: Option<&str>) -> Result<Self, Failure> {
        let cluster = match url {
            Some(_) => None,
            None => Some(Cluster::start(&SETTINGS)?),
        };
        let maintenance = match (&cluster, url) {
            (Some(cluster), _) => cluster.url.clone(),
            (None, url) => url.unwrap_or_default().to_owned(),
        };
        let (server, _) = maintenance
            .rsplit_once('/')
            .ok_or("--postgres-url names no database")?;
        let server = Self {
            url: format!("{server}/{DATABASE}"),
            maintenance,
            cluster,
        };
        server.drop_database().await?;
        let mut conn = PgConnection::connect(&server.maintenance).await?;
        run(&mut conn, &format!("create database {DATABASE}")).await?;
        Ok(server)
    }

    pub(crate) async fn connect(&self) -> Result<PgConnection, Failure> {
        Ok(PgConnection::connect(&self.url).await?)
    }

    /// Where the server logs; unknown of somebody else's.
    pub(crate) fn log(&self) -> Option<PathBuf> {
        self.cluster.as_ref().map(Cluster::log)
    }

    pub(crate) async fn end(self) -> Result<(), Failure> {
        self.drop_database().await
    }

    async fn drop_database(&self) -> Result<(), Failure> {
        let mut conn = PgConnection::connect(&self.maintenance).await?;
        run(
            &mut conn,
            &format!("drop database if exists {DATABASE} with (force)"),
        )
        .await?;
        Ok(conn.close().await?)
    }
}

/// What differs from PostgreSQL's defaults: durable, and no checkpoint in the middle of something.
/// Not shared_buffers: the history is in the system's memory either way, and a new session that walks
/// gigabytes of shared buffers pays for mapping them first.
const SETTINGS: [&str; 5] = [
    "fsync=on",
    "full_page_writes=on",
    "max_wal_size=8GB",
    "checkpoint_timeout=1h",
    "log_checkpoints=off",
];

/// Runs statements without parameters and without an answer.
pub(crate) async fn run(conn: &mut PgConnection, sql: &str) -> Result<(), Failure> {
    let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(conn)
        .await;
    done.map_err(|error| format!("{sql}: {error}"))?;
    Ok(())
}

/// The one value of the one row that a query gives, as text.
pub(crate) async fn text(conn: &mut PgConnection, sql: &str) -> Result<String, Failure> {
    let query = sqlx::query_scalar(AssertSqlSafe(format!("select ({sql})::text")));
    Ok(query
        .fetch_one(conn)
        .await
        .map_err(|error| format!("{sql}: {error}"))?)
}
