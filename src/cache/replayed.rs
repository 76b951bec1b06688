//! How far a streaming replica must be to have a list as it is.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use super::generation::SCOPES;
use super::invalidation::{Changed, Reason};
use super::news::News;

/// For each list, and for all of them, how far one must be. 4 MiB.
#[derive(Debug)]
pub(super) struct Replayed {
    scopes: Box<[Mark]>,
    all: Mark,
    /// Whether something changed of which nobody knows what it is, or how far: no replica is far enough.
    is_unknown: AtomicBool,
    /// The greatest position that any change is known to be behind.
    furthest: AtomicU64,
}

/// How far one must be to have some changes. The position of one of our own comes later than others may be
/// heard of that were behind it, so that neither may take the other's place.
#[derive(Debug, Default)]
struct Mark {
    /// The number of the last write of this process whose position is not known yet: no replica is far enough. 0
    /// where there is none.
    pending: AtomicU64,
    /// The greatest position that is known to be behind a change.
    behind: AtomicU64,
}

impl Mark {
    fn pending(&self, sequence: u64) {
        self.pending.fetch_max(sequence, SeqCst);
    }

    fn behind(&self, position: u64) {
        self.behind.fetch_max(position, SeqCst);
    }

    fn told(&self, sequence: u64, position: u64) {
        // First, as `has` reads them in turn.
        self.behind(position);
        let is_told = |pending| (pending <= sequence).then_some(0);
        let _ = self.pending.fetch_update(SeqCst, SeqCst, is_told);
    }

    fn is_anywhere(&self) {
        self.behind.store(0, SeqCst);
    }

    fn has(&self, position: u64) -> bool {
        self.pending.load(SeqCst) == 0 && self.behind.load(SeqCst) <= position
    }
}

impl Default for Replayed {
    fn default() -> Self {
        Self::of(SCOPES)
    }
}

impl Replayed {
    fn of(scopes: usize) -> Self {
        Self {
            scopes: (0..scopes).map(|_| Mark::default()).collect(),
            all: Mark::default(),
            is_unknown: AtomicBool::new(false),
            furthest: AtomicU64::new(0),
        }
    }

    fn slot(&self, slot: u32) -> &Mark {
        &self.scopes[slot as usize % self.scopes.len()]
    }

    /// A write of this process with this number was committed; its position comes with its telling.
    pub(super) fn commit(&self, changed: &Changed, reason: Reason, sequence: u64) {
        let mut news = News::default();
        news.add(changed, reason);
        self.each(&news, |mark| mark.pending(sequence));
    }

    /// The news of this process were told, at a position behind them.
    pub(super) fn told(&self, news: &News, position: u64) {
        self.each(news, |mark| mark.told(news.sequence, position));
        self.furthest.fetch_max(position, SeqCst);
    }

    /// Another process told its news, at a position behind them.
    pub(super) fn heard(&self, news: &News, position: u64) {
        self.each(news, |mark| mark.behind(position));
        self.furthest.fetch_max(position, SeqCst);
    }

    /// What was written before this position may have gone unheard.
    pub(super) fn begin(&self, position: u64) {
        self.all.behind(position);
        self.furthest.fetch_max(position, SeqCst);
    }

    /// How far some change was, by all that is known.
    pub(super) fn furthest(&self) -> u64 {
        self.furthest.load(SeqCst)
    }

    /// Something was told that cannot be read.
    pub(super) fn heard_something(&self) {
        self.is_unknown.store(true, SeqCst);
    }

    /// Some position is none of the primary's, but another log's, or made up: a replica would have to be there
    /// for as long as that is ahead. Nothing is known of any, as of what cannot be read.
    pub(super) fn heard_nonsense(&self) {
        // First, as `has` reads them in turn.
        self.heard_something();
        self.all.is_anywhere();
        self.scopes.iter().for_each(Mark::is_anywhere);
        self.furthest.store(0, SeqCst);
    }

    /// Whatever that was, it was written before this position.
    pub(super) fn known(&self, position: u64) {
        if self.is_unknown.load(SeqCst) {
            // First, as `has` reads them in turn.
            self.begin(position);
            self.is_unknown.store(false, SeqCst);
        }
    }

    fn each(&self, news: &News, change: impl Fn(&Mark)) {
        for slot in news.every_slot() {
            change(self.slot(*slot));
        }
        // Too many lists are told as everything: each of them may have been noted by itself before.
        if news.everything {
            self.scopes.iter().for_each(&change);
        }
        if news.everything || !news.workspaces.is_empty() || !news.published_runs.is_empty() {
            change(&self.all);
        }
    }

