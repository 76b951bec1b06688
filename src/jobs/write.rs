//! Checkpoints: what was read goes into the table, then the cursor moves.

use serde::{Deserialize, Serialize};

use super::error::BackfillError;
use crate::history::{Stretch, Tally};
use crate::model::{Key, Newest};
use crate::record::Fold;
use crate::store::job::{Job, Lost};
use crate::store::note;
use crate::store::recent::{self, MAX_KEYS};
use crate::store::{Store, StoreError, with_retries};

/// What a job counted, as it is kept with it.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Counts {
    pub(super) tally: Tally,
    /// Rows that were inserted or raised.
    pub(super) applied: u64,
}

impl Counts {
    /// Of a job that goes on; counts that cannot be read begin anew, they are only shown.
    pub(super) fn of(job: &Job) -> Self {
        serde_json::from_str(&job.counts).unwrap_or_default()
    }
}

/// Where uses are written.
#[derive(Clone, Copy)]
pub(super) struct To<'a> {
    pub(super) store: &'a Store,
    /// Whether a note goes with every row that changes.
    pub(super) noting: bool,
}

/// Writes uses and moves the job's cursor behind the stretch whose uses are among them.
///
/// The rows come first, in transactions of their own: a crash between them and the cursor only
/// repeats what changes nothing. Each is fenced, and short, because the hook waits for its locks.
pub(super) async fn write(
    to: To<'_>,
    job: &mut Job,
    counts: &mut Counts,
    stretch: Stretch,
    uses: Fold,
) -> Result<(), BackfillError> {
    counts.tally.add(&stretch.tally);
    let uses = uses.into_sorted();
    for chunk in uses.chunks(MAX_KEYS) {
        let raised = with_retries(|| fenced_raise(to, job, chunk)).await?;
        counts.applied += raised.map_err(|Lost| BackfillError::LostLease)?;
    }
    job.cursor = stretch.cursor;
    save(to.store, job, counts).await
}

/// Keeps the job ours and writes down what was counted.
pub(super) async fn save(
    store: &Store,
    job: &mut Job,
    counts: &Counts,
) -> Result<(), BackfillError> {
    job.scanned = counts.tally.scanned;
    job.counts = serde_json::to_string(counts).unwrap_or_default();
    let job = &*job;
    let saved = with_retries(|| job.save(store)).await?;
    saved.map_err(|Lost| BackfillError::LostLease)
}

async fn fenced_raise(
    to: To<'_>,
    job: &Job,
    uses: &[(Key, Newest)],
) -> Result<Result<u64, Lost>, StoreError> {
    let mut tx = to.store.begin().await?;
    if let Err(lost) = job.fence(&mut tx).await? {
        return Ok(Err(lost));
    }
    let raised = match to.noting {
        true => note::raise(&mut tx, uses).await?,
        false => recent::raise(tx.conn(), uses).await?,
    };
    tx.commit().await?;
    Ok(Ok(raised.len() as u64))
}
