//! A backfill that only tells.

use std::time::Instant;

use tokio::sync::watch;

use super::{Event, JobError, Origin, Outcome, Report};
use crate::store::Store;
use crate::store::recent::{self, MAX_KEYS};

/// Reads everything and counts the rows that would change, writing nothing. Where the uses do not
/// fit into `fold_bytes` of memory at once, a row may be counted more than once: [`Report::at_most`].
///
/// # Errors
/// [`JobError`].
pub async fn dry_run(
    store: &Store,
    origin: Origin,
    fold_bytes: usize,
    mut stop: watch::Receiver<bool>,
    mut tell: impl FnMut(Event),
) -> Result<(Outcome, Report), JobError> {
    let (started, total) = (Instant::now(), origin.total().await?);
    let mut report = Report {
        total,
        ..Report::default()
    };
    let range_end = origin.last_key().await?;
    let Some(mut stretches) = origin.stretches(None, range_end, &report.unmappable) else {
        return Ok((Outcome::Complete, report));
    };
    let mut flushes = 0;
    loop {
        let next = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return Ok((Outcome::Stopped, report)),
            next = stretches.next() => next?,
        };
        let end = next.is_none();
        if let Some(stretch) = next {
            report.tally.add(&stretch.tally);
        }
        if end || stretches.gathered.bytes() > fold_bytes {
            let uses = stretches.gathered.take().into_sorted();
            flushes += u32::from(!uses.is_empty());
            for chunk in uses.chunks(MAX_KEYS) {
                report.applied += recent::outdone(store, chunk).await?.len() as u64;
            }
        }
        report.at_most = flushes > 1 && report.applied > 0;
        report.scanned_now = report.tally.scanned;
        report.elapsed = started.elapsed();
        tell(Event::Progress(report.clone()));
        if end {
            return Ok((Outcome::Complete, report));
        }
    }
}
