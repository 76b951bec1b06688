//! Rows that are computed beside what is fresh: one takes as long as its key has runs, or without a fitting
//! index as the history is long.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

use super::apply::Applied;
use crate::check::CheckError;
use crate::history::HistoryError;

/// The rows that are being computed: one batch at the most. Given up when dropped; their notes stay.
#[derive(Debug, Default)]
pub(super) struct Beside(JoinSet<Result<Applied, CheckError>>);

impl Beside {
    pub(super) fn is_at_work(&self) -> bool {
        !self.0.is_empty()
    }

    pub(super) fn begin(
        &mut self,
        work: impl Future<Output = Result<Applied, CheckError>> + Send + 'static,
    ) {
        self.0.spawn(work);
    }

    /// What came of it, where it ends within this time.
    pub(super) async fn ended(&mut self, within: Duration) -> Option<Result<Applied, CheckError>> {
        let ended = timeout(within, self.0.join_next()).await.ok()??;
        Some(ended.unwrap_or(Err(HistoryError::BrokenOff.into())))
    }
}
