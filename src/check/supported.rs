//! The supported-check: the run that a row names still maps to exactly this row.

use std::collections::HashMap;

use super::look::{self, LOOK_AGAIN_AFTER, Suspects};
use super::{CheckError, Difference, Kind};
use crate::capture::settled;
use crate::history::History;
use crate::model::Key;
use crate::store::recent::{self, MAX_KEYS, RecentRow};
use crate::store::{Store, with_retries};

/// Checks rows of the table. What differs is looked at again, run and row, before it counts; rows
/// that are older than the history says are the complete-check's to report.
pub(super) async fn check(
    store: &Store,
    history: &History,
    rows: Vec<RecentRow>,
) -> Result<Vec<Difference>, CheckError> {
    let mut suspects = Suspects::new(unsupported(history, rows).await?);
    while let Some(open) = suspects.open() {
        tokio::time::sleep(LOOK_AGAIN_AFTER).await;
        // What changed meanwhile has notes: it is for the drain to see, not a difference.
        settled(store, history).await?;
        let mut now = Vec::new();
        for chunk in open.chunks(MAX_KEYS) {
            let keys = || chunk.iter().map(|(key, _)| key);
            now.extend(with_retries(|| recent::rows_of_keys(store, keys())).await?);
        }
        suspects.saw(unsupported(history, now).await?);
    }
    let mut unsupported = suspects.persist();
    unsupported.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    if unsupported.is_empty() {
        return Ok(Vec::new());
    }
    let mut best: HashMap<Key, _> =
        look::at_keys(history, unsupported.iter().map(|(key, _)| key)).await?;
    let differences = unsupported.into_iter().filter_map(|(key, row)| {
        let history = best.remove(&key);
        let kind = match &history {
            None => Kind::Extra,
            Some(best) if *best < row => Kind::Ahead,
            // Equal: it changed while we looked. Greater: the complete-check's.
            Some(_) => return None,
        };
        Some(Difference {
            kind,
            key,
            history,
            table: Some(row),
        })
    });
    Ok(differences.collect())
}

async fn unsupported(
    history: &History,
    rows: Vec<RecentRow>,
) -> Result<Vec<RecentRow>, CheckError> {
    let said = look::at_runs(history, rows.iter().map(|(_, newest)| newest)).await?;
    Ok(rows
        .into_iter()
        .filter(|(key, newest)| !said.support(key, newest))
        .collect())
}
