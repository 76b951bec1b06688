//! The drain of a running service: polls often while there is something to do, seldom while not.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::Row;

use super::drain::{Drain, Step};
use super::outbox;
use crate::config::HistoryConfig;
use crate::history::{self, History};
use crate::store::{Store, note};
use crate::telemetry::Metrics;

/// The next look after work was done: bounds how long a change stays unseen under load, against what
/// small batches cost.
const BUSY: Duration = Duration::from_millis(25);
/// The next look after long silence: bounds how long the first change after it stays unseen, and what
/// an idle service costs, four times two look-ups a second.
const IDLE: Duration = Duration::from_millis(250);
/// After a failure.
const FAILED: Duration = Duration::from_secs(2);
/// How often the backlog is counted, and looked whether capture is installed.
const COUNT_EVERY: Duration = Duration::from_secs(5);
/// Where a transaction of the application is open for longer than this, vacuum stands still …
const OLD_TRANSACTION: Duration = Duration::from_secs(10);
/// … and writes are kept this far apart, so that fewer dead versions of hot rows pile up.
const SPACED: Duration = Duration::from_millis(100);

/// Drains until it is dropped. Connects to the history as soon as it answers.
pub async fn run(store: Store, config: HistoryConfig, metrics: Arc<Metrics>) {
    let history = loop {
        match history::connect(&config).await {
            Ok(history) => break Arc::new(history),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "the history cannot be followed yet; trying again");
                tokio::time::sleep(FAILED).await;
            }
        }
    };
    let mut drain = Drain::new(
        store.clone(),
        Arc::clone(&history),
        Some(Arc::clone(&metrics)),
    );
    let (mut looked, mut pause) = (None::<Instant>, BUSY);
    let (mut installed, mut least) = (false, BUSY);
    loop {
        if looked.is_none_or(|at| at.elapsed() > COUNT_EVERY) {
            looked = Some(Instant::now());
            match count(&store, &history, &metrics).await {
                Ok(there) => installed = there,
                Err(error) => tracing::debug!(error, "the backlog was not counted"),
            }
            least = match oldest_transaction(&store).await {
                Some(age) if age > OLD_TRANSACTION => SPACED,
                _ => BUSY,
            };
        }
        pause = match drain.step(installed).await {
            Ok(Step::Worked) => least,
            Ok(Step::Idle) => (pause * 2).clamp(least, IDLE),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "notes could not be worked off; trying again");
                FAILED
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Tells the metrics what waits; returns whether capture is installed.
async fn count(store: &Store, history: &History, metrics: &Metrics) -> Result<bool, String> {
    let installed = outbox::exists(history).await.map_err(|e| e.to_string())?;
    let backlog = match installed {
        true => outbox::backlog(history).await.map_err(|e| e.to_string())?,
        false => outbox::Backlog::default(),
    };
    let standing = note::standing(store).await.map_err(|e| e.to_string())?;
    let waiting = standing.notes.saturating_sub(standing.set_aside);
    metrics
        .capture_backlog_rows
        .set(backlog.rows + i64::try_from(waiting).unwrap_or(i64::MAX));
    metrics.capture_lag.set(backlog.lag.as_secs_f64());
    Ok(installed)
}

/// The age of the oldest transaction that holds back vacuum, as far as the role may see it.
async fn oldest_transaction(store: &Store) -> Option<Duration> {
    let Store::Postgres(pool) = store else {
        return None;
    };
    let age = sqlx::query(
        "select extract(epoch from max(clock_timestamp() - xact_start))::float8
         from pg_stat_activity where backend_xmin is not null and datname = current_database()",
    );
    let row = age.fetch_one(pool).await.ok()?;
    let seconds: Option<f64> = row.try_get(0).ok()?;
    Duration::try_from_secs_f64(seconds?).ok()
}
