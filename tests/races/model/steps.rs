//! What can happen next. Each step is one transaction, or one look, and anything may happen between
//! two of them.

use recents::capture::decide::{Change, LookAgain};

use super::notes::About;
use super::state::{Drainer, State, Table, Time, Use, Writer};

/// A part of the protocol that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Without {
    NoteOfRaise,
    NoteOfLowering,
    NoteOfDisagreement,
    /// A note is not added where there is one about the same.
    NewNoteEachTime,
    /// The history is read before notes are taken.
    ReadingAfterTaking,
    /// Notes are deleted as they are taken.
    KeepingNotesTaken,
    /// The hook's note is a transaction of its own, before the raise,
    RaiseAfterNote,
    /// or after it.
    NoteAfterRaise,
    /// A rebuild only merges,
    ScanOfRebuild,
    /// or it only notes every row.
    MergeOfRebuild,
    /// A sweep takes the row of whatever was dismissed, hidden or not.
    AskingTheRow,
}

/// Who is there. How much they may do is in the state.
#[derive(Debug, Clone, Copy)]
pub(super) struct Actors {
    pub(super) runs: u8,
    pub(super) keys: u8,
    pub(super) times: u8,
    pub(super) drainers: usize,
    pub(super) without: Option<Without>,
}

/// What happens, and what there is then.
pub(super) type Next = (&'static str, State);

impl Actors {
    /// Everything that can happen next.
    ///
    /// A look at the history changes nothing for anybody else, and tells the same at any time between
    /// two transactions of the application. So looks are taken just before one of those, or together
    /// with the write that they lead to; any other order ends the same.
    pub(super) fn next(&self, state: &State, next: &mut Vec<Next>) {
        if state.transactions > 0 {
            self.application(state, next);
        }
        for drainer in 0..self.drainers {
            self.drain(state, drainer, next);
        }
        self.hook(state, next);
        self.backfill(state, next);
        self.scan(state, next);
        self.dismiss(state, next);
        self.sweep(state, next);
        if state.crashes > 0 {
            crash(state, next);
        }
    }

    pub(super) fn lacks(&self, ingredient: Without) -> bool {
        self.without == Some(ingredient)
    }

    /// Inserts a run, deletes it, moves it to another key or changes its time, with the trigger's note
    /// in the same transaction. Before it, any of those who are about to look may do so.
    fn application(&self, state: &State, next: &mut Vec<Next>) {
        let mut before = vec![*state];
        let mut at = 0;
        while let Some(state) = before.get(at).copied() {
            for drainer in 0..self.drainers {
                before.extend(self.look(&state, drainer));
            }
            before.extend(self.look_of_hook(&state));
            before.extend(self.look_of_backfill(&state));
            at += 1;
        }
        for state in before {
            for run in 0..self.runs {
                for becomes in all_uses(self.keys, self.times) {
                    let mut then = state;
                    let said = &mut then.history.0[usize::from(run)];
                    if *said == becomes {
                        continue;
                    }
                    *said = becomes;
                    then.transactions -= 1;
                    self.note(&mut then, About::Run(run));
                    next.push(("the application changes a run", then));
                }
            }
        }
    }

    /// A watermark is one transaction that reads no row and writes none. One that a write under way did
    /// not see is as one that came after that write.
    fn dismiss(&self, state: &State, next: &mut Vec<Next>) {
        for key in (0..self.keys).filter(|_| state.dismissals > 0) {
            for time in times(self.times) {
                let mut then = *state;
                then.dismissals -= 1;
                let until = &mut then.until[usize::from(key)];
                *until = (*until).max(Some(time));
                next.push(("a user dismisses", then));
            }
        }
    }

    /// Without a note: nobody has to look again.
    fn sweep(&self, state: &State, next: &mut Vec<Next>) {
        for (key, row) in state.table.rows() {
            let dismissed = state.until[usize::from(key)].is_some();
            if state.is_hidden(key, row.time) || self.lacks(Without::AskingTheRow) && dismissed {
                let mut then = *state;
                *then.table.row(key) = None;
                next.push(("a row is swept", then));
            }
        }
    }

    pub(super) fn note(&self, state: &mut State, about: About) {
        if !(self.lacks(Without::NewNoteEachTime) && state.notes.has(about)) {
            state.notes.add(about);
        }
    }

    /// PROTOCOL's `raise`, with the note that the product's code decides, of the first of these uses; nothing where there is none left. What is
    /// dismissed is not written.
    pub(super) fn raise_first(&self, state: &mut State, uses: &mut Table) {
        if let Some((key, newest)) = uses.rows().next() {
            *uses.row(key) = None;
            let writes = !state.is_hidden(key, newest.time) && state.table.raise(key, newest);
            if writes && !self.lacks(Without::NoteOfRaise) {
                match Change::Raise.note() {
                    LookAgain::Nothing => {}
                    LookAgain::Run => self.note(state, About::Run(newest.run)),
                    LookAgain::Row => self.note(state, About::Key(key)),
                }
            }
        }
    }
}

/// Who crashes loses what it had in memory. The backfill reads its window again; the hook is not
/// called again.
fn crash(state: &State, next: &mut Vec<Next>) {
    let crashes = state.crashes - 1;
    let then = State { crashes, ..*state };
    for (at, drainer) in state.drainers.iter().enumerate() {
        if *drainer != Drainer::Idle {
            let mut then = then;
            then.drainers[at] = Drainer::Idle;
            then.notes.forget(at);
            next.push(("a drainer crashes", then));
        }
    }
    if !matches!(state.hook, Writer::Waits | Writer::Done) {
        let hook = Writer::Done;
        next.push(("the hook crashes", State { hook, ..then }));
    }
    if !matches!(state.backfill, Writer::Waits | Writer::Done) {
        let backfill = Writer::Waits;
        next.push(("the backfill crashes", State { backfill, ..then }));
    }
}

/// Everything that a run can map to, and nothing.
pub(super) fn all_uses(keys: u8, times: u8) -> impl Iterator<Item = Option<Use>> {
    let uses = (0..keys).flat_map(move |key| self::times(times).map(move |time| Use { key, time }));
    uses.map(Some).chain([None])
}

pub(super) fn times(count: u8) -> impl Iterator<Item = Time> {
    [Time::Early, Time::Late]
        .into_iter()
        .take(usize::from(count))
}
