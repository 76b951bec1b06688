//! SQL beside the product: what a test arranges and looks at without it.

use std::str::FromStr;
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, Row, SqliteConnection};

use super::database::Backend;
use super::uses::Rows;

/// A connection of the test's own.
pub(crate) enum Beside {
    Postgres(PgConnection),
    Sqlite(SqliteConnection),
}

impl Beside {
    pub(crate) async fn connect(backend: Backend, url: &str) -> Self {
        match backend {
            Backend::Postgres => {
                Self::Postgres(PgConnection::connect(url).await.expect("a connection"))
            }
            Backend::Sqlite => {
                let options = SqliteConnectOptions::from_str(url).expect("a good url");
                let options = options
                    .create_if_missing(true)
                    .busy_timeout(Duration::from_secs(20));
                Self::Sqlite(options.connect().await.expect("a connection"))
            }
        }
    }

    /// To a PostgreSQL that may be away.
    pub(crate) async fn try_connect(url: &str) -> Option<Self> {
        PgConnection::connect(url).await.ok().map(Self::Postgres)
    }

    pub(crate) async fn execute(&mut self, sql: &str) {
        self.try_execute(sql)
            .await
            .unwrap_or_else(|e| panic!("{sql}: {e}"));
    }

    pub(crate) async fn try_execute(&mut self, sql: &str) -> Result<(), sqlx::Error> {
        match self {
            Self::Postgres(conn) => {
                let sql = sql.replace("{recents}", "recents.");
                sqlx::raw_sql(AssertSqlSafe(sql))
                    .execute(conn)
                    .await
                    .map(drop)
            }
            Self::Sqlite(conn) => {
                let sql = sql.replace("{recents}", "");
                sqlx::raw_sql(AssertSqlSafe(sql))
                    .execute(conn)
                    .await
                    .map(drop)
            }
        }
    }

    /// The first column of every row, as text.
    pub(crate) async fn texts(&mut self, sql: &str) -> Vec<String> {
        self.try_texts(sql)
            .await
            .unwrap_or_else(|e| panic!("{sql}: {e}"))
    }

    pub(crate) async fn try_texts(&mut self, sql: &str) -> Result<Vec<String>, sqlx::Error> {
        let text = |value: Option<String>| value.unwrap_or_else(|| "NULL".into());
        Ok(match self {
            Self::Postgres(conn) => {
                let sql = AssertSqlSafe(sql.replace("{recents}", "recents."));
                let rows = sqlx::query(sql).fetch_all(conn).await?;
                rows.iter().map(|row| text(row.get_unchecked(0))).collect()
            }
            Self::Sqlite(conn) => {
                let sql = AssertSqlSafe(sql.replace("{recents}", ""));
                let rows = sqlx::query(sql).fetch_all(conn).await?;
                rows.iter().map(|row| text(row.get_unchecked(0))).collect()
            }
        })
    }

    /// The whole table.
    pub(crate) async fn rows(&mut self) -> Rows {
        match self {
            Self::Postgres(conn) => sqlx::query(
                "select workspace, uid, published_run,
                        (extract(epoch from last_used_at) * 1000000)::bigint, run
                 from recents.recent_workflow",
            )
            .fetch_all(conn)
            .await
            .expect("the table")
            .iter()
            .map(|r| ((r.get(0), r.get(1), r.get(2)), (r.get(3), r.get(4))))
            .collect(),
            Self::Sqlite(conn) => sqlx::query(
                "select workspace, uid, published_run, last_used_at, run from recent_workflow",
            )
            .fetch_all(conn)
            .await
            .expect("the table")
            .iter()
            .map(|r| ((r.get(0), r.get(1), r.get(2)), (r.get(3), r.get(4))))
            .collect(),
        }
    }
}
