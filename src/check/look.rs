//! Looking at the history: by run, and by key.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::time::Duration;

use super::Reason;
use crate::history::{Again, History, HistoryError, Lookup, Unmappable};
use crate::model::{Key, Newest, RawUse};
use crate::record::Fold;

/// How long after a difference was seen it is looked at again: a hook comes some milliseconds after its
/// run. It is believed when it is seen twice again, and each time the same …
pub(super) const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(250);
const SEEN_AGAIN: u32 = 2;
/// … or when it is still there after so many looks, another one each time.
const LOOKS: usize = 12;

/// What notes have to do with a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notes {
    /// None was about it before it was seen again.
    None,
    /// There was one, and somebody works notes off.
    WorkedOff,
    /// There was one, and nobody seems to.
    Waiting,
}

impl Notes {
    pub(super) fn of(touched: bool, worked_off: bool) -> Self {
        match (touched, worked_off) {
            (false, _) => Self::None,
            (true, true) => Self::WorkedOff,
            (true, false) => Self::Waiting,
        }
    }
}

/// Differences that are looked at until they persist or go.
pub(super) struct Suspects<T> {
    /// Each with how often it was seen again.
    open: HashMap<T, (u32, Notes)>,
    persist: Vec<T>,
    waiting: Vec<T>,
    looks: usize,
}

impl<T: Clone + Eq + Hash> Suspects<T> {
    /// What was seen once.
    pub(super) fn new(seen: Vec<T>) -> Self {
        Self {
            open: seen
                .into_iter()
                .map(|one| (one, (0, Notes::None)))
                .collect(),
            persist: Vec::new(),
            waiting: Vec::new(),
            looks: 0,
        }
    }

    /// What has to be looked at again; `None` when everything is decided.
    pub(super) fn open(&self) -> Option<Vec<T>> {
        let undecided = !self.open.is_empty() && self.looks < LOOKS;
        undecided.then(|| self.open.keys().cloned().collect())
    }

    /// What was seen now, of those that are open; `notes` says which of them notes were about before.
    pub(super) fn saw(&mut self, seen: Vec<T>, notes: impl Fn(&T) -> Notes) {
        self.looks += 1;
        let before = std::mem::take(&mut self.open);
        for one in seen {
            let notes = notes(&one);
            let times = match before.get(&one) {
                // What is seen without a note counts from here.
                Some((_, before)) if notes == Notes::None && *before != Notes::None => 0,
                Some((times, _)) => times + 1,
                None => 0,
            };
            match (times, notes) {
                (SEEN_AGAIN, Notes::None) => self.persist.push(one),
                (SEEN_AGAIN, Notes::Waiting) => self.waiting.push(one),
                // It is for the drain to see.
                (_, Notes::WorkedOff) => drop(self.open.insert(one, (0, notes))),
                (times, _) => drop(self.open.insert(one, (times, notes))),
            }
        }
    }

    /// What persists, and what waits for notes to be worked off. What a drain has had to do with up to the
    /// end is neither: it goes on changing.
    pub(super) fn decided(mut self) -> (Vec<T>, Vec<T>) {
        for (one, (_, notes)) in self.open {
            match notes {
                Notes::None => self.persist.push(one),
                Notes::Waiting => self.waiting.push(one),
                Notes::WorkedOff => {}
            }
        }
        (self.persist, self.waiting)
    }
}

/// What runs say now.
#[derive(Default)]
pub(crate) struct Uses {
    /// For each use its keys and its time.
    said: HashMap<Box<str>, Said>,
    /// What these say cannot be known.
    unmappable: HashSet<String>,
}

struct Said {
    keys: [Option<Key>; 2],
    newest: Newest,
}

impl Uses {
    /// The rows that a run stands for.
    pub(crate) fn of(&self, run: &str) -> impl Iterator<Item = (&Key, &Newest)> {
        self.said.get(run).into_iter().flat_map(Said::rows)
    }

    /// The rows that all of them stand for.
    pub(crate) fn uses(&self) -> impl Iterator<Item = (&Key, &Newest)> {
        self.said.values().flat_map(Said::rows)
    }

    /// How many runs are a use.
    pub(crate) fn len(&self) -> usize {
        self.said.len()
    }

    /// Takes in what other runs say.
    pub(crate) fn extend(&mut self, others: Self) {
        self.said.extend(others.said);
    }

    /// Whether the run of the row `(key, newest)` maps to exactly this.
    pub(super) fn confirm(&self, key: &Key, newest: &Newest) -> bool {
        let run = newest.run.as_deref().unwrap_or_default();
        !self.unmappable.contains(run) && self.deny(key, newest).is_none()
    }

    /// Why the row `(key, newest)` is not supported; `None` where its run maps to exactly this, or cannot
    /// be mapped.
    pub(super) fn deny(&self, key: &Key, newest: &Newest) -> Option<Reason> {
        let Some(run) = newest.run.as_deref() else {
            return Some(Reason::NoRun);
        };
        match self.said.get(run) {
            None if self.unmappable.contains(run) => None,
            None => Some(Reason::UnknownRun),
            Some(said) if said.keys.iter().flatten().all(|k| k != key) => Some(Reason::OtherRow),
            Some(said) if said.newest != *newest => Some(Reason::OtherTime),
            Some(_) => None,
        }
    }
}

