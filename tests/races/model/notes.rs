//! Notes, and taking them.

use super::state::{History, KEYS, RUNS, Table};

/// What has to be looked at again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    Run(u8),
    Key(u8),
}

/// The notes: a bit for each. A note is known by what it is about and by who took it, four bits for
/// the four sets of drainers. So notes are never deduplicated against one that somebody works on;
/// those that are alike in both are taken together, which only leaves fewer of them to help.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Notes(u32);

/// The notes that a drainer took: those with its bit in the number of their set.
const TAKEN_BY: [u32; 2] = [0xaaaa_aaaa, 0xcccc_cccc];
/// Moves a note that nobody else took to the set with this drainer.
const SHIFT: [u32; 2] = [1, 2];

impl About {
    fn all() -> impl Iterator<Item = Self> {
        let runs = (0..RUNS as u8).map(Self::Run);
        runs.chain((0..KEYS as u8).map(Self::Key))
    }

    /// The four bits of the notes about it.
    fn mask(self) -> u32 {
        0b1111 << (4 * self.place())
    }

    fn place(self) -> usize {
        match self {
            Self::Run(run) => usize::from(run),
            Self::Key(key) => RUNS + usize::from(key),
        }
    }
}

impl Notes {
    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn has(self, about: About) -> bool {
        self.0 & about.mask() != 0
    }

    pub(super) fn add(&mut self, about: About) {
        self.0 |= 1 << (4 * about.place());
    }

    /// Every way to take some of the notes, those too that another drainer took: what was taken, and
    /// the notes after it.
    pub(super) fn take(self, drainer: usize) -> impl Iterator<Item = (Taken, Self)> {
        let free = self.0 & !TAKEN_BY[drainer];
        // All subsets of these bits.
        let less = move |way: &u32| Some((way - 1) & free).filter(|less| *less != 0);
        std::iter::successors(Some(free).filter(|free| *free != 0), less).map(move |way| {
            let mut taken = Taken::default();
            for about in About::all().filter(|about| way & about.mask() != 0) {
                match about {
                    About::Run(run) => taken.runs[usize::from(run)] = true,
                    About::Key(key) => taken.keys[usize::from(key)] = true,
                }
            }
            (taken, Self(self.0 & !way | way << SHIFT[drainer]))
        })
    }

    /// Deletes the notes that a drainer took. What the other deleted before is gone already.
    pub(super) fn let_go(&mut self, drainer: usize) {
        self.0 &= !TAKEN_BY[drainer];
    }

    /// They stay, and nobody knows any more that this drainer took them.
    pub(super) fn forget(&mut self, drainer: usize) {
        let taken = self.0 & TAKEN_BY[drainer];
        self.0 = self.0 & !taken | taken >> SHIFT[drainer];
    }

    /// Renames two drainers to each other.
    pub(super) fn swap_drainers(&mut self) {
        let [first, second] = [0, 1].map(|d| self.0 & TAKEN_BY[d] & !TAKEN_BY[1 - d]);
        self.0 = self.0 & !(first | second) | first << 1 | second >> 1;
    }
}

impl std::fmt::Debug for Notes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut list = f.debug_list();
        for about in About::all().filter(|about| self.has(*about)) {
            for (set, taken_by) in ["nobody", "0", "1", "0, 1"].iter().enumerate() {
                if self.0 >> (4 * about.place() + set) & 1 != 0 {
                    list.entry(&format_args!("{about:?} taken by {taken_by}"));
                }
            }
        }
        list.finish()
    }
}

/// What the notes that were taken are about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Taken {
    pub(super) runs: [bool; RUNS],
    pub(super) keys: [bool; KEYS],
}

impl Taken {
    pub(super) fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// What a look at its runs tells.
    pub(super) fn map(&self, history: History) -> History {
        let said = |run: usize| history.0[run].filter(|_| self.runs[run]);
        History(std::array::from_fn(said))
    }

    /// What a look at its keys tells.
    pub(super) fn best(&self, history: History) -> Table {
        let best = history.best();
        let best_of = |key: usize| best.0[key].filter(|_| self.keys[key]);
        Table(std::array::from_fn(best_of))
    }
}
