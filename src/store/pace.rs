//! How far apart writes are kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::Row;

use super::{Store, StoreError};

/// Where a transaction is open for longer than this, vacuum stands still, and a hot row's dead
/// versions pile up …
const OLD_TRANSACTION: Duration = Duration::from_secs(10);
/// … so writes are kept this far apart: each has one version of a row, whatever was folded into it.
const SPACED: Duration = Duration::from_millis(100);

/// Whether writes are kept apart, because an old transaction holds back vacuum. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Pace(Arc<AtomicBool>);

impl Pace {
    /// The least time between the starts of two writes.
    pub fn least(&self) -> Duration {
        match self.0.load(Ordering::Relaxed) {
            true => SPACED,
            false => Duration::ZERO,
        }
    }

    /// Looks for an old transaction, as far as the role may see it. SQLite has no dead versions.
    ///
    /// # Errors
    /// Where the database does not answer; the pace stays.
    pub async fn look(&self, store: &Store) -> Result<(), StoreError> {
        let Store::Postgres(pool, _) = store else {
            return Ok(());
        };
        let age = sqlx::query(
            "select extract(epoch from max(clock_timestamp() - xact_start))::float8
             from pg_stat_activity where backend_xmin is not null and datname = current_database()",
        );
        let seconds: Option<f64> = age.fetch_one(pool).await?.try_get(0)?;
        let is_old = seconds.is_some_and(|seconds| seconds > OLD_TRANSACTION.as_secs_f64());
        if self.0.swap(is_old, Ordering::Relaxed) != is_old {
            match is_old {
                true => tracing::warn!(
                    seconds,
                    "an old transaction holds back vacuum; until it ends, writes are kept apart"
                ),
                false => tracing::info!("the old transaction ended"),
            }
        }
        Ok(())
    }
}
