//! What a look at the history makes of a row. Pure, so that the exhaustive model of the protocol in
//! the tests runs the same decisions.

/// What becomes of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is right.
    Keep,
    /// It rises to the best use, or is inserted.
    Raise,
    /// It goes down to the best use.
    Lower,
    /// It goes.
    Remove,
}

/// What has to be looked at again after a change, because it was made of a history that may have
/// changed meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookAgain {
    /// Nothing: nothing was written.
    Nothing,
    /// The run that the row names now: it may be gone.
    Run,
    /// The row: a use may have been outdone by what the row was.
    Row,
}

impl Change {
    /// Of a row that was computed again: `best` is the greatest use of its key in the history.
    pub fn of<T: Ord>(row: Option<&T>, best: Option<&T>) -> Self {
        match (row, best) {
            (Some(row), Some(best)) if best < row => Self::Lower,
            (Some(row), Some(best)) if best == row => Self::Keep,
            (_, Some(_)) => Self::Raise,
            (Some(_), None) => Self::Remove,
            (None, None) => Self::Keep,
        }
    }

    /// The note that goes with it, in the same transaction.
    pub fn note(self) -> LookAgain {
        match self {
            Self::Keep => LookAgain::Nothing,
            Self::Raise => LookAgain::Run,
            Self::Lower | Self::Remove => LookAgain::Row,
        }
    }
}

/// Whether a row that names a run has to be computed again: the run does not say, or no longer says,
/// what the row does. `said` are the rows that the run stands for now.
pub fn is_unsupported<T: PartialEq>(row: &T, said: impl IntoIterator<Item = T>) -> bool {
    said.into_iter().all(|use_of_run| use_of_run != *row)
}