    /// Whether a replica that has replayed a position has a list as it is.
    pub(super) fn has(&self, scope: u32, position: u64) -> bool {
        let is_known = !self.is_unknown.load(SeqCst);
        is_known && self.slot(scope).has(position) && self.all.has(position)
    }
}

#[cfg(test)]
mod tests {
    use super::super::generation::scope_slot;
    use super::*;
    use crate::model::{Id, Key};

    /// Further than any replica is.
    const ANY: u64 = u64::MAX;

    fn rows(workspace: &str) -> Changed {
        Changed::Rows(vec![Key::new(workspace, "", "p")])
    }

    fn everywhere() -> Changed {
        Changed::PublishedRun(Id::new("p").unwrap())
    }

    fn news(changed: &Changed, sequence: u64) -> News {
        let mut news = News::default();
        news.add(changed, Reason::Write);
        News { sequence, ..news }
    }

    #[test]
    fn a_list_is_replayed_when_the_position_of_its_last_change_is() {
        let replayed = Replayed::default();
        let has = |workspace, position| replayed.has(scope_slot(workspace, ""), position);
        assert!(has("a", 0));
        replayed.commit(&rows("a"), Reason::Write, 1);
        assert!(!has("a", ANY) && has("b", 0), "its position is not known");
        replayed.commit(&rows("a"), Reason::Write, 2);
        replayed.told(&news(&rows("a"), 1), 10);
        assert!(!has("a", ANY), "the second one is still to be told");
        replayed.told(&news(&rows("a"), 2), 20);
        assert!(!has("a", 19) && has("a", 20));
        replayed.heard(&news(&rows("a"), 1), 30);
        assert!(!has("a", 29) && has("a", 30));
        let everywhere = everywhere();
        replayed.commit(&everywhere, Reason::Write, 3);
        assert!(!has("b", ANY), "it may be in any list");
        replayed.told(&news(&everywhere, 3), 40);
        assert!(!has("b", 39) && has("b", 40) && has("a", 40));
        replayed.commit(&rows("b"), Reason::Write, 4);
        replayed.told(&news(&Changed::Everything, 4), 50);
        assert!(!has("b", 49) && has("b", 50));
    }

    #[test]
    fn what_is_heard_before_an_earlier_write_of_ours_is_told_is_not_forgotten_with_that() {
        for changed in [rows("a"), everywhere()] {
            let replayed = Replayed::default();
            let has = |position| replayed.has(scope_slot("a", ""), position);
            replayed.commit(&changed, Reason::Write, 1);
            // Written behind ours was told; that it was is on its way.
            replayed.heard(&news(&changed, 7), 20);
            assert!(!has(ANY), "{changed:?}: its own is still to be told");
            replayed.told(&news(&changed, 1), 10);
            assert!(!has(10) && !has(19), "{changed:?}: it lacks the other one");
            assert!(has(20), "{changed:?}");
        }
        let replayed = Replayed::default();
        replayed.commit(&everywhere(), Reason::Write, 1);
        replayed.begin(20);
        replayed.told(&news(&everywhere(), 1), 10);
        let has = |position| replayed.has(scope_slot("a", ""), position);
        assert!(!has(19) && has(20), "what was before 20 may be unheard");
    }

    #[test]
    fn behind_what_cannot_be_read_the_primary_answers_until_it_says_where_it_is() {
        let replayed = Replayed::default();
        let has = |position| replayed.has(scope_slot("a", ""), position);
        replayed.known(10);
        assert!(has(0), "nothing was heard");
        replayed.heard_something();
        assert!(!has(ANY));
        replayed.known(20);
        assert!(!has(19) && has(20));
    }

    #[test]
    fn a_position_that_the_primary_never_had_holds_no_replica_back() {
        for changed in [rows("a"), everywhere(), Changed::Everything] {
            let replayed = Replayed::default();
            let has = |position| replayed.has(scope_slot("a", ""), position);
            replayed.begin(10);
            replayed.heard(&news(&changed, 7), ANY - 1);
            replayed.commit(&changed, Reason::Write, 1);
            assert_eq!(replayed.furthest(), ANY - 1);
            replayed.heard_nonsense();
            assert!(!has(ANY), "{changed:?}: nobody knows how far that was");
            replayed.known(30);
            assert!(!has(ANY), "{changed:?}: its own is still to be told");
            replayed.told(&news(&changed, 1), 20);
            assert!(!has(29) && has(30), "{changed:?}");
            assert_eq!(replayed.furthest(), 30);
        }
    }

