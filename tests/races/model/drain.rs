//! The steps of a drainer, as PROTOCOL.md numbers them.

use recents::capture::decide::{Change, LookAgain, is_unsupported};

use super::notes::{About, Taken};
use super::state::{Drainer, History, KEYS, RUNS, State, Table};
use super::steps::{Actors, Next, Without};

impl Actors {
    pub(super) fn drain(&self, state: &State, at: usize, next: &mut Vec<Next>) {
        let mut becomes = |what, drainer, mut then: State| {
            then.drainers[at] = drainer;
            next.push((what, then));
        };
        match state.drainers[at] {
            Drainer::Idle if self.lacks(Without::ReadingAfterTaking) => {
                if let Some(state) = self.look(state, at) {
                    self.drain(&state, at, next);
                }
            }
            Drainer::Idle => {
                for (taken, then) in self.take(state, at) {
                    becomes("a drainer takes notes", Drainer::Took(taken), then);
                }
            }
            Drainer::Took(_) | Drainer::Mapped(..) => {
                if let Some(state) = self.look(state, at) {
                    self.drain(&state, at, next);
                }
            }
            Drainer::Looked(taken, said, best) if taken.is_nothing() => {
                for (taken, then) in self.take(state, at) {
                    let looked = Drainer::Looked(taken, taken.map(said), best);
                    becomes("a drainer takes notes", looked, then);
                }
            }
            Drainer::Looked(taken, said, best) => {
                for (raises, then) in self.settle(state, taken, said, best) {
                    becomes("a drainer settles", Drainer::Settled(raises), then);
                }
            }
            Drainer::Settled(raises) if raises.is_empty() => {
                let mut then = *state;
                then.notes.let_go(at);
                becomes("a drainer lets its notes go", Drainer::Idle, then);
            }
            Drainer::Settled(mut raises) => {
                let mut then = *state;
                self.raise_first(&mut then, &mut raises);
                becomes("a drainer raises", Drainer::Settled(raises), then);
            }
        }
    }

    fn take(&self, state: &State, at: usize) -> impl Iterator<Item = (Taken, State)> {
        state.notes.take(at).map(move |(taken, notes)| {
            let mut then = State { notes, ..*state };
            if self.lacks(Without::KeepingNotesTaken) {
                then.notes.let_go(at);
            }
            (taken, then)
        })
    }

    /// Step 2, in two looks, at the runs and then at the keys; `None` where it is not their turn.
    pub(super) fn look(&self, state: &State, at: usize) -> Option<State> {
        let read = state.history;
        let looked = match state.drainers[at] {
            Drainer::Idle if self.lacks(Without::ReadingAfterTaking) => {
                Drainer::Looked(Taken::default(), read, read.best())
            }
            Drainer::Took(taken) if taken.runs == [false; RUNS] => {
                Drainer::Looked(taken, History::default(), taken.best(read))
            }
            Drainer::Took(taken) if taken.keys == [false; KEYS] => {
                Drainer::Looked(taken, taken.map(read), Table::default())
            }
            Drainer::Took(taken) => Drainer::Mapped(taken, taken.map(read)),
            Drainer::Mapped(taken, said) => Drainer::Looked(taken, said, taken.best(read)),
            Drainer::Idle | Drainer::Looked(..) | Drainer::Settled(_) => return None,
        };
        let mut then = *state;
        then.drainers[at] = looked;
        Some(then)
    }

    /// Step 3a, decided by the product's code: what is left to raise, and the state after it. Of
    /// the rows that should go down, each may also stand for now, with the note.
    fn settle(
        &self,
        state: &State,
        taken: Taken,
        said: History,
        best: Table,
    ) -> Vec<(Table, State)> {
        let mut lowered = *state;
        let (mut raises, mut again, mut may_stand) = (said.best(), Vec::new(), Vec::new());
        for row in state.table.rows() {
            let run = row.1.run;
            if taken.runs[usize::from(run)]
                && is_unsupported(&row, said.of(run))
                && !self.lacks(Without::NoteOfDisagreement)
            {
                again.push(row.0);
            }
        }
        for key in (0..KEYS as u8).filter(|key| taken.keys[usize::from(*key)]) {
            let (row, best) = (lowered.table.row(key), best.0[usize::from(key)]);
            let change = Change::of(row.as_ref(), best.as_ref());
            match (change, best) {
                (Change::Raise, Some(best)) => _ = raises.raise(key, best),
                (Change::Lower | Change::Remove, _) => *row = best,
                _ => {}
            }
            if change.note() == LookAgain::Row && !self.lacks(Without::NoteOfLowering) {
                again.push(key);
                may_stand.push(usize::from(key));
            }
        }
        for key in again {
            self.note(&mut lowered, About::Key(key));
        }
        let mut ways = vec![(raises, lowered)];
        for key in may_stand {
            for (raises, mut then) in ways.clone() {
                then.table.0[key] = state.table.0[key];
                ways.push((raises, then));
            }
        }
        ways
    }
}
