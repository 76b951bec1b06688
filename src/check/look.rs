//! Looking at the history: by run, and by key.

use std::collections::HashMap;
use std::time::Duration;

use crate::history::{History, HistoryError, Lookup};
use crate::model::{Key, Newest, RawUse};
use crate::record::Fold;

/// How often a difference is looked at again before it is believed,
pub(super) const LOOKS: usize = 2;
/// and how long after: a hook comes some milliseconds after its run.
pub(super) const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(250);

/// What runs say now: for each use its keys and its time.
#[derive(Default)]
pub(crate) struct Uses(HashMap<Box<str>, Said>);

struct Said {
    keys: [Option<Key>; 2],
    newest: Newest,
}

impl Uses {
    /// The rows that a run stands for.
    pub(crate) fn of(&self, run: &str) -> impl Iterator<Item = (&Key, &Newest)> {
        self.0.get(run).into_iter().flat_map(Said::rows)
    }

    /// The rows that all of them stand for.
    pub(crate) fn uses(&self) -> impl Iterator<Item = (&Key, &Newest)> {
        self.0.values().flat_map(Said::rows)
    }

    /// How many runs are a use.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes in what other runs say.
    pub(crate) fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// Whether the row `(key, newest)` is supported: its run maps to exactly this.
    pub(super) fn support(&self, key: &Key, newest: &Newest) -> bool {
        let run = newest.run.as_deref();
        run.and_then(|run| self.0.get(run)).is_some_and(|said| {
            said.newest == *newest && said.keys.iter().flatten().any(|k| k == key)
        })
    }
}

impl Said {
    fn rows(&self) -> impl Iterator<Item = (&Key, &Newest)> {
        self.keys.iter().flatten().map(|key| (key, &self.newest))
    }
}

/// What the runs that these rows name say now.
pub(super) async fn at_runs(
    history: &History,
    runs: impl Iterator<Item = &Newest>,
) -> Result<Uses, HistoryError> {
    let runs: Vec<String> = runs
        .filter_map(|newest| newest.run.as_deref().map(ToOwned::to_owned))
        .collect();
    at(history, &runs).await
}

/// What these runs say now.
pub(crate) async fn at(history: &History, runs: &[String]) -> Result<Uses, HistoryError> {
    let mut uses = HashMap::new();
    if runs.is_empty() {
        return Ok(Uses(uses));
    }
    history
        .look_up(Lookup::Runs(runs), |raw: RawUse<'_>| {
            if let (Ok(usage), Some(run)) = (raw.check(), raw.run) {
                let key = |uid| Key::new(usage.workspace, uid, usage.published_run);
                let newest = Newest {
                    last_used_at: usage.last_used_at,
                    run: Some(run.into()),
                };
                let keys = [Some(key("")), usage.uid.map(key)];
                uses.insert(Box::from(run), Said { keys, newest });
            }
        })
        .await?;
    Ok(Uses(uses))
}

/// The greatest use of each of these keys now; keys without one have none.
pub(crate) async fn at_keys<'a>(
    history: &History,
    keys: impl Iterator<Item = &'a Key> + Clone,
) -> Result<HashMap<Key, Newest>, HistoryError> {
    let mut pairs: Vec<(&str, &str)> = keys
        .clone()
        .map(|key| {
            let (workspace, _, published_run) = key.parts();
            (workspace, published_run)
        })
        .collect();
    pairs.sort_unstable();
    pairs.dedup();
    let mut fold = Fold::default();
    if !pairs.is_empty() {
        history
            .look_up(Lookup::Pairs(&pairs), |raw: RawUse<'_>| {
                if let Ok(usage) = raw.check() {
                    fold.add(&usage);
                }
            })
            .await?;
    }
    let mut best: HashMap<Key, Newest> = fold.into_sorted().into_iter().collect();
    Ok(keys.filter_map(|key| best.remove_entry(key)).collect())
}
