//! The re-syncs of a running service: whichever replica comes first takes one that waits for a worker, or
//! whose worker is gone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use super::backfill::identity_of;
use super::resync::{self, With};
use super::{JobError, Outcome, hold};
use crate::config::HistoryConfig;
use crate::history::{self, HistoryError};
use crate::store::Store;
use crate::store::job::{self, End};
use crate::telemetry::{Metrics, Repeated, chain};

/// How often it is looked for a job of another replica: what taking one over costs beyond its lease.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// After the history or the table failed.
const FAILED: Duration = Duration::from_secs(2);
/// How often finished jobs are pruned, beside each start of one.
const PRUNE_EVERY: Duration = Duration::from_secs(3_600);

/// What the service needs.
#[derive(Debug, Clone)]
pub struct Needs {
    /// The table.
    pub store: Store,
    /// The history; without one there is nothing to re-sync from.
    pub history: Option<HistoryConfig>,
    /// Where it is counted.
    pub metrics: Arc<Metrics>,
    /// A query that says true while the history's database is unwell.
    pub pause_while: Option<String>,
    /// Says that a job was asked for.
    pub asked: Arc<Notify>,
}

/// Works at one job after the other until `stop` turns true; then it lets go of its job, so that another
/// replica goes on with it at once.
pub async fn run(needs: Needs, mut stop: watch::Receiver<bool>) {
    let (mut with, mut pruned) = (None, None::<Instant>);
    let mut said = Repeated::default();
    while !*stop.borrow() {
        if pruned.is_none_or(|at| at.elapsed() > PRUNE_EVERY) {
            pruned = Some(Instant::now());
            hold::prune(&needs.store).await;
        }
        let pause = match work_at_one(&needs, &mut with, &mut stop).await {
            Ok(true) => {
                said.well();
                continue;
            }
            Ok(false) => {
                said.well();
                LOOK_EVERY
            }
            Err(error) => {
                let error = chain(&error);
                if said.is_news(&error) {
                    tracing::warn!(error, "no re-sync can be worked at now; trying again");
                }
                FAILED
            }
        };
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => {}
            () = needs.asked.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
    if let Some(With { history, .. }) = with {
        history.close().await;
    }
}

/// Works at the next job; returns whether there was one.
async fn work_at_one(
    needs: &Needs,
    with: &mut Option<With>,
    stop: &mut watch::Receiver<bool>,
) -> Result<bool, JobError> {
    let Some(config) = &needs.history else {
        return Ok(false);
    };
    if !job::any_waits(&needs.store).await? {
        return Ok(false);
    }
    let with = match with {
        Some(with) => with,
        None => with.insert(connect(needs, config).await?),
    };
    let source = identity_of(&with.history).await?;
    let Some(job) = job::take_next(&needs.store, &source).await? else {
        return Ok(false);
    };
    let id = job.fence.id.clone();
    tracing::info!(job = id, "a re-sync begins, or goes on");
    match resync::work(with, job, stop, End::Queued, &mut |_| ()).await {
        Ok((Outcome::Complete, report)) => {
            let (changes, unmappable) = (&report.changes, report.unmappable);
            tracing::info!(job = id, ?changes, unmappable, "the re-sync is done");
        }
        Ok((outcome, _)) => tracing::info!(job = id, ?outcome, "the re-sync was stopped"),
        Err(error) => {
            let error = chain(&error);
            tracing::error!(error, job = id, "the re-sync failed");
        }
    }
    Ok(true)
}

async fn connect(needs: &Needs, config: &HistoryConfig) -> Result<With, HistoryError> {
    Ok(With {
        store: needs.store.clone(),
        history: Arc::new(history::connect(config).await?),
        metrics: Some(Arc::clone(&needs.metrics)),
        pause_while: needs.pause_while.clone(),
        settles: false,
    })
}
