//! What a loop said last: a failure that stays is said once.

use std::error::Error;

use super::chain;

/// What was said last.
#[derive(Debug, Default)]
pub(crate) struct Said(Option<String>);

impl Said {
    /// Whether this failure, with its causes, is not what was said last.
    pub(crate) fn is_news(&mut self, error: &(dyn Error + 'static)) -> bool {
        let text = Some(chain(error));
        let is_news = self.0 != text;
        self.0 = text;
        is_news
    }

    /// It went well: the same failure would be news again.
    pub(crate) fn well(&mut self) {
        self.0 = None;
    }
}
