//! The steps of the hook, of the backfill and of a rebuild.

use super::notes::About;
use super::state::{State, Table, Writer};
use super::steps::{Actors, Next, Without};

impl Actors {
    pub(super) fn hook(&self, state: &State, next: &mut Vec<Next>) {
        let mut then = *state;
        let (what, hook) = match state.hook {
            Writer::Waits => {
                for state in self.look_of_hook(state) {
                    self.hook(&state, next);
                }
                return;
            }
            Writer::Holds(uses) if self.lacks(Without::RaiseAfterNote) => {
                for (_, newest) in uses.rows() {
                    self.note(&mut then, About::Run(newest.run));
                }
                ("the hook notes its run", Writer::Noted(uses))
            }
            Writer::Holds(uses) if self.lacks(Without::NoteAfterRaise) => {
                let raised = uses
                    .rows()
                    .find(|(key, newest)| then.table.raise(*key, *newest));
                let hook = raised.map_or(Writer::Done, |(_, newest)| Writer::Owes(newest.run));
                ("the hook raises", hook)
            }
            Writer::Holds(mut uses) => {
                self.raise_first(&mut then, &mut uses);
                ("the hook raises", Writer::Done)
            }
            Writer::Noted(uses) => {
                for (key, newest) in uses.rows() {
                    then.table.raise(key, newest);
                }
                ("the hook raises", Writer::Done)
            }
            Writer::Owes(run) => {
                self.note(&mut then, About::Run(run));
                ("the hook notes its run", Writer::Done)
            }
            Writer::Done => return,
        };
        next.push((what, State { hook, ..then }));
    }

    /// What the hook can have read: any use, as its run was written or later.
    pub(super) fn look_of_hook(&self, state: &State) -> Vec<State> {
        if state.hook != Writer::Waits {
            return Vec::new();
        }
        let uses = (0..self.runs).flat_map(|run| state.history.of(run));
        uses.map(|(key, newest)| {
            let mut held = Table::default();
            held.raise(key, newest);
            let hook = Writer::Holds(held);
            State { hook, ..*state }
        })
        .collect()
    }

    pub(super) fn backfill(&self, state: &State, next: &mut Vec<Next>) {
        let mut then = self.look_of_backfill(state).unwrap_or(*state);
        let Writer::Holds(mut uses) = then.backfill else {
            return;
        };
        self.raise_first(&mut then, &mut uses);
        then.backfill = match uses.is_empty() {
            true => Writer::Done,
            false => Writer::Holds(uses),
        };
        next.push(("the backfill raises", then));
    }

    /// A rebuild notes the run of every row, in one transaction.
    pub(super) fn scan(&self, state: &State, next: &mut Vec<Next>) {
        if !state.scans {
            return;
        }
        let mut then = State {
            scans: false,
            ..*state
        };
        for (_, row) in state.table.rows() {
            self.note(&mut then, About::Run(row.run));
        }
        next.push(("a rebuild notes every row", then));
    }

    /// One window, all of the history.
    pub(super) fn look_of_backfill(&self, state: &State) -> Option<State> {
        let backfill = Writer::Holds(state.history.best());
        (state.backfill == Writer::Waits).then_some(State { backfill, ..*state })
    }
}
