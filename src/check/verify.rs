//! Verify: both checks, over everything or over one workspace.

use std::collections::HashSet;
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

/// How much of a history is taken at once.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Runs of a window at the most.
    pub window_runs: u32,
    /// Memory of the uses that wait to be compared.
    pub fold_bytes: usize,
    /// Memory of the keys that were named as differing.
    pub named_bytes: usize,
}

impl Default for Limits {
    /// Within 100 MiB with all that is read ahead; a hundred thousand differences are remembered.
    fn default() -> Self {
        Self {
            window_runs: windows::RUNS,
            fold_bytes: 24 * 1024 * 1024,
            named_bytes: 8 * 1024 * 1024,
        }
    }
}

/// What a verify saw.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Runs of the history.
    pub tally: Tally,
    /// Rows of the table.
    pub rows: u64,
    /// Differences.
    pub differences: u64,
    /// Whether some of them may be among them more than once: there were more than could be remembered.
    pub at_most: bool,
    /// Those of them that notes are about which nobody works off: they are looked at again when somebody does,
    /// and were computed again where differences are mended.
    pub waiting: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// Runs that cannot be mapped. A row that names one is not known to differ.
    pub unmappable: Unmappable,
}

/// Holds the table against the history: every row supported, every row complete. Each difference is
/// handed to `differs`, and with `mend` its row is computed again. `progress` hears of every
/// stretch. What is held in memory is within `limits`, whatever the history's size.
///
/// # Errors
/// [`CheckError`] where either side fails, or `differs` does.
pub async fn verify(
    store: &Store,
    history: &Arc<History>,
    workspace: Option<&Id>,
    mend: bool,
    limits: Limits,
    mut differs: impl FnMut(&Difference) -> std::io::Result<()>,
    mut progress: impl FnMut(&Summary),
) -> Result<Summary, CheckError> {
    let started = Instant::now();
    let mut summary = Summary::default();
    let unmappable = summary.unmappable.clone();
    let mut found = async |found: Found, summary: &mut Summary| {
        summary.waiting += found.waiting.len() as u64;
        let differences = found.all();
        summary.differences += differences.len() as u64;
        summary.elapsed = started.elapsed();
        for difference in &differences {
            differs(difference).map_err(CheckError::Output)?;
        }
        if mend {
            let keys: Vec<_> = differences.into_iter().map(|differs| differs.key).collect();
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

    let stretches = stretches(history, workspace, limits.window_runs, &unmappable);
    let Some(mut stretches) = stretches.await? else {
        passed(store, &summary, mend).await;
        return Ok(summary);
    };
    let mut named = Named::within(limits.named_bytes);
    loop {
        let next = stretches.next().await?;
        let end = next.is_none();
        if let Some(stretch) = next {
            summary.tally.add(&stretch.tally);
        }
        if end || stretches.gathered.bytes() > limits.fold_bytes {
            let uses = stretches.gathered.take().into_sorted();
            let mut checked = complete::check(store, history, &uses, &unmappable).await?;
            // What was mended and differs again is another difference.
            if !mend {
                summary.at_most |= named.is_full && !checked.is_empty();
                for differences in [&mut checked.differences, &mut checked.waiting] {
                    differences.retain(|differs| named.is_new(&differs.key));
                }
            }
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

/// What a named key costs beside its text.
const NAMED_BYTES: usize = 48;

/// Keys that were named as differing: one that is in several folds is named once.
struct Named {
    keys: HashSet<Key>,
    room: usize,
    /// Whether some could not be remembered.
    is_full: bool,
}

impl Named {
    fn within(bytes: usize) -> Self {
        Self {
            keys: HashSet::new(),
            room: bytes,
            is_full: false,
        }
    }

    /// Whether it was not named before, as far as that is remembered.
    fn is_new(&mut self, key: &Key) -> bool {
        if self.keys.contains(key) {
            return false;
        }
        match self.room.checked_sub(key.heap_bytes() + NAMED_BYTES) {
            Some(room) => {
                self.room = room;
                self.keys.insert(key.clone());
            }
            None => self.is_full = true,
        }
        true
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
    if (summary.differences == 0 || mend)
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
    window_runs: u32,
    unmappable: &Unmappable,
) -> Result<Option<Stretches>, HistoryError> {
    let (history, unmappable) = (Arc::clone(history), unmappable.clone());
    if let Some(workspace) = workspace {
        let workspace = Some(workspace.as_str().to_owned());
        return Ok(Some(one_pass(history, workspace, unmappable)));
    }
    let last = history.last_key().await?;
    Ok(last.map(|last| windows::walk(history, None, last, window_runs, unmappable)))
}
