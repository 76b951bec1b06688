//! What the history says of what is noted. What it cannot say of a run is set aside, and keeps nothing else back.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::apply::{Apply, Noted};
use super::write::Held;
use crate::check::CheckError;
use crate::check::look::{self, Found, LeftOut, Uses};
use crate::history::{HistoryError, MOST_UNMAPPABLE, Passed, Unmappable, words};
use crate::model::{Key, Newest};
use crate::store::note::{self, Note};
use crate::store::recent::{self, MAX_KEYS};
use crate::store::{StoreError, aside, with_retries};

/// Runs whose mapping fails are looked for for so long: what is fresh waits meanwhile. Those that are left then are noted
/// once more.
const FAILING: Duration = Duration::from_millis(500);
/// But so many are looked at, however long it takes: on the way to the first are a dozen statements, and then two each.
const LOOKED_AT: usize = 64;

/// What was read.
pub(super) struct Read {
    /// The rows that were noted, as they were before,
    pub(super) seen: HashMap<Key, Newest>,
    /// what the noted runs say,
    pub(super) said: Uses,
    /// and what the rows should be.
    pub(super) best: Best,
    pub(super) tries_again: bool,
}

/// What rows should be.
#[derive(Default)]
pub(super) struct Best {
    pub(super) newest: HashMap<Key, Option<Newest>>,
    /// Look-ups of them take long.
    pub(super) heavy: Vec<Key>,
    /// Rows that could not be looked up in time; the others were.
    pub(super) late: HashSet<Key>,
    pub(super) why: Option<HistoryError>,
}

/// What runs say.
#[derive(Default)]
struct Mapped {
    said: Uses,
    /// Those whose mapping fails.
    fails: HashSet<String>,
    /// Those that nobody looked at yet.
    left: Vec<String>,
    /// Whether rows that were set aside are taken again.
    tries_again: bool,
}

/// What is set aside of that which is looked at, by the notes.
#[derive(Default)]
struct Aside {
    runs: Vec<(i64, String)>,
    rows: Vec<(i64, Key)>,
}

