//! Runs that cannot be mapped: by name, and how many are passed over at the most.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::HistoryError;
use crate::telemetry::chain;

/// Runs that one piece of work passes over at the most. With more, the mapping is wrong, not a run here
/// and there, and each of them costs some dozen queries to find.
pub(crate) const MOST: usize = 100;
/// Runs that are named; the others are a number.
const NAMED: usize = 5;

/// A run that cannot be mapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    /// Its key.
    pub run: String,
    /// Why, in the database's words: they may have the run's values, and are for operators only.
    pub problem: String,
}

/// The runs that one piece of work passed over, because they cannot be mapped. Each counts once, however
/// often it is met.
#[derive(Debug, Clone, Default)]
pub struct Unmappable(Arc<Mutex<Vec<Passed>>>);

impl Unmappable {
    fn lock(&self) -> MutexGuard<'_, Vec<Passed>> {
        // Only ever pushed to.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes over a run.
    ///
    /// # Errors
    /// [`HistoryError::Unmappable`] where it is one too many.
    pub(crate) fn pass_over(&self, run: &str, error: &HistoryError) -> Result<(), HistoryError> {
        let mut passed = self.lock();
        if passed.iter().any(|known| known.run == run) {
            return Ok(());
        }
        let problem = words(error);
        if passed.len() == MOST {
            let named: Vec<_> = passed.iter().take(NAMED).map(|p| p.run.as_str()).collect();
            return Err(HistoryError::Unmappable {
                most: MOST,
                runs: named.join(", "),
                problem,
            });
        }
        if passed.len() < NAMED {
            tracing::warn!(
                run,
                error = problem,
                "a run cannot be mapped; it is passed over"
            );
        }
        let run = run.to_owned();
        passed.push(Passed { run, problem });
        Ok(())
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.lock().len() as u64
    }

    /// All of them, as they were met.
    pub(crate) fn all(&self) -> Vec<Passed> {
        self.lock().clone()
    }

    /// The first ones, to be named.
    pub fn named(&self) -> Vec<Passed> {
        self.lock().iter().take(NAMED).cloned().collect()
    }
}

/// What the database says of a run.
pub(crate) fn words(error: &HistoryError) -> String {
    match error {
        HistoryError::Database(sqlx::Error::Database(database)) => database.message().to_owned(),
        error => chain(error),
    }
}
