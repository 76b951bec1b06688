//! Verify: both checks, over everything or over one workspace.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{CheckError, Difference, Found, complete, supported};
use crate::capture::drain::Drain;
use crate::history::{History, HistoryError, Stretches, Tally, Unmappable, one_pass, windows};
use crate::model::{Id, Key};
use crate::store::{Store, StoreError, audit, note, recent, with_retries};
use crate::telemetry::chain;

/// Rows of the table that are checked together.
const ROWS: u32 = 10_000;
/// Memory of the uses that wait to be compared.
const FOLD_BYTES: usize = 24 * 1024 * 1024;

/// What a verify saw.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Runs of the history.
    pub tally: Tally,
    /// Rows of the table.
    pub rows: u64,
    /// Differences that no note is about.
    pub differences: u64,
    /// Rows that differ because of notes which nobody works off: those are looked at again when somebody
    /// does, and were computed again where differences are mended.
    pub waiting: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// Runs that cannot be mapped. A row that names one is not known to differ.
    pub unmappable: Unmappable,
}

/// Holds the table against the history: every row supported, every row complete. Each difference is
/// handed to `differs`, and with `mend` its row is computed again. A row that a waiting note is about is only
/// counted: it may be right as soon as somebody works that off. `progress` hears of every
/// stretch.
///
/// # Errors
/// [`CheckError`] where either side fails, or `differs` does.
pub async fn verify(
    store: &Store,
    history: &Arc<History>,
    workspace: Option<&Id>,
    mend: bool,
    mut differs: impl FnMut(&Difference) -> std::io::Result<()>,
    mut progress: impl FnMut(&Summary),
) -> Result<Summary, CheckError> {
    let started = Instant::now();
    let mut summary = Summary::default();
    let unmappable = summary.unmappable.clone();
    let mut found = async |found: Found, summary: &mut Summary| {
        summary.differences += found.differences.len() as u64;
        summary.waiting += found.waiting.len() as u64;
        summary.elapsed = started.elapsed();
        for difference in &found.differences {
            differs(difference).map_err(CheckError::Output)?;
        }
        if mend {
            let differences = found.all().into_iter();
            let keys: Vec<_> = differences.map(|differs| differs.key).collect();
            compute_again(store, history, &keys).await?;
        }
        Ok::<_, CheckError>(())
    };

    let mut after = None;
    loop {
        let rows =
            with_retries(|| recent::rows_after(store, workspace, after.as_ref(), ROWS)).await?;
        let Some((last, _)) = rows.last() else { break };
        after = Some(last.clone());
        summary.rows += rows.len() as u64;
        let checked = supported::check(store, history, rows, &unmappable).await?;
        found(checked, &mut summary).await?;
        progress(&summary);
    }

    let Some(mut stretches) = stretches(history, workspace, &unmappable).await? else {
        passed(store, &summary, mend).await;
        return Ok(summary);
    };
    loop {
        let next = stretches.next().await?;
        let end = next.is_none();
        if let Some(stretch) = next {
            summary.tally.add(&stretch.tally);
        }
        if end || stretches.gathered.bytes() > FOLD_BYTES {
            let uses = stretches.gathered.take().into_sorted();
            let checked = complete::check(store, history, &uses, &unmappable).await?;
            found(checked, &mut summary).await?;
        }
        progress(&summary);
        if end {
            if workspace.is_none() {
                passed(store, &summary, mend).await;
            }
            summary.elapsed = started.elapsed();
            return Ok(summary);
        }
    }
}

/// Has the rows of these keys computed again.
async fn compute_again(
    store: &Store,
    history: &Arc<History>,
    keys: &[Key],
) -> Result<(), CheckError> {
    note_again(store, keys).await?;
    let mut drain = Drain::new(store.clone(), Arc::clone(history), None);
    drain.settle_all().await
}

/// Says that all was looked at, and is right or about to be. Who may only read proves it all the same.
async fn passed(store: &Store, summary: &Summary, mend: bool) {
    if (summary.differences + summary.waiting == 0 || mend)
        && let Err(error) = audit::passed(store).await
    {
        let error = chain(&error);
        tracing::warn!(error, "that everything was looked at could not be stored");
    }
}

/// Notes rows, so that a drain computes them again.
pub(super) async fn note_again(store: &Store, keys: &[Key]) -> Result<(), StoreError> {
    for chunk in keys.chunks(recent::MAX_KEYS) {
        with_retries(async || {
            let mut tx = store.begin().await?;
            note::keys(tx.conn(), chunk).await?;
            tx.commit().await
        })
        .await?;
    }
    Ok(())
}

/// The uses to check; `None` for a history without a single run.
async fn stretches(
    history: &Arc<History>,
    workspace: Option<&Id>,
    unmappable: &Unmappable,
) -> Result<Option<Stretches>, HistoryError> {
    let (history, unmappable) = (Arc::clone(history), unmappable.clone());
    if let Some(workspace) = workspace {
        let workspace = Some(workspace.as_str().to_owned());
        return Ok(Some(one_pass(history, workspace, unmappable)));
    }
    let last = history.last_key().await?;
    Ok(last.map(|last| windows::walk(history, None, last, windows::MAX_RUNS, unmappable)))
}
