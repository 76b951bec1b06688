//! The rows of a re-sync: each is held against the run that it names.

use super::super::counts::Counts;
use super::super::{JobError, RESYNC};
use super::cursor::Cursor;
use super::worker::Worker;
use super::{Report, plan};
use crate::capture::apply::{Apply, Noted};
use crate::capture::write::Held;
use crate::check::supported;
use crate::history::{HistoryError, Tally};
use crate::model::Key;
use crate::store::job::PlanLine;
use crate::store::recent::{self, RecentRow};
use crate::store::with_retries;
use crate::telemetry::metrics::Source;

/// Rows that are looked at together, as verify does …
const ROWS: u32 = 10_000;
/// … and at the least, where the look-up of their runs takes too long.
const MIN_ROWS: u32 = 100;

impl<T: FnMut(Report)> Worker<'_, T> {
    /// The supported-check of every row.
    pub(super) async fn rows(&mut self) -> Result<(), JobError> {
        let store = &self.with.store;
        let mut batch = ROWS;
        loop {
            self.wait_until_well().await?;
            let after = match &self.cursor {
                Cursor::Rows(Some([workspace, uid, published_run])) => {
                    Some(Key::new(workspace, uid, published_run))
                }
                _ => None,
            };
            let workspace = self.job.workspace.as_ref();
            let rows = with_retries(|| recent::rows_after(store, workspace, after.as_ref(), batch));
            let rows = rows.await?;
            let Some((last, _)) = rows.last() else {
                return Ok(());
            };
            let (cursor, looked_at) = (Cursor::behind(last), rows.len() as u64);
            let mut counts = self.counts;
            let lines = match self.check_rows(rows, &mut counts).await {
                Err(JobError::History(HistoryError::TimedOut(_))) if batch > MIN_ROWS => {
                    batch = (batch / 2).max(MIN_ROWS);
                    tracing::warn!(rows = batch, "looking rows up took too long; fewer at once");
                    continue;
                }
                lines => lines?,
            };
            counts.rows += looked_at;
            self.save(cursor, counts, &lines).await?;
            let report = self.report(&Tally::default());
            (self.tell)(report);
        }
    }

    /// Makes these rows right, or returns the lines that say how they would change.
    async fn check_rows(
        &self,
        rows: Vec<RecentRow>,
        counts: &mut Counts,
    ) -> Result<Vec<PlanLine>, JobError> {
        let (store, history) = (&self.with.store, &self.with.history);
        if self.options.dry_run {
            let found = supported::check(store, history, rows, &self.unmappable).await?;
            return Ok(plan::lines(&found.all(), counts));
        }
        let unsupported = supported::unsupported(store, history, rows, &self.unmappable).await?;
        let mut keys: Vec<Key> = unsupported.into_iter().map(|((key, _), _)| key).collect();
        keys.sort_unstable();
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let apply = Apply {
            store,
            history,
            metrics: self.with.metrics.as_deref().map(|m| (m, Source::Resync)),
            fence: Some(&self.job.fence),
        };
        let applied = apply.noted(Noted::rows(keys), Held::default()).await?;
        let changes = applied.changes;
        counts.changes.add(changes);
        if let Some(metrics) = &self.with.metrics {
            metrics.count_job_rows(RESYNC, changes.in_all());
        }
        Ok(Vec::new())
    }
}
