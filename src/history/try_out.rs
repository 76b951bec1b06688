//! Trying the mapping query on some runs: what neither its text nor the database's catalogue tells.

use std::time::Duration;

use super::{History, HistoryError, Lookup};
use crate::model::RawUse;
use crate::telemetry::chain;

/// Runs from each end of the history that the mapping is tried with.
const SAMPLE: u32 = 100;
/// Trying never takes a query longer than this: it is a courtesy, and comes before an estimate too.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Runs of these that it is tried with one by one.
const ALONE: usize = 8;

impl History {
    /// Maps some runs from both ends, so many of each; how many there were, and how many are uses.
    pub(crate) async fn sample(&self, each: u32) -> Result<(usize, usize), HistoryError> {
        let keys = self.sample_keys(each, TIMEOUT).await?;
        let mut uses = 0;
        let count = |raw: RawUse<'_>| uses += usize::from(raw.check().is_ok());
        self.look_up_within(TIMEOUT, Lookup::Runs(&keys), count)
            .await?;
        Ok((keys.len(), uses))
    }

    /// Tries the mapping on some runs: it must name the very runs that it was given, each once.
    ///
    /// # Errors
    /// [`HistoryError::Misfit`] with what it returned instead.
    pub(super) async fn try_out(&self) -> Result<(), HistoryError> {
        let keys = match self.sample_keys(SAMPLE, TIMEOUT).await {
            // Without an index on the key: what would be found by trying is found by verify.
            Err(HistoryError::TimedOut(_)) => return Ok(()),
            keys => keys?,
        };
        let mut seen = match self.runs_named(&keys).await {
            Err(HistoryError::TimedOut(_)) => return Ok(()),
            // One run that cannot be mapped must not keep all others from being followed.
            Err(error) if error.is_of_the_data() => {
                let error = chain(&error);
                tracing::warn!(
                    error,
                    "a run cannot be mapped, so that the mapping was not tried"
                );
                return Ok(());
            }
            seen => seen?,
        };
        if let Some(run) = seen.iter().find(|run| !keys.contains(run)) {
            return Err(self.not_the_key(run, "among the runs that it was given"));
        }
        seen.sort_unstable();
        if let Some([run, _]) = seen.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(HistoryError::misfit(
                "history.query",
                format_args!(
                    "it returned the run `{run}` twice; each run gives one row or none: join on \
                     unique columns, and name a key that is unique, in all partitions together"
                ),
            ));
        }
        // A column of the same numbers, such as another table's key, passes so far.
        for run in seen.iter().step_by(seen.len().div_ceil(ALONE).max(1)) {
            let named = match self.runs_named(std::slice::from_ref(run)).await {
                Err(HistoryError::TimedOut(_)) => return Ok(()),
                named => named?,
            };
            if let Some(other) = named.iter().find(|named| *named != run) {
                let given = format!("of the run `{run}`, which it was given");
                return Err(self.not_the_key(other, &given));
            }
        }
        Ok(())
    }

    /// The runs that the mapping names when it is given these.
    async fn runs_named(&self, keys: &[String]) -> Result<Vec<String>, HistoryError> {
        let (mut named, mut unnamed) = (Vec::new(), false);
        self.look_up_within(TIMEOUT, Lookup::Runs(keys), |raw: RawUse<'_>| {
            unnamed |= raw.run.is_none();
            named.extend(raw.run.map(ToOwned::to_owned));
        })
        .await?;
        match unnamed {
            true => Err(self.not_the_key("NULL", "of any run")),
            false => Ok(named),
        }
    }

    fn not_the_key(&self, run: &str, of: &str) -> HistoryError {
        HistoryError::misfit(
            "history.query",
            format_args!(
                "it returned the run `{run}`, which is not the `{}` {of}; `run` must be the \
                 history's key",
                self.mapping().key
            ),
        )
    }
}