impl Said {
    fn rows(&self) -> impl Iterator<Item = (&Key, &Newest)> {
        self.keys.iter().flatten().map(|key| (key, &self.newest))
    }
}

/// What the runs that these rows name say now; those that cannot be mapped are passed over.
pub(super) async fn at_runs(
    history: &History,
    runs: impl Iterator<Item = &Newest>,
    unmappable: &Unmappable,
) -> Result<Uses, HistoryError> {
    let runs: Vec<String> = runs
        .filter_map(|newest| newest.run.as_deref().map(ToOwned::to_owned))
        .collect();
    let mut uses = Uses::default();
    let mut parts = vec![runs.as_slice()];
    while let Some(part) = parts.pop() {
        match at(history, part).await {
            Ok(said) => uses.extend(said),
            Err(error) if !error.is_of_the_data() => return Err(error),
            Err(error) => {
                if let Some(run) = halve(&mut parts, part) {
                    unmappable.pass_over(run, &error)?;
                    uses.unmappable.insert(run.clone());
                }
            }
        }
    }
    Ok(uses)
}

/// What these runs say now.
pub(crate) async fn at(history: &History, runs: &[String]) -> Result<Uses, HistoryError> {
    let mut said = HashMap::new();
    if !runs.is_empty() {
        let take = |raw: RawUse<'_>| {
            if let (Ok(usage), Some(run)) = (raw.check(), raw.run) {
                let key = |uid| Key::new(usage.workspace, uid, usage.published_run);
                let newest = Newest {
                    last_used_at: usage.last_used_at,
                    run: Some(run.into()),
                };
                let keys = [Some(key("")), usage.uid.map(key)];
                said.insert(Box::from(run), Said { keys, newest });
            }
        };
        history.look_up(Lookup::Runs(runs), Again(take)).await?;
    }
    Ok(Uses {
        said,
        unmappable: HashSet::new(),
    })
}

/// Puts the halves of a part that failed among the parts; gives the one that it has, where it has but one.
pub(crate) fn halve<'a, T>(parts: &mut Vec<&'a [T]>, part: &'a [T]) -> Option<&'a T> {
    let (half, rest) = part.split_at(part.len() / 2);
    match (half, rest) {
        ([], [one]) => Some(one),
        _ => {
            parts.extend([half, rest]);
            None
        }
    }
}

/// Runs that cannot be mapped, and are left out.
#[derive(Clone, Copy)]
pub(crate) enum LeftOut<'a> {
    /// Whichever they are: each is looked for, which takes some dozen statements, and remembered here.
    Found(&'a Unmappable),
    /// These, in one statement, which fails where there are others.
    Known(&'a [String]),
}

/// Rows of which more runs were read are heavy: the next look at them takes as long.
const HEAVY: usize = 10_000;

/// What was found of some keys.
pub(crate) struct Found {
    /// The greatest use of each; keys without one have none.
    pub(crate) newest: HashMap<Key, Newest>,
    /// The rows of workspaces' lists that are heavy, and those of users with them.
    pub(crate) heavy: Vec<Key>,
}

/// The greatest use of each of these keys now.
pub(crate) async fn at_keys<'a>(
    history: &History,
    keys: impl Iterator<Item = &'a Key> + Clone,
    left_out: LeftOut<'_>,
) -> Result<Found, HistoryError> {
    let mut pairs: Vec<(&str, &str)> = keys
        .clone()
        .map(|key| {
            let (workspace, _, published_run) = key.parts();
            (workspace, published_run)
        })
        .collect();
    pairs.sort_unstable();
    pairs.dedup();
    let (mut fold, mut runs, mut pair) = (Fold::default(), HashMap::new(), String::new());
    if !pairs.is_empty() {
        let take = |raw: RawUse<'_>| {
            if let Ok(usage) = raw.check() {
                fold.add(&usage);
                Key::pack_into(&mut pair, usage.workspace, "", usage.published_run);
                match runs.get_mut(pair.as_str()) {
                    Some(runs) => *runs += 1,
                    None => drop(runs.insert(Key::from_packed(&pair), 1)),
                }
            }
        };
        match left_out {
            LeftOut::Found(unmappable) => history.look_up_pairs(&pairs, unmappable, take).await?,
            LeftOut::Known(runs) => {
                let lookup = match runs {
                    [] => Lookup::Pairs(&pairs, None),
                    runs => Lookup::PairsBut(&pairs, runs),
                };
                history.look_up(lookup, Again(take)).await?;
            }
        }
    }
    let mut best: HashMap<Key, Newest> = fold.into_sorted().into_iter().collect();
    let heavy = runs.into_iter().filter(|(_, runs)| *runs > HEAVY);
    Ok(Found {
        newest: keys.filter_map(|key| best.remove_entry(key)).collect(),
        heavy: heavy.map(|(pair, _)| pair).collect(),
    })
}
