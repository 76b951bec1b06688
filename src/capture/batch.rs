//! How much is worked off together: less, where the history is slow.

use std::time::Duration;

use super::outbox::RUNS;

/// A batch should take no longer: for so long it keeps back what is fresh, and a deletion, which is looked at twice, for
/// two of them.
const TARGET: Duration = Duration::from_millis(250);
/// The smallest batch, and the first, of which nobody knows yet how long it takes: each look has a cost of its own,
/// and what a thousand runs leave is worked off by one, in whichever half of it, as a request of the hook may have them.
const LEAST: u32 = 2_000;
/// The same of notes of the table, of which a run may leave two: one for each of its lists.
const LEAST_NOTES: u32 = 2_000;

/// The size of the next batch.
#[derive(Debug)]
pub(super) struct Batch {
    runs: u32,
}

impl Batch {
    pub(super) fn first() -> Self {
        Self { runs: LEAST }
    }

    /// So many runs, [`RUNS`] at the most.
    pub(super) fn runs(&self) -> u32 {
        self.runs
    }

    /// So many notes of the table, where a whole batch has `most`.
    pub(super) fn notes(&self, most: u32) -> u32 {
        let part = u64::from(most) * u64::from(self.runs) / u64::from(RUNS);
        u32::try_from(part).unwrap_or(most).max(LEAST_NOTES)
    }

    /// Hears how long so many runs took, whatever came of it.
    pub(super) fn took(&mut self, runs: usize, took: Duration) {
        let fitting = runs as f64 * TARGET.as_secs_f64() / took.as_secs_f64().max(0.001);
        // A few runs that took but little are mostly what each look costs: they say nothing of many.
        let least = if took <= TARGET { self.runs } else { LEAST };
        self.runs = (fitting as u32).clamp(least, RUNS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_what_can_be_looked_at_in_about_a_second() {
        let mut batch = Batch::first();
        assert_eq!(batch.runs(), LEAST, "nobody knows yet");
        batch.took(LEAST as usize, TARGET / 100);
        assert_eq!(batch.runs(), RUNS, "at the most");
        assert_eq!(batch.notes(4_000), 4_000);
        batch.took(RUNS as usize, 4 * TARGET);
        assert_eq!(batch.runs(), RUNS / 4);
        assert_eq!(batch.notes(10_000), 2_500);
        batch.took(1, TARGET / 10);
        assert_eq!(batch.runs(), RUNS / 4, "of one, nothing is known of many");
        batch.took(1, 2 * TARGET);
        assert_eq!(batch.runs(), LEAST, "at the least");
        assert_eq!(batch.notes(4_000), LEAST_NOTES, "at the least");
    }
}
