//! What is said of a failure to whoever asks over HTTP: nothing in the words of a database, which may have
//! a run's values. Those are for the log.

use super::HistoryError;
use super::file::FileError;

impl HistoryError {
    /// The error without the database's words, and without what stands in a run or a line.
    pub(crate) fn outward(&self) -> String {
        match self {
            Self::Database(sqlx::Error::Database(error)) => match error.code() {
                Some(code) => format!("{self} (the database's error {code})"),
                None => self.to_string(),
            },
            Self::Window {
                from, to, outward, ..
            } => format!("the runs {from} down to {to} of the history were not read: {outward}"),
            Self::Unmappable { most, .. } => format!(
                "more than {most} runs cannot be mapped: history.query itself seems to be wrong"
            ),
            Self::Outbox { .. } => "the role may not take notes from the outbox".into(),
            Self::OnePass { .. } => "a run cannot be mapped".into(),
            Self::File(FileError::Line { path, line, .. }) => {
                format!("{}: line {line} is broken", path.display())
            }
            // Of the configuration, or our own words.
            Self::Refused(_)
            | Self::Misfit { .. }
            | Self::TimedOut(_)
            | Self::Reordered
            | Self::Database(_)
            | Self::File(_)
            | Self::BrokenOff => self.to_string(),
        }
    }
}
