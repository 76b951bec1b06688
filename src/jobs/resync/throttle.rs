//! Giving way to a database that is unwell.

use std::time::{Duration, Instant};

use crate::history::{History, HistoryError};
use crate::telemetry::chain;

/// How often the database is asked: seldom enough to be no load of its own.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// Asks the configured query whether to wait.
pub(super) struct Throttle<'a> {
    pub(super) history: &'a History,
    /// A query that says true while the database is unwell.
    pub(super) pause_while: Option<&'a str>,
    asked: Option<Instant>,
}

impl<'a> Throttle<'a> {
    pub(super) fn new(history: &'a History, pause_while: Option<&'a str>) -> Self {
        Self {
            history,
            pause_while,
            asked: None,
        }
    }

    /// Returns as soon as the database is well; where it is not, that is `told` first. One that does not answer is
    /// not.
    ///
    /// # Errors
    /// [`HistoryError::Misfit`] where the query is no such query.
    pub(super) async fn ready(&mut self, told: impl FnOnce()) -> Result<(), HistoryError> {
        let Some(query) = self.pause_while else {
            return Ok(());
        };
        if self.asked.is_some_and(|at| at.elapsed() < ASK_EVERY) {
            return Ok(());
        }
        let (mut waited, mut told) = (false, Some(told));
        loop {
            match self.history.says(query).await {
                Ok(false) => {
                    if waited {
                        tracing::info!("the database is well again; the re-sync goes on");
                    }
                    self.asked = Some(Instant::now());
                    return Ok(());
                }
                Ok(true) if waited => {}
                Ok(true) => tracing::warn!("resync.pause_while says true; the re-sync waits"),
                Err(error @ HistoryError::Misfit { .. }) => return Err(error),
                Err(error) => {
                    let error = chain(&error);
                    tracing::warn!(error, "resync.pause_while got no answer; the re-sync waits");
                }
            }
            waited = true;
            if let Some(told) = told.take() {
                told();
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }
}
