//! What a loop said last: a failure that stays is said once.

/// What was said last.
#[derive(Debug, Default)]
pub(crate) struct Repeated(Option<String>);

impl Repeated {
    /// Whether this is not what was said last.
    pub(crate) fn is_news(&mut self, said: &str) -> bool {
        if self.0.as_deref() == Some(said) {
            return false;
        }
        self.0 = Some(said.to_owned());
        true
    }

    /// It went well: the same failure would be news again.
    pub(crate) fn well(&mut self) {
        self.0 = None;
    }
}
