//! One flush: the queued requests' uses, folded, in one statement.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Fold, Pending, RecordError, Recorded, Recording};
use crate::model::{Key, Newest};
use crate::store::note;
use crate::store::recent::{self, MAX_KEYS};
use crate::store::{Store, StoreError, Token, with_retries};
use crate::telemetry::{Metrics, Outage, chain, metrics::Source};

/// A database that says nothing for so long, not even that the statement took too long, is gone:
/// the flushes behind this one must not wait for it for ever.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(20);

/// Where uses are written.
pub(super) struct Table {
    pub(super) store: Store,
    pub(super) how: Recording,
    pub(super) outage: Outage,
}

/// Requests that are written together.
pub(super) struct Batch {
    requests: Vec<Pending>,
    fold: Fold,
}

impl Batch {
    pub(super) fn new(first: Pending) -> Self {
        let mut fold = Fold::default();
        fold_in(&mut fold, &first);
        Self {
            requests: vec![first],
            fold,
        }
    }

    /// Adds a request, or hands it back where the statement would get too large.
    pub(super) fn add(&mut self, pending: Pending) -> Result<(), Pending> {
        let new = keys_of(&pending)
            .filter(|(key, _)| !self.fold.contains(key))
            .count();
        if self.fold.len() + new > MAX_KEYS {
            return Err(pending);
        }
        fold_in(&mut self.fold, &pending);
        self.requests.push(pending);
        Ok(())
    }

    /// Writes the batch and answers every request.
    pub(super) async fn write(self, table: &Table, metrics: &Metrics) {
        let started = Instant::now();
        write(self.requests, self.fold, table, metrics).await;
        metrics
            .record_flush_seconds
            .observe(started.elapsed().as_secs_f64());
    }
}

fn keys_of(pending: &Pending) -> impl Iterator<Item = (&Key, &Newest)> {
    pending.entries.iter().flat_map(|entry| {
        let keys = [Some(&entry.workspace_list), entry.user_list.as_ref()];
        keys.into_iter().flatten().map(|key| (key, &entry.newest))
    })
}

fn fold_in(fold: &mut Fold, pending: &Pending) {
    for (key, newest) in keys_of(pending) {
        fold.raise(key, newest);
    }
}

/// Writes requests together; where the database refuses a value of one of them, the halves apart,
/// until it stands alone.
async fn write(mut requests: Vec<Pending>, fold: Fold, table: &Table, metrics: &Metrics) {
    let uses = fold.into_sorted();
    metrics.record_batch_rows.observe(uses.len() as f64);
    match with_retries(|| raise(table, &uses)).await {
        Ok(raised) => {
            let token = table.store.token().await;
            answer(requests, &uses, &raised, &token, metrics);
        }
        Err(StoreError::Refused(_)) if requests.len() > 1 => {
            let rest = requests.split_off(requests.len() / 2);
            for half in [requests, rest] {
                let mut fold = Fold::default();
                half.iter().for_each(|pending| fold_in(&mut fold, pending));
                Box::pin(write(half, fold, table, metrics)).await;
            }
        }
        Err(error) => {
            if table.outage.is_news(&error) {
                tracing::error!(
                    error = chain(&error),
                    requests = requests.len(),
                    rows = uses.len(),
                    "uses were not recorded"
                );
            }
            let error = Arc::new(error);
            for request in requests {
                metrics.count_runs(Source::Hook, "rejected", request.entries.len() as u64);
                // A client that went away hears nothing.
                let _ = request
                    .done
                    .send(Err(RecordError::Store(Arc::clone(&error))));
            }
        }
    }
}

async fn raise(table: &Table, uses: &[(Key, Newest)]) -> Result<Vec<Key>, StoreError> {
    let raise = async {
        if !table.how.noting {
            return recent::raise_alone(&table.store, uses).await;
        }
        let mut tx = table.store.begin().await?;
        let raised = note::raise(&mut tx, uses).await?;
        tx.commit().await?;
        Ok(raised)
    };
    let raised = tokio::time::timeout(FLUSH_TIMEOUT, raise).await;
    raised.unwrap_or(Err(StoreError::Unavailable(sqlx::Error::PoolTimedOut)))
}

/// Tells each request which of its uses changed the workspace's list.
fn answer(
    requests: Vec<Pending>,
    uses: &[(Key, Newest)],
    raised: &[Key],
    token: &Token,
    metrics: &Metrics,
) {
    let written: HashMap<&Key, &Newest> = uses.iter().map(|(key, newest)| (key, newest)).collect();
    // What changed a row and is not yet counted for a use: of equal uses, the first applied.
    let mut unclaimed: HashMap<&Key, &Newest> = raised
        .iter()
        .filter(|key| key.is_workspace_list())
        .filter_map(|key| written.get_key_value(key))
        .map(|(key, newest)| (*key, *newest))
        .collect();
    let nothing = Recorded {
        applied: 0,
        superseded: 0,
        token: token.encode().into(),
    };
    let (mut applied, mut superseded) = (0, 0);
    let mut answers = Vec::with_capacity(requests.len());
    for request in requests {
        let mut recorded = nothing.clone();
        for entry in &request.entries {
            if unclaimed.get(&entry.workspace_list) == Some(&&entry.newest) {
                unclaimed.remove(&entry.workspace_list);
                recorded.applied += 1;
            } else {
                recorded.superseded += 1;
            }
        }
        applied += recorded.applied;
        superseded += recorded.superseded;
        answers.push((request, recorded));
    }
    metrics.count_runs(Source::Hook, "applied", applied);
    metrics.count_runs(Source::Hook, "superseded", superseded);
    for (request, recorded) in answers {
        let _ = request.done.send(Ok(recorded));
    }
}
