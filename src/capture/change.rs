//! Changing what is installed: with short locks, one change at a time.

use std::time::Duration;

use sqlx::{AssertSqlSafe, PgPool, Postgres, Transaction};

use super::outbox;
use crate::store::sqlstate::{self, LOCK_NOT_AVAILABLE};

/// How long a try waits for its locks: the application's own statements wait behind it. Less than the second after
/// which PostgreSQL looks for deadlocks, so that it is never an application's transaction that has to give way.
pub(super) const CHANGE_WITHIN: Duration = Duration::from_millis(500);
const TRIES: u32 = 4;
const BETWEEN_TRIES: Duration = Duration::from_millis(200);
/// Two that install or remove at once do so one after the other.
const ONE_AT_A_TIME: &str = "select pg_advisory_xact_lock(hashtext('recents.capture'))";

/// Before a statement of a change that takes so many locks: all of them together wait no longer than one may.
pub(super) fn within_time(locks: usize) -> String {
    format!(
        "select set_config('lock_timeout', greatest(1, (least(1, extract(epoch from
           current_setting('deadlock_timeout')::interval)) * {} - 1000 * extract(epoch from clock_timestamp()
           - transaction_timestamp())) / {locks})::int::text, true);\n",
        CHANGE_WITHIN.as_millis()
    )
}

/// Begins a change.
pub(super) async fn begin(pool: &PgPool) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    let mut tx = outbox::begin(pool).await?;
    sqlx::raw_sql(AssertSqlSafe(within_time(1)))
        .execute(&mut *tx)
        .await?;
    sqlx::query(ONE_AT_A_TIME).execute(&mut *tx).await?;
    Ok(tx)
}

/// Longer than it takes until PostgreSQL looks for deadlocks: then it ends an autovacuum that somebody waits for.
const UNTIL_VACUUM_ENDS: &str = "select set_config('lock_timeout', (1000
    + 1000 * extract(epoch from current_setting('deadlock_timeout')::interval))::int::text, true)";

/// Has PostgreSQL end autovacuums of these tables, which may take minutes. In a mode that keeps nobody from writing,
/// one table after the other and without any other lock, so that nobody can wait for this.
async fn end_vacuums(pool: &PgPool, tables: &[String]) -> Result<(), sqlx::Error> {
    for table in tables {
        let lock =
            format!("{UNTIL_VACUUM_ENDS}; lock table only {table} in share update exclusive mode");
        let mut tx = outbox::begin(pool).await?;
        sqlx::raw_sql(AssertSqlSafe(lock)).execute(&mut *tx).await?;
    }
    Ok(())
}

/// Tries again where a lock of one of these tables was not to be had.
pub(super) async fn patiently<T>(
    pool: &PgPool,
    tables: &[String],
    mut once: impl AsyncFnMut() -> Result<T, sqlx::Error>,
) -> Result<T, sqlx::Error> {
    for _ in 1..TRIES {
        match once().await {
            Err(error) if sqlstate::is(&error, LOCK_NOT_AVAILABLE) => {
                // What fails of this, as where the role may not, keeps from nothing.
                let _ = end_vacuums(pool, tables).await;
                tokio::time::sleep(BETWEEN_TRIES).await;
            }
            done => return done,
        }
    }
    once().await
}
