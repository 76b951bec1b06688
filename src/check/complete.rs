//! The complete-check: no use of the history is greater than its row.

use super::look::{self, LOOK_AGAIN_AFTER, Notes, Suspects};
use super::{CheckError, Difference, Found, Kind, Reason};
use crate::capture::{Touched, settled};
use crate::history::{History, Unmappable};
use crate::model::{Key, Newest};
use crate::store::recent::{self, MAX_KEYS, Outdone};
use crate::store::{Store, with_retries};

/// Compares uses (sorted by key, each the greatest of its key in a part of the history) with their
/// rows. What differs is looked at again, run and row, before it counts.
pub(crate) async fn check(
    store: &Store,
    history: &History,
    uses: &[(Key, Newest)],
    unmappable: &Unmappable,
) -> Result<Found, CheckError> {
    let seen = outdone(store, uses).await?;
    confirm(store, history, seen, unmappable).await
}

/// The uses that are greater than their rows.
pub(super) async fn outdone(
    store: &Store,
    uses: &[(Key, Newest)],
) -> Result<Vec<Outdone>, CheckError> {
    let mut outdone = Vec::new();
    for chunk in uses.chunks(MAX_KEYS) {
        outdone.extend(with_retries(|| recent::outdone(store, chunk)).await?);
    }
    Ok(outdone)
}

/// Looks again at what was seen, until it persists or goes.
pub(super) async fn confirm(
    store: &Store,
    history: &History,
    seen: Vec<Outdone>,
    unmappable: &Unmappable,
) -> Result<Found, CheckError> {
    let mut suspects = Suspects::new(seen);
    while let Some(open) = suspects.open() {
        tokio::time::sleep(LOOK_AGAIN_AFTER).await;
        // What changed meanwhile has notes: it is for the drain to see, not a difference.
        let worked_off = settled(store, history).await?;
        let mut asked = Touched::default();
        for outdone in &open {
            asked.ask(&outdone.key, outdone.newest.run.as_deref());
        }
        let touched = asked.by_notes(store, history).await?;
        let seen = look_again(store, history, &open, unmappable).await?;
        suspects.saw(seen, |outdone| {
            let run = outdone.newest.run.as_deref();
            Notes::of(touched.is(&outdone.key, run), worked_off)
        });
    }
    let difference = |outdone: Outdone| {
        let (kind, reason) = match outdone.row {
            Some(_) => (Kind::Stale, Reason::NewerUse),
            None => (Kind::Missing, Reason::NoRow),
        };
        Difference {
            kind,
            reason,
            key: outdone.key,
            history: Some(outdone.newest),
            table: outdone.row,
        }
    };
    let differences = |mut outdone: Vec<Outdone>| {
        outdone.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        outdone.into_iter().map(difference).collect()
    };
    let (persist, waiting) = suspects.decided();
    Ok(Found {
        differences: differences(persist),
        waiting: differences(waiting),
    })
}

/// Those that still differ: the use is still one, and the row still does not know it.
async fn look_again(
    store: &Store,
    history: &History,
    outdone: &[Outdone],
    unmappable: &Unmappable,
) -> Result<Vec<Outdone>, CheckError> {
    let mut still = Vec::new();
    for chunk in outdone.chunks(MAX_KEYS) {
        let said = look::at_runs(history, chunk.iter().map(|o| &o.newest), unmappable).await?;
        let uses: Vec<_> = chunk
            .iter()
            .filter(|o| said.confirm(&o.key, &o.newest))
            .map(|o| (o.key.clone(), o.newest.clone()))
            .collect();
        still.extend(with_retries(|| recent::outdone(store, &uses)).await?);
    }
    Ok(still)
}
