//! What commands say of runs that cannot be mapped.

use super::output::thousands;
use super::progress::Progress;
use crate::history::Unmappable;

/// What was said of them so far.
#[derive(Debug, Default)]
pub(super) struct Told {
    named: usize,
    unmappable: Unmappable,
}

impl Told {
    /// Names those that were met since, as long as they are few.
    pub(super) fn name(&mut self, progress: &Progress, unmappable: &Unmappable) {
        let named = unmappable.named();
        for passed in named.iter().skip(self.named) {
            progress.say(format_args!(
                "run {} cannot be mapped and is passed over: {}",
                passed.run, passed.problem
            ));
        }
        self.named = self.named.max(named.len());
        self.unmappable = unmappable.clone();
    }

    /// Says at the end how many were not named.
    pub(super) fn end(&self) {
        match self.unmappable.count().saturating_sub(self.named as u64) {
            0 => {}
            more => eprintln!("{} more runs cannot be mapped", thousands(more)),
        }
    }
}
