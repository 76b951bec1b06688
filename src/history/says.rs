//! A question of the operator's to the history's database.

use std::time::Duration;

use sqlx::AssertSqlSafe;

use super::{Database, History, HistoryError, session};

/// The answer should come at once; a database that takes so long is unwell.
const TIMEOUT: Duration = Duration::from_secs(5);

impl History {
    /// What `resync.pause_while` says: a query of one value, true or not.
    ///
    /// # Errors
    /// [`HistoryError::Misfit`] where the database refuses the query, [`HistoryError::TimedOut`] or
    /// [`HistoryError::Database`] where it does not answer.
    pub(crate) async fn says(&self, query: &str) -> Result<bool, HistoryError> {
        let query = query.trim().trim_end_matches(';');
        // The newline ends a trailing comment.
        let text = AssertSqlSafe(format!("select case when (\n{query}\n) then 1 else 0 end"));
        let said: Result<i32, sqlx::Error> = match &self.database {
            Database::Postgres(pool) => {
                let mut tx = session::begin(pool, TIMEOUT).await?;
                sqlx::query_scalar(text).fetch_one(&mut *tx).await
            }
            Database::Sqlite(pool) => sqlx::query_scalar(text).fetch_one(pool).await,
        };
        match session::timed_out(said.map_err(HistoryError::Database), TIMEOUT) {
            Err(HistoryError::Database(sqlx::Error::Database(error))) => {
                Err(HistoryError::misfit("resync.pause_while", error.message()))
            }
            said => said.map(|said| said == 1),
        }
    }
}
