//! The supported-check: the run that a row names still maps to exactly this row.

use super::look::{self, LOOK_AGAIN_AFTER, LeftOut, Notes, Suspects};
use super::{CheckError, Difference, Found, Kind, Reason};
use crate::capture::{Touched, settled};
use crate::history::{History, Unmappable};
use crate::store::recent::{self, MAX_KEYS, RecentRow};
use crate::store::{Store, dismissal, with_retries};

/// Checks rows of the table. What differs is looked at again, run and row, before it counts; rows
/// that are older than the history says are the complete-check's to report. Of a row whose run cannot be
/// mapped, nothing is known.
pub(crate) async fn check(
    store: &Store,
    history: &History,
    rows: Vec<RecentRow>,
    unmappable: &Unmappable,
) -> Result<Found, CheckError> {
    let seen = unsupported(store, history, rows, unmappable).await?;
    let (persist, waiting) = persistent(store, history, seen, unmappable).await?;
    Ok(Found {
        differences: named(history, persist, unmappable).await?,
        waiting: named(history, waiting, unmappable).await?,
    })
}

/// Rows that are not supported, each with the reason.
type Unsupported = Vec<(RecentRow, Reason)>;

/// Looks again at what was seen, until it persists or goes; gives what persists, and what waits for notes
/// to be worked off.
pub(super) async fn persistent(
    store: &Store,
    history: &History,
    seen: Unsupported,
    unmappable: &Unmappable,
) -> Result<(Unsupported, Unsupported), CheckError> {
    let mut suspects = Suspects::new(seen);
    while let Some(open) = suspects.open() {
        tokio::time::sleep(LOOK_AGAIN_AFTER).await;
        // What changed meanwhile has notes: it is for the drain to see, not a difference.
        let worked_off = settled(store, history).await?;
        let mut asked = Touched::default();
        for ((key, row), _) in &open {
            asked.ask(key, row.run.as_deref());
        }
        let touched = asked.by_notes(store, history).await?;
        let mut now = Vec::new();
        for chunk in open.chunks(MAX_KEYS) {
            let keys = || chunk.iter().map(|((key, _), _)| key);
            now.extend(with_retries(|| recent::rows_of_keys(store, keys())).await?);
        }
        let seen = unsupported(store, history, now, unmappable).await?;
        suspects.saw(seen, |((key, row), _)| {
            Notes::of(touched.is(key, row.run.as_deref()), worked_off)
        });
    }
    Ok(suspects.decided())
}

/// How these rows differ. Where no index serves, this reads the whole history.
pub(super) async fn named(
    history: &History,
    mut unsupported: Vec<(RecentRow, Reason)>,
    unmappable: &Unmappable,
) -> Result<Vec<Difference>, CheckError> {
    unsupported.sort_unstable_by(|((a, _), _), ((b, _), _)| a.cmp(b));
    if unsupported.is_empty() {
        return Ok(Vec::new());
    }
    let keys = unsupported.iter().map(|((key, _), _)| key);
    let found = look::at_keys(history, keys, LeftOut::Found(unmappable)).await?;
    let mut best = found.newest;
    let differences = unsupported.into_iter().filter_map(|((key, row), reason)| {
        let history = best.remove(&key);
        let kind = match &history {
            None => Kind::Extra,
            Some(best) if *best < row => Kind::Ahead,
            // Equal: it changed while we looked. Greater: the complete-check's.
            Some(_) => return None,
        };
        Some(Difference {
            kind,
            reason,
            key,
            history,
            table: Some(row),
        })
    });
    Ok(differences.collect())
}

/// Those of these rows that are not supported, each with the reason. A hidden one is left out: it outdoes
/// only what is hidden too, and is swept sooner or later. A better use of its key that is hidden as well
/// is never written in its place.
pub(crate) async fn unsupported(
    store: &Store,
    history: &History,
    rows: Vec<RecentRow>,
    unmappable: &Unmappable,
) -> Result<Vec<(RecentRow, Reason)>, CheckError> {
    let said = look::at_runs(history, rows.iter().map(|(_, newest)| newest), unmappable).await?;
    let denied = rows.into_iter().filter_map(|row| {
        let reason = said.deny(&row.0, &row.1)?;
        Some((row, reason))
    });
    let denied: Vec<_> = denied.collect();
    let mut visible = Vec::new();
    for chunk in denied.chunks(MAX_KEYS) {
        let keys = || chunk.iter().map(|((key, _), _)| key);
        let until = with_retries(|| dismissal::of_keys(store, keys())).await?;
        let is_visible = |(key, row): &RecentRow| until.get(key) < Some(&row.last_used_at);
        visible.extend(chunk.iter().filter(|(row, _)| is_visible(row)).cloned());
    }
    Ok(visible)
}
