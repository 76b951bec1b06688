//! The search: every state that can be reached, each once.

use std::collections::HashSet;

use foldhash::fast::FixedState;

use super::state::{History, Newest, State, Table, Writer};
use super::steps::{Actors, Without, all_uses, times};

/// Who is there, and how much may happen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setup {
    pub(super) runs: u8,
    pub(super) keys: u8,
    pub(super) times: u8,
    /// One or two.
    pub(super) drainers: usize,
    pub(super) hook: bool,
    pub(super) backfill: bool,
    /// Of a table with whatever in it.
    pub(super) rebuild: bool,
    pub(super) transactions: u8,
    /// Of users; sweeps come at any time.
    pub(super) dismissals: u8,
    pub(super) crashes: u8,
}

/// What a search saw.
pub(super) struct Seen {
    pub(super) states: usize,
    /// States in which nobody had anything left to do.
    pub(super) at_rest: usize,
    /// The steps to such a state with a wrong table.
    pub(super) counterexample: Option<String>,
}

/// A state, the place of the one before it, and what happened between them.
type Reached = (State, u32, &'static str);

impl Setup {
    /// Everything that the runs can map to.
    pub(super) fn histories(&self) -> Vec<History> {
        let mut histories = vec![History::default()];
        for run in 0..usize::from(self.runs) {
            let mut more = Vec::new();
            for history in histories {
                for becomes in all_uses(self.keys, self.times) {
                    let mut history = history;
                    history.0[run] = becomes;
                    more.push(history);
                }
            }
            histories = more;
        }
        histories
    }

    /// Every table with uses of these runs, known to the history or not.
    fn tables(&self) -> Vec<Table> {
        let row = |run| times(self.times).map(move |time| Newest { time, run });
        let rows: Vec<_> = (0..self.runs).flat_map(row).collect();
        let mut tables = vec![Table::default()];
        for key in 0..self.keys {
            for mut table in tables.clone() {
                for newest in &rows {
                    *table.row(key) = Some(*newest);
                    tables.push(table);
                }
            }
        }
        tables
    }

    /// Every history, with the table that belongs to it, or with an empty one where a backfill comes, or
    /// with any where a rebuild does.
    fn first_states(&self, without: Option<Without>) -> Vec<State> {
        let mut histories = self.histories();
        // Keys are alike: let the first use be of the first key.
        histories.retain(|history| {
            let first = history.0.iter().flatten().next();
            first.is_none_or(|first| first.key == 0)
        });
        let waits = |is_there| {
            if is_there {
                Writer::Waits
            } else {
                Writer::Done
            }
        };
        let merges = self.rebuild && without != Some(Without::MergeOfRebuild);
        let first = |history: History, table: Table| State {
            history,
            table,
            hook: waits(self.hook),
            backfill: waits(self.backfill || merges),
            scans: self.rebuild && without != Some(Without::ScanOfRebuild),
            transactions: self.transactions,
            dismissals: self.dismissals,
            crashes: self.crashes,
            ..State::default()
        };
        let firsts = |history: History| {
            let tables = match (self.rebuild, self.backfill) {
                (true, _) => self.tables(),
                (false, true) => vec![Table::default()],
                (false, false) => vec![history.best()],
            };
            tables.into_iter().map(move |table| first(history, table))
        };
        histories.into_iter().flat_map(firsts).collect()
    }

    /// Searches breadth first, so that a counterexample is a shortest one, and ends with the first.
    pub(super) fn search(&self, without: Option<Without>) -> Seen {
        let actors = Actors {
            runs: self.runs,
            keys: self.keys,
            times: self.times,
            drainers: self.drainers,
            without,
        };
        let first = self.first_states(without).into_iter();
        let mut reached: Vec<Reached> = first.map(|state| (state, u32::MAX, "at first")).collect();
        let mut known: HashSet<State, FixedState> =
            reached.iter().map(|(state, ..)| *state).collect();
        let (mut next, mut at_rest, mut at) = (Vec::new(), 0, 0);
        let mut counterexample = None;
        while let Some((state, ..)) = reached.get(at).copied() {
            if state.is_at_rest() {
                at_rest += 1;
                if !state.is_right() {
                    counterexample = Some(story(&reached, at));
                    break;
                }
            }
            actors.next(&state, &mut next);
            for (what, state) in next.drain(..) {
                let state = match self.drainers {
                    2 => state.with_drainers_sorted(),
                    _ => state,
                };
                if known.insert(state) {
                    reached.push((state, at as u32, what));
                }
            }
            at += 1;
        }
        Seen {
            states: reached.len(),
            at_rest,
            counterexample,
        }
    }
}

/// How it came to this.
fn story(reached: &[Reached], mut at: usize) -> String {
    let mut story = Vec::new();
    while let Some((state, from, what)) = reached.get(at) {
        story.push(format!("{what}: {state:?}"));
        at = *from as usize;
    }
    story.reverse();
    story.join("\n")
}
