//! How much is worked off together: less, where the history is slow.

use std::time::Duration;

/// A batch that took longer keeps back what is fresh for too long: the next one is half of it …
const SLOW: Duration = Duration::from_secs(5);
/// … and twice as much behind one that took less.
const FAST: Duration = Duration::from_millis(500);
/// The smallest part of a whole batch: several hundred runs, because each look has a cost of its own.
const LEAST: u32 = 32;

/// The size of the next batch.
#[derive(Debug)]
pub(super) struct Batch {
    /// What it is of a whole one.
    part: u32,
}

impl Batch {
    /// A whole one.
    pub(super) fn whole() -> Self {
        Self { part: 1 }
    }

    /// So many, where a whole batch has `most`.
    pub(super) fn of(&self, most: u32) -> u32 {
        (most / self.part).max(1)
    }

    /// Hears how long one took, whatever came of it.
    pub(super) fn took(&mut self, took: Duration) {
        self.part = match took {
            _ if took > SLOW => (self.part * 2).min(LEAST),
            _ if took < FAST => (self.part / 2).max(1),
            _ => self.part,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_shrinks_while_it_is_slow_and_is_whole_again_when_it_is_fast() {
        let mut batch = Batch::whole();
        assert_eq!(batch.of(20_000), 20_000);
        for _ in 0..10 {
            batch.took(SLOW * 2);
        }
        assert_eq!(batch.of(20_000), 20_000 / LEAST);
        assert_eq!(batch.of(1), 1, "never none");
        batch.took(SLOW / 2);
        assert_eq!(batch.of(20_000), 20_000 / LEAST, "neither");
        for _ in 0..10 {
            batch.took(FAST / 2);
        }
        assert_eq!(batch.of(20_000), 20_000);
    }
}
