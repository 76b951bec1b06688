//! The runs of a re-sync: each is held against its rows.

use super::super::walk::{Sink, walk};
use super::super::{JobError, RESYNC, write};
use super::cursor::Cursor;
use super::worker::Worker;
use super::{Report, plan};
use crate::check::complete;
use crate::history::{Stretch, Tally, one_pass, windows};
use crate::record::Fold;
use crate::telemetry::metrics::Source;

impl<T: FnMut(Report)> Worker<'_, T> {
    /// The complete-check of every run.
    pub(super) async fn runs(&mut self) -> Result<(), JobError> {
        let history = &self.with.history;
        let Cursor::Runs(cursor) = self.cursor.clone() else {
            return Ok(());
        };
        if cursor.is_none() {
            // From the start, which an earlier attempt may have come behind.
            self.counts.tally = Tally::default();
            if self.options.dry_run {
                let changes = &mut self.counts.changes;
                (changes.added, changes.raised) = (0, 0);
                self.counts.kept = self.counts.kept.min(changes.in_all());
            }
        }
        let unmappable = self.unmappable.clone();
        let stretches = match &self.job.workspace {
            Some(workspace) => {
                let workspace = Some(workspace.as_str().to_owned());
                one_pass(history.clone(), workspace, unmappable)
            }
            None => match history.last_key().await? {
                Some(last) => {
                    let (history, cursor) = (history.clone(), cursor.clone());
                    windows::walk(history, cursor, last, windows::RUNS, unmappable)
                }
                None => return Ok(()),
            },
        };
        walk(stretches, cursor, std::future::pending(), self).await?;
        Ok(())
    }
}

impl<T: FnMut(Report)> Sink for Worker<'_, T> {
    async fn hear(&mut self, pending: &Stretch) -> Result<(), JobError> {
        let report = self.report(&pending.tally);
        (self.tell)(report);
        self.wait_until_well().await
    }

    async fn take(&mut self, stretch: Stretch, uses: Fold) -> Result<(), JobError> {
        let store = &self.with.store;
        let mut counts = self.counts;
        counts.tally.add(&stretch.tally);
        let mut lines = Vec::new();
        if self.options.dry_run {
            let uses = uses.into_sorted();
            let found = complete::check(store, &self.with.history, &uses, &self.unmappable).await?;
            lines = plan::lines(&found.all(), &mut counts);
        } else {
            let to = write::To {
                store,
                noting: true,
            };
            let raised = write::raise(to, &self.job.fence, uses, |_| ()).await?;
            counts.changes.add(raised.changes);
            if let Some(metrics) = &self.with.metrics {
                let (applied, tally) = (raised.of_workspaces, &stretch.tally);
                metrics.count_runs(Source::Resync, "applied", applied);
                let superseded = tally.uses.saturating_sub(applied);
                metrics.count_runs(Source::Resync, "superseded", superseded);
                metrics.count_runs(Source::Resync, "skipped", tally.skipped_in_all());
                metrics.count_job_rows(RESYNC, raised.changes.in_all());
            }
        }
        Worker::save(self, Cursor::Runs(stretch.cursor), counts, &lines).await
    }

    async fn save(&mut self) -> Result<(), JobError> {
        Worker::save(self, self.cursor.clone(), self.counts, &[]).await
    }
}