impl Apply<'_> {
    /// Looks at what is noted; runs for which there is no time are noted once more, and are gone from it then.
    ///
    /// # Errors
    /// [`CheckError`]; no row is changed.
    pub(super) async fn read(&self, noted: &mut Noted) -> Result<Read, CheckError> {
        let seen = self.rows_of(&noted.keys).await?;
        let aside = self.aside(noted).await?;
        let Mapped {
            said,
            fails,
            left,
            tries_again,
        } = self.map(&noted.runs).await?;
        if !left.is_empty() {
            with_retries(|| note::again(self.store, &left)).await?;
            let left: HashSet<String> = left.into_iter().collect();
            noted.runs.retain(|run| !left.contains(run));
        }
        let forgotten = self.forget_runs(aside.runs, &noted.runs, &fails).await?;
        let best = self.best(&noted.keys, &seen).await?;
        self.forget_rows(aside.rows, &best).await?;
        Ok(Read {
            seen,
            said,
            best,
            tries_again: tries_again || forgotten,
        })
    }

    /// The rows of these keys, before the history is read.
    async fn rows_of(&self, keys: &[Key]) -> Result<HashMap<Key, Newest>, StoreError> {
        let mut rows = HashMap::new();
        for chunk in keys.chunks(MAX_KEYS) {
            rows.extend(with_retries(|| recent::rows_of_keys(self.store, chunk.iter())).await?);
        }
        Ok(rows)
    }

    /// What these runs say now. Those whose mapping fails, or takes too long though one is looked at alone, are set
    /// aside, and say nothing.
    async fn map(&self, runs: &[String]) -> Result<Mapped, CheckError> {
        let (mut mapped, mut aside) = (Mapped::default(), Vec::new());
        let mut parts = vec![runs];
        let (mut looked_at, mut fails_since) = (0, None::<Instant>);
        while let Some(part) = parts.pop() {
            let is_over = fails_since.is_some_and(|since| since.elapsed() > FAILING);
            if is_over && looked_at >= LOOKED_AT {
                mapped.left.extend_from_slice(part);
                continue;
            }
            match look::at(self.history, part).await {
                Ok(uses) => {
                    looked_at += part.len();
                    mapped.said.extend(uses);
                }
                // Fewer runs take less time; rows that are computed may read everything, however few they are.
                Err(HistoryError::TimedOut(_)) if part.len() > 1 => {
                    look::halve(&mut parts, part);
                }
                Err(error) if !error.is_of_the_data() && !self.is_late(&error) => {
                    return Err(error.into());
                }
                Err(error) => {
                    fails_since.get_or_insert_with(Instant::now);
                    if let Some(run) = look::halve(&mut parts, part) {
                        looked_at += 1;
                        aside.push((Note::Run(run.as_str().into()), words(&error)));
                        mapped.fails.insert(run.clone());
                    }
                }
            }
        }
        mapped.tries_again = self.set_aside(&aside).await?;
        Ok(mapped)
    }

    /// Whether a look-up took too long, and others must not wait for it; a job looks at fewer rows then instead.
    fn is_late(&self, error: &HistoryError) -> bool {
        matches!(error, HistoryError::TimedOut(_)) && self.fence.is_none()
    }

    /// What was set aside of this: asked before it is looked at, because another look may fail later, and set some of
    /// it aside again.
    async fn aside(&self, noted: &Noted) -> Result<Aside, StoreError> {
        let mut aside = Aside::default();
        if self.fence.is_some() || !with_retries(|| aside::any(self.store)).await? {
            return Ok(aside);
        }
        for chunk in noted.runs.chunks(MAX_KEYS) {
            let runs = with_retries(|| aside::of(self.store, chunk)).await?;
            aside.runs.extend(runs);
        }
        for chunk in noted.keys.chunks(MAX_KEYS) {
            let rows = with_retries(|| aside::of_keys(self.store, chunk)).await?;
            aside.rows.extend(rows);
        }
        Ok(aside)
    }

    /// Forgets those of them whose runs were looked at and did not fail; returns whether there were any. Before
    /// anything is written: a crash in between only has the others looked at again.
    async fn forget_runs(
        &self,
        aside: Vec<(i64, String)>,
        looked_at: &[String],
        fails: &HashSet<String>,
    ) -> Result<bool, StoreError> {
        if aside.is_empty() {
            return Ok(false);
        }
        let looked_at: HashSet<&str> = looked_at.iter().map(String::as_str).collect();
        let is_mapped = |run: &String| looked_at.contains(run.as_str()) && !fails.contains(run);
        let mapped = aside.iter().filter(|(_, run)| is_mapped(run));
        let ids: Vec<i64> = mapped.map(|(id, _)| *id).collect();
        if ids.is_empty() {
            return Ok(false);
        }
        with_retries(|| aside::forget(self.store, &ids)).await?;
        Ok(true)
    }

    /// Forgets those of them that were computed.
    async fn forget_rows(&self, aside: Vec<(i64, Key)>, best: &Best) -> Result<(), StoreError> {
        let computed = aside
            .iter()
            .filter(|(_, key)| best.newest.contains_key(key));
        let ids: Vec<i64> = computed.map(|(id, _)| *id).collect();
        self.let_go(Held { tx: None, ids }).await
    }

    /// The greatest use of each of these keys now, without the runs whose mapping fails, which are set
    /// aside; and whether there were any. A row that names one of them, and would go down, is left out: it
    /// may be right. So is a key of which too many fail; it is set aside itself.
    ///
    /// Rows that take too long are looked for by halves, so that they keep no others back.
    async fn best(&self, keys: &[Key], seen: &HashMap<Key, Newest>) -> Result<Best, CheckError> {
        let mut best = Best::default();
        let mut keys = keys.to_vec();
        keys.sort_by_cached_key(Key::of_everyone);
        let mut parts = vec![keys.as_slice()];
        // Known to fail; asked for when something does.
        let mut known = None;
        while let Some(part) = parts.pop() {
            let looked = self.best_of(part, &mut known).await;
            match looked {
                Ok((mut found, fails)) => {
                    best.heavy.append(&mut found.heavy);
                    let names_one = |row: &Newest| {
                        let run = row.run.as_deref();
                        run.is_some_and(|run| fails.contains(run))
                    };
                    for key in part {
                        let (row, newest) = (seen.get(key), found.newest.remove(key));
                        if newest.as_ref() >= row || !row.is_some_and(names_one) {
                            best.newest.insert(key.clone(), newest);
                        }
                    }
                }
                Err(CheckError::History(error)) if error.is_of_the_data() => {
                    if let Some(key) = look::halve(&mut parts, part) {
                        self.set_aside(&[(Note::Key(key.clone()), words(&error))])
                            .await?;
                    }
                }
                Err(CheckError::History(error)) if self.is_late(&error) => {
                    tracing::warn!(rows = part.len(), "looking rows up took too long");
                    if let Some((some, others)) = by_rows(part) {
                        parts.extend([some, others]);
                    } else {
                        best.heavy.extend(part.first().map(Key::of_everyone));
                        best.late.extend(part.iter().cloned());
                        best.why = Some(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(best)
    }

    /// The greatest use of each of these keys now, and the runs that are left out because they fail.
    ///
    /// Those that were set aside are left out by one statement, as far as it has room for them. Others are looked for,
    /// among the runs of one row where many are set aside already: each takes some dozen statements, again with each
    /// half of the keys.
    async fn best_of(
        &self,
        keys: &[Key],
        known: &mut Option<Vec<String>>,
    ) -> Result<(Found, HashSet<String>), CheckError> {
        let look = |left_out| look::at_keys(self.history, keys.iter(), left_out);
        let known = match known {
            Some(known) => known,
            None => match look(LeftOut::Known(&[])).await {
                Err(error) if error.is_of_the_data() => {
                    known.insert(with_retries(|| aside::runs(self.store)).await?)
                }
                looked => return Ok((looked?, HashSet::new())),
            },
        };
        // Without any, that has failed already.
        if !known.is_empty() {
            match look(LeftOut::Known(known)).await {
                Err(error)
                    if error.is_of_the_data()
                        && (known.len() < MOST_UNMAPPABLE || keys.len() == 1) => {}
                looked => return Ok((looked?, known.iter().cloned().collect())),
            }
        }
        let unmappable = Unmappable::default();
        let found = look(LeftOut::Found(&unmappable)).await?;
        let fails = unmappable.all();
        let note =
            |Passed { run, problem }: &Passed| (Note::Run(run.as_str().into()), problem.clone());
        let aside: Vec<_> = fails.iter().map(note).collect();
        self.keep_aside(&aside).await?;
        Ok((found, fails.into_iter().map(|failed| failed.run).collect()))
    }

    /// Sets aside what fails; returns whether rows that were are taken again.
    async fn set_aside(&self, fails: &[(Note, String)]) -> Result<bool, StoreError> {
        for (_, problem) in fails {
            tracing::warn!(
                error = problem,
                "a run cannot be mapped; it is set aside (recents capture status counts them)"
            );
        }
        self.keep_aside(fails).await
    }

    async fn keep_aside(&self, fails: &[(Note, String)]) -> Result<bool, StoreError> {
        if fails.is_empty() {
            return Ok(false);
        }
        if let Some((metrics, source)) = self.metrics {
            metrics.count_runs(source, "rejected", fails.len() as u64);
        }
        with_retries(|| aside::keep(self.store, fails)).await
    }
}

/// About half of these keys and the others, those of one published run in a workspace together: they are computed of
/// the same runs. `None` where there is but one.
fn by_rows(keys: &[Key]) -> Option<(&[Key], &[Key])> {
    let begins = |at: &usize| keys[*at].of_everyone() != keys[*at - 1].of_everyone();
    let middle = (keys.len() / 2).max(1);
    let behind = (middle..keys.len()).find(begins);
    let at = behind.or_else(|| (1..middle).rev().find(begins))?;
    Some(keys.split_at(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_the_same_runs_stay_together() {
        let keys = |of: &[(&str, &str)]| -> Vec<Key> {
            of.iter().map(|(w, uid)| Key::new(w, uid, "p")).collect()
        };
        let all = keys(&[("a", ""), ("a", "u"), ("a", "v"), ("b", "")]);
        assert_eq!(by_rows(&all), Some(all.split_at(3)));
        let all = keys(&[("a", ""), ("b", ""), ("b", "u"), ("b", "v"), ("b", "w")]);
        assert_eq!(by_rows(&all), Some(all.split_at(1)));
        assert_eq!(by_rows(&all[1..]), None);
        assert_eq!(by_rows(&all[..1]), None);
        assert_eq!(by_rows(&[]), None);
    }
}
