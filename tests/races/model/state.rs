//! What there is at one moment. Small and `Copy`: the search keeps every state that it saw.

use super::notes::{Notes, Taken};

/// Runs that there can be,
pub(super) const RUNS: usize = 3;
/// and rows.
pub(super) const KEYS: usize = 2;

/// A time of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Time {
    Early,
    Late,
}

/// What a row says: the newest use, and the run of it. Ordered as the product orders uses, ties by
/// run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Newest {
    pub(super) time: Time,
    pub(super) run: u8,
}

/// What a run maps to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Use {
    pub(super) key: u8,
    pub(super) time: Time,
}

/// What each run maps to; `None` where it is no use, or is not there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct History(pub(super) [Option<Use>; RUNS]);

impl History {
    /// The rows that a run stands for.
    pub(super) fn of(&self, run: u8) -> impl Iterator<Item = (u8, Newest)> + use<> {
        let said = self.0[usize::from(run)].into_iter();
        said.map(move |Use { key, time }| (key, Newest { time, run }))
    }

    /// The greatest use of each key: what the table should be.
    pub(super) fn best(&self) -> Table {
        let mut best = Table::default();
        for run in 0..RUNS as u8 {
            for (key, newest) in self.of(run) {
                best.raise(key, newest);
            }
        }
        best
    }
}

/// A row for each key, or none; also the greatest uses that somebody read and has yet to write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Table(pub(super) [Option<Newest>; KEYS]);

impl Table {
    pub(super) fn row(&mut self, key: u8) -> &mut Option<Newest> {
        &mut self.0[usize::from(key)]
    }

    /// Raises a row to this use; returns whether that changed it.
    pub(super) fn raise(&mut self, key: u8, newest: Newest) -> bool {
        let row = self.row(key);
        let raises = Some(newest) > *row;
        if raises {
            *row = Some(newest);
        }
        raises
    }

    pub(super) fn rows(self) -> impl Iterator<Item = (u8, Newest)> {
        let rows = (0..KEYS as u8).zip(self.0);
        rows.filter_map(|(key, row)| row.map(|row| (key, row)))
    }

    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Where a drainer is, and what it has in memory. The numbers are PROTOCOL's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Drainer {
    #[default]
    Idle,
    /// 1: it took notes,
    Took(Taken),
    /// 2: looked at the runs,
    Mapped(Taken, History),
    /// and at the keys.
    Looked(Taken, History, Table),
    /// 3a: it lowered rows and left notes; now it raises rows to these uses, 3b, and then lets go of
    /// the notes, 4.
    Settled(Table),
}

/// Where the hook is, or the backfill.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Writer {
    /// It has yet to read.
    Waits,
    /// It read these uses, and raises rows to them.
    Holds(Table),
    /// Its note is there, its use is not: only with a part of the protocol left out.
    Noted(Table),
    /// Its use is there, the note of its run is not: likewise.
    Owes(u8),
    /// It is finished, or never was.
    #[default]
    Done,
}

/// Everything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct State {
    pub(super) history: History,
    pub(super) table: Table,
    /// Of each key, up to when it is dismissed.
    pub(super) until: [Option<Time>; KEYS],
    pub(super) notes: Notes,
    pub(super) drainers: [Drainer; 2],
    pub(super) hook: Writer,
    pub(super) backfill: Writer,
    /// Whether a rebuild has yet to note every row; its merge is a backfill.
    pub(super) scans: bool,
    /// What the application may still commit.
    pub(super) transactions: u8,
    /// What users may still dismiss.
    pub(super) dismissals: u8,
    /// How often somebody may still crash.
    pub(super) crashes: u8,
}

impl State {
    /// Whether nobody has anything left to do. The application need not begin anything more, nor a
    /// hook be called.
    pub(super) fn is_at_rest(&self) -> bool {
        self.notes.is_empty()
            && self.drainers == [Drainer::Idle; 2]
            && matches!(self.hook, Writer::Waits | Writer::Done)
            && self.backfill == Writer::Done
            && !self.scans
    }

    /// Every row supported and every row complete: the table is the history's grouped maximum, what is
    /// dismissed apart.
    pub(super) fn is_right(&self) -> bool {
        self.visible(self.table) == self.visible(self.history.best())
    }

    fn visible(&self, mut table: Table) -> Table {
        for (row, until) in table.0.iter_mut().zip(self.until) {
            *row = row.filter(|row| Some(row.time) > until);
        }
        table
    }

    /// Whether a use of this key at that time is dismissed.
    pub(super) fn is_hidden(&self, key: u8, time: Time) -> bool {
        self.until[usize::from(key)] >= Some(time)
    }

    /// Two drainers are alike: one state stands for both ways to name them.
    pub(super) fn with_drainers_sorted(mut self) -> Self {
        if self.drainers[0] > self.drainers[1] {
            self.drainers.swap(0, 1);
            self.notes.swap_drainers();
        }
        self
    }
}
