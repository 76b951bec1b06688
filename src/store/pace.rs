//! How far apart writes are kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sqlx::Row;

use super::vacuum::Vacuum;
use super::{Store, StoreError};

/// While a transaction is open, vacuum keeps every version of a row since it began, and a read of a hot
/// row's list walks them all. So writes are kept apart by this part of its age: each has one version of a
/// row, whatever was folded into it, and there are some hundreds of them however long it lasts …
const PART_OF_AGE: u32 = 20;
/// … and at the most so far.
const SPACED: Duration = Duration::from_millis(300);
/// So many writes since it began are not: whoever writes little waits for nothing.
const FREE: u64 = 20;
/// It is looked so often while much is written …
const LOOK_EVERY: Duration = Duration::from_millis(30);
/// … which is so many writes in that time.
const MUCH: u64 = 5;
/// One that is open for longer than this is worth a line in the log.
const OLD_TRANSACTION: Duration = Duration::from_secs(10);

/// Whether writes are kept apart, because a transaction that is open holds back vacuum. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Pace(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Microseconds.
    least: AtomicU64,
    is_old: AtomicBool,
    /// When the oldest transaction began, in microseconds since 1970, and writes since that was seen first.
    began: AtomicI64,
    since: AtomicU64,
    /// Writes since it was last looked, and when that was; locked while somebody looks.
    writes: AtomicU64,
    looked: Arc<tokio::sync::Mutex<Option<Instant>>>,
    vacuum: Vacuum,
}

impl Pace {
    /// The least time between the starts of two writes.
    pub fn least(&self) -> Duration {
        Duration::from_micros(self.0.least.load(Ordering::Relaxed))
    }

    /// Counts a write; where there were many, it is looked for a transaction, and sooner or later the table is
    /// vacuumed, both in the background.
    pub fn written(&self, store: &Store) {
        if self.least().is_zero() {
            // Behind an old transaction there is nothing to gain.
            self.0.vacuum.written(store);
        }
        self.0.since.fetch_add(1, Ordering::Relaxed);
        let writes = self.0.writes.fetch_add(1, Ordering::Relaxed);
        if writes < MUCH || !matches!(store, Store::Postgres(..)) {
            return;
        }
        let Ok(mut looked) = Arc::clone(&self.0.looked).try_lock_owned() else {
            return;
        };
        if looked.is_some_and(|at| at.elapsed() < LOOK_EVERY) {
            return;
        }
        *looked = Some(Instant::now());
        self.0.writes.store(0, Ordering::Relaxed);
        let (pace, store) = (self.clone(), store.clone());
        tokio::spawn(async move {
            // Where the database does not answer, whoever writes will hear of it.
            let _ = pace.look(&store).await;
            drop(looked);
        });
    }

    /// Looks for the oldest transaction, as far as the role may see it. SQLite has no dead versions.
    ///
    /// # Errors
    /// Where the database does not answer; the pace stays.
    pub async fn look(&self, store: &Store) -> Result<(), StoreError> {
        let Store::Postgres(pool, _) = store else {
            return Ok(());
        };
        let age = sqlx::query(
            "select extract(epoch from max(clock_timestamp() - xact_start))::float8,
                    (extract(epoch from min(xact_start)) * 1000000)::bigint
             from pg_stat_activity where backend_xmin is not null and datname = current_database()
               -- Vacuum keeps nothing from vacuum.
               and backend_type <> 'autovacuum worker'
               and pid not in (select pid from pg_stat_progress_vacuum)",
        );
        let row = age.fetch_one(pool).await?;
        let (seconds, began): (Option<f64>, Option<i64>) = (row.try_get(0)?, row.try_get(1)?);
        let began = began.unwrap_or(0);
        if self.0.began.swap(began, Ordering::Relaxed) != began {
            self.0.since.store(0, Ordering::Relaxed);
        }
        let age = Duration::from_secs_f64(seconds.unwrap_or(0.0).max(0.0));
        let least = match self.0.since.load(Ordering::Relaxed) {
            0..FREE => Duration::ZERO,
            _ => (age / PART_OF_AGE).min(SPACED),
        };
        let micros = u64::try_from(least.as_micros()).unwrap_or(u64::MAX);
        self.0.least.store(micros, Ordering::Relaxed);
        let is_old = age > OLD_TRANSACTION;
        if self.0.is_old.swap(is_old, Ordering::Relaxed) != is_old {
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