    /// Two writes of ours to a list, and one of another process.
    #[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash)]
    struct State {
        /// The database's log: how many commits there are.
        log: u64,
        /// Where our writes were committed, and which of them are marked here; how many that are is the last
        /// one's number.
        own: [Option<u64>; 2],
        is_marked: [bool; 2],
        /// The last number that was told, and that is being told: taken, and executed by the database where.
        told: u64,
        taken: Option<u64>,
        executed: Option<u64>,
        /// Where the other's write was committed, where it was told, and whether that was heard.
        others: Option<u64>,
        others_told: Option<u64>,
        is_heard: bool,
        /// The list's mark: pending, behind.
        mark: (u64, u64),
    }

    impl State {
        fn sequence(&self) -> u64 {
            self.is_marked.iter().map(|marked| u64::from(*marked)).sum()
        }

        /// Its mark changed by what is in use.
        fn marked(mut self, change: impl Fn(&Replayed)) -> Self {
            let replayed = self.replayed();
            change(&replayed);
            let mark = &replayed.scopes[0];
            self.mark = (mark.pending.load(SeqCst), mark.behind.load(SeqCst));
            self
        }

        fn replayed(&self) -> Replayed {
            let replayed = Replayed::of(1);
            replayed.scopes[0].pending(self.mark.0);
            replayed.scopes[0].behind(self.mark.1);
            replayed
        }

        fn next(&self) -> Vec<Self> {
            let list = rows("a");
            let mut next = Vec::new();
            let log = self.log + 1;
            for at in 0..self.own.len() {
                let (mut own, mut is_marked) = (self.own, self.is_marked);
                if self.own[at].is_none() {
                    own[at] = Some(log);
                    next.push(Self { log, own, ..*self });
                } else if !self.is_marked[at] {
                    is_marked[at] = true;
                    let marked = Self { is_marked, ..*self };
                    let sequence = marked.sequence();
                    let commit = |all: &Replayed| all.commit(&list, Reason::Write, sequence);
                    next.push(marked.marked(commit));
                }
            }
            match (self.taken, self.executed) {
                (None, _) if self.told < self.sequence() => next.push(Self {
                    taken: Some(self.sequence()),
                    ..*self
                }),
                (Some(_), None) => next.push(Self {
                    executed: Some(self.log),
                    ..*self
                }),
                (Some(told), Some(at)) => {
                    let (taken, executed) = (None, None);
                    let ended = Self {
                        told,
                        taken,
                        executed,
                        ..*self
                    };
                    next.push(ended.marked(|all| all.told(&news(&list, told), at)));
                }
                _ => {}
            }
            match (self.others, self.others_told) {
                (None, _) => next.push(Self {
                    log,
                    others: Some(log),
                    ..*self
                }),
                (_, None) => next.push(Self {
                    others_told: Some(self.log),
                    ..*self
                }),
                (_, Some(at)) if !self.is_heard => {
                    let heard = Self {
                        is_heard: true,
                        ..*self
                    };
                    next.push(heard.marked(|all| all.heard(&news(&list, 1), at)));
                }
                _ => {}
            }
            next
        }

        /// All that is known of here has to be in a replica that counts as far enough.
        fn check(&self) {
            let replayed = self.replayed();
            let own = self.own.iter().zip(self.is_marked);
            let own = own.filter_map(|(at, marked)| at.filter(|_| marked));
            let known = own.chain(self.others.filter(|_| self.is_heard));
            let needed = known.max().unwrap_or(0);
            for at in 0..needed {
                assert!(!replayed.has(0, at), "{at} is far enough in {self:?}");
            }
            if self.told == 2 && self.is_heard {
                assert!(
                    replayed.has(0, self.log),
                    "nothing is far enough in {self:?}"
                );
            }
        }
    }

    #[test]
    fn in_no_order_of_what_is_written_told_and_heard_a_replica_counts_that_lacks_some_of_it() {
        let mut known = std::collections::HashSet::from([State::default()]);
        let mut reached = vec![State::default()];
        while let Some(state) = reached.pop() {
            state.check();
            let next = state.next().into_iter();
            reached.extend(next.filter(|next| known.insert(*next)));
        }
        assert!(known.len() > 900, "{} states only", known.len());
    }
}
