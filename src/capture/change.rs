//! Changing what is installed: with short locks, one change at a time.

use std::time::Duration;

use sqlx::{AssertSqlSafe, PgPool, Postgres, Transaction};

use super::outbox;
use crate::history::LOCK_TIMEOUT;
use crate::store::sqlstate::{self, LOCK_NOT_AVAILABLE};

/// Tries of [`LOCK_TIMEOUT`] each: the application's own statements wait behind one.
const TRIES: u32 = 4;
const BETWEEN_TRIES: Duration = Duration::from_millis(200);
/// Two that install or remove at once do so one after the other.
const ONE_AT_A_TIME: &str = "select pg_advisory_xact_lock(hashtext('recents.capture'))";

/// Begins a change.
pub(super) async fn begin(pool: &PgPool) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    let mut tx = outbox::begin(pool).await?;
    let timeout = format!("set local lock_timeout = {}", LOCK_TIMEOUT.as_millis());
    sqlx::raw_sql(AssertSqlSafe(timeout))
        .execute(&mut *tx)
        .await?;
    sqlx::query(ONE_AT_A_TIME).execute(&mut *tx).await?;
    Ok(tx)
}

/// Tries again where a lock was not to be had.
pub(super) async fn patiently<T>(
    mut once: impl AsyncFnMut() -> Result<T, sqlx::Error>,
) -> Result<T, sqlx::Error> {
    for _ in 1..TRIES {
        match once().await {
            Err(error) if sqlstate::is(&error, LOCK_NOT_AVAILABLE) => {
                tokio::time::sleep(BETWEEN_TRIES).await;
            }
            done => return done,
        }
    }
    once().await
}
