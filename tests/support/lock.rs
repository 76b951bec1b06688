//! Holding writers up, so that a test decides when they go on.

use super::beside::Beside;
use super::database::TestDb;

/// Keeps every writer of the table waiting; readers go on. Gone when released or dropped.
///
/// SQLite's writers give up after five seconds, so let go before.
pub(crate) struct Lock(Beside);

impl Lock {
    pub(crate) async fn take(db: &TestDb) -> Self {
        let mut conn = db.connect().await;
        conn.execute(match conn {
            Beside::Postgres(_) => {
                "begin; lock table recents.recent_workflow in share row exclusive mode"
            }
            Beside::Sqlite(_) => "begin immediate",
        })
        .await;
        Self(conn)
    }

    pub(crate) async fn release(mut self) {
        self.0.execute("rollback").await;
    }
}
