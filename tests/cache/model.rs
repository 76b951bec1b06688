//! The cache as a small model, searched exhaustively: every interleaving of loads, fills, commits,
//! invalidations, notifications and a listener that is lost, in a process that keeps one list.
//!
//! Whether a load sees what was forgotten is decided by the product's own rule,
//! [`recents::cache::generation::sees`]. That the product takes these steps in this order is for the
//! tests on databases to show. How far a replica must be is searched beside it, in `cache/replayed.rs`.

use std::collections::HashSet;

use recents::cache::generation::sees;

/// Loads under way at once.
const LOADS: usize = 2;
/// What this process and another one may commit, and how often the listener may be lost.
const OWN: u8 = 2;
const OTHERS: u8 = 2;
const LOSSES: u8 = 1;

/// A load: the generation at which it began, and what it read, as soon as it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Load {
    began: u8,
    read: Option<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct State {
    /// The list in the database: counts commits.
    list: u8,
    generation: u8,
    forgotten: u8,
    entry: Option<(u8, u8)>,
    loads: [Option<Load>; LOADS],
    /// A commit of our own that is not forgotten yet, and the list that is acknowledged.
    unforgotten: bool,
    acknowledged: u8,
    /// Forgotten, and not committed yet: only in the wrong order.
    uncommitted: bool,
    /// Notifications on their way.
    told: u8,
    /// A commit of another process that is not told yet.
    untold: bool,
    hears: bool,
    own: u8,
    others: u8,
    losses: u8,
}

/// What is left out, to see that it is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Without {
    /// Whether a load began before something was forgotten.
    Generations,
    /// Forgetting after the commit, instead of before.
    CommitFirst,
    /// Forgetting everything when changes are heard again.
    ForgettingWhenHearing,
    /// Asking the database while nothing is heard.
    BypassWhileDeaf,
}

impl State {
    fn first() -> Self {
        Self {
            list: 0,
            generation: 0,
            forgotten: 0,
            entry: None,
            loads: [None; LOADS],
            unforgotten: false,
            acknowledged: 0,
            uncommitted: false,
            told: 0,
            untold: false,
            hears: true,
            own: OWN,
            others: OTHERS,
            losses: LOSSES,
        }
    }

    fn forget(&mut self) {
        self.generation += 1;
        self.forgotten = self.generation;
    }

    /// What a reader is given without asking the database.
    fn given(&self, without: Option<Without>) -> Option<u8> {
        let (list, began) = self.entry?;
        let is_current =
            without == Some(Without::Generations) || sees(began.into(), self.forgotten.into());
        let hears = without == Some(Without::BypassWhileDeaf) || self.hears;
        (is_current && hears).then_some(list)
    }

    /// Why what is given is wrong.
    fn wrong(&self, without: Option<Without>) -> Option<&'static str> {
        let given = self.given(without)?;
        if given < self.acknowledged {
            return Some("older than a write of this process that was acknowledged");
        }
        let rests = self.told == 0 && !self.untold && !self.unforgotten && !self.uncommitted;
        if rests && given != self.list && self.loads == [None; LOADS] {
            return Some("old for as long as nothing changes");
        }
        None
    }

    fn next(&self, without: Option<Without>) -> Vec<(&'static str, Self)> {
        let mut next = Vec::new();
        let mut step = |what, change: &dyn Fn(&mut Self)| {
            let mut state = *self;
            change(&mut state);
            next.push((what, state));
        };
        for at in 0..LOADS {
            match self.loads[at] {
                None => step("a load begins", &|state| {
                    state.loads[at] = Some(Load {
                        began: state.generation,
                        read: None,
                    });
                }),
                Some(Load { began, read: None }) => step("a load reads", &|state| {
                    state.loads[at] = Some(Load {
                        began,
                        read: Some(state.list),
                    });
                }),
                Some(Load {
                    began,
                    read: Some(list),
                }) => step("a load fills the cache", &|state| {
                    state.loads[at] = None;
                    let is_current = without == Some(Without::Generations)
                        || sees(began.into(), state.forgotten.into());
                    if is_current && state.hears {
                        state.entry = Some((list, began));
                    }
                }),
            }
        }
        let is_between = self.unforgotten || self.uncommitted;
        if self.own > 0 && !is_between {
            match without {
                Some(Without::CommitFirst) => step("we forget, before the commit", &|state| {
                    state.own -= 1;
                    state.forget();
                    state.entry = None;
                    state.uncommitted = true;
                }),
                _ => step("we commit", &|state| {
                    state.own -= 1;
                    state.list += 1;
                    state.unforgotten = true;
                }),
            }
        }
        if self.unforgotten {
            step("we forget, and acknowledge", &|state| {
                state.forget();
                if without == Some(Without::Generations) {
                    state.entry = None;
                }
                state.unforgotten = false;
                state.acknowledged = state.list;
            });
        }
        if self.uncommitted {
            step("we commit, and acknowledge", &|state| {
                state.list += 1;
                state.uncommitted = false;
                state.acknowledged = state.list;
            });
        }
        if self.others > 0 && !self.untold {
            step("another process commits", &|state| {
                state.others -= 1;
                state.list += 1;
                state.untold = true;
            });
        }
        if self.untold {
            step("another process tells", &|state| {
                state.untold = false;
                state.told += u8::from(state.hears);
            });
        }
        if self.told > 0 && self.hears {
            step("we hear", &|state| {
                state.told -= 1;
                state.forget();
                if without == Some(Without::Generations) {
                    state.entry = None;
                }
            });
        }
        if self.hears && self.losses > 0 {
            step("the listener is lost", &|state| {
                state.losses -= 1;
                state.hears = false;
                state.told = 0;
            });
        }
        if !self.hears {
            step("we hear again", &|state| {
                if without != Some(Without::ForgettingWhenHearing) {
                    state.forget();
                }
                state.hears = true;
            });
        }
        next
    }
}

/// How many states there are, and the steps to one in which something wrong is given.
fn search(without: Option<Without>) -> (usize, Option<String>) {
    let mut reached = vec![(State::first(), usize::MAX, "at first")];
    let mut known: HashSet<State> = [State::first()].into();
    let mut at = 0;
    while let Some((state, ..)) = reached.get(at).copied() {
        if let Some(why) = state.wrong(without) {
            let mut steps = Vec::new();
            let mut back = at;
            while let Some((state, from, what)) = reached.get(back) {
                steps.push(format!("{what}: {state:?}"));
                back = *from;
            }
            steps.reverse();
            return (reached.len(), Some(format!("{why}\n{}", steps.join("\n"))));
        }
        for (what, state) in state.next(without) {
            if known.insert(state) {
                reached.push((state, at, what));
            }
        }
        at += 1;
    }
    (reached.len(), None)
}

#[test]
fn no_interleaving_leaves_a_stale_answer_behind() {
    let (states, counterexample) = search(None);
    assert_eq!(counterexample, None);
    assert!(states > 50_000, "{states} states only");
}

/// The control of the test above: it would see a part of the protocol missing.
#[test]
fn without_any_part_of_it_a_stale_answer_is_left_behind() {
    for without in [
        Without::Generations,
        Without::CommitFirst,
        Without::ForgettingWhenHearing,
        Without::BypassWhileDeaf,
    ] {
        let (states, counterexample) = search(Some(without));
        assert!(
            counterexample.is_some(),
            "{without:?} should be needed, but nothing wrong was found in {states} states"
        );
    }
}
