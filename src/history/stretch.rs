//! Stretches: what a source sends.

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::HistoryError;
use crate::model::{NoUse, RawUse, Time, id};
use crate::record::Fold;

/// Stretches that wait to be taken; more would only be memory.
const AHEAD: usize = 1;

/// The uses of some consecutive runs, folded.
#[derive(Debug, Default)]
pub struct Stretch {
    /// The greatest use of each key.
    pub fold: Fold,
    /// What was counted.
    pub tally: Tally,
    /// Everything up to here has been sent; `None` where the source cannot resume.
    pub cursor: Option<String>,
    /// About how many runs there are in all, where only the source can tell.
    pub total: Option<u64>,
}

/// Counts of runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tally {
    /// Runs that were read.
    pub scanned: u64,
    /// Runs that are a use.
    pub uses: u64,
    /// Runs that are none, by the order of [`NoUse::ALL`].
    pub skipped: [u64; NoUse::ALL.len()],
    /// Runs that the mapping query gives no row for, or that a file's broken lines are.
    pub unmapped: u64,
    /// Uses whose user is not a valid id: they count in the workspace's list only.
    pub invalid_uid: u64,
    /// Uses later than the clock.
    pub future: u64,
}

impl Tally {
    /// Adds the counts of further runs.
    pub fn add(&mut self, other: &Self) {
        self.scanned += other.scanned;
        self.uses += other.uses;
        for (count, more) in self.skipped.iter_mut().zip(other.skipped) {
            *count += more;
        }
        self.unmapped += other.unmapped;
        self.invalid_uid += other.invalid_uid;
        self.future += other.future;
    }

    /// Runs that are no use, for whatever reason.
    pub fn skipped_in_all(&self) -> u64 {
        self.skipped.iter().sum::<u64>() + self.unmapped
    }

    /// The reasons that occurred, with their counts.
    pub fn reasons(&self) -> impl Iterator<Item = (&'static str, u64)> {
        NoUse::ALL
            .iter()
            .map(|reason| reason.reason())
            .zip(self.skipped)
            .chain([
                ("unmapped", self.unmapped),
                ("invalid_uid", self.invalid_uid),
                ("future_last_used_at", self.future),
            ])
            .filter(|(_, count)| *count > 0)
    }
}

impl Stretch {
    /// Takes one row of the mapping query or of a file; `now` tells future uses.
    pub fn take(&mut self, raw: RawUse<'_>, now: Time) {
        match raw.check() {
            Ok(usage) => {
                self.tally.uses += 1;
                let given = raw
                    .uid
                    .is_some_and(|uid| !uid.is_empty() && id::check(uid).is_err());
                self.tally.invalid_uid += u64::from(given);
                self.tally.future += u64::from(usage.last_used_at > now);
                self.fold.add(&usage);
            }
            Err(reason) => {
                if let Some(at) = NoUse::ALL.iter().position(|r| *r == reason) {
                    self.tally.skipped[at] += 1;
                }
            }
        }
    }

    /// Takes in the stretch behind this one.
    pub fn append(&mut self, next: Self) {
        self.fold.merge(next.fold);
        self.tally.add(&next.tally);
        self.cursor = next.cursor;
        self.total = next.total;
    }
}

/// The stretches of a source, in order.
#[derive(Debug)]
pub struct Stretches(mpsc::Receiver<Result<Option<Stretch>, HistoryError>>);

/// Where a source sends its stretches and, at the end, `None`. It may stop when the receiver is gone.
pub type Sender = mpsc::Sender<Result<Option<Stretch>, HistoryError>>;

impl Stretches {
    pub(super) fn channel() -> (Sender, Self) {
        let (sender, receiver) = mpsc::channel(AHEAD);
        (sender, Self(receiver))
    }

    /// The next stretch; `None` at the end.
    ///
    /// # Errors
    /// Whatever kept the source from reading; [`HistoryError::BrokenOff`] where it went silent.
    pub async fn next(&mut self) -> Result<Option<Stretch>, HistoryError> {
        self.0.recv().await.unwrap_or(Err(HistoryError::BrokenOff))
    }
}
