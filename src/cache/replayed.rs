//! How far a streaming replica must be to have a list as it is.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use super::generation::SCOPES;
use super::invalidation::{Changed, Reason};
use super::news::News;

/// Marks the number of a write whose position is not known yet: no replica is far enough.
const PENDING: u64 = 1 << 63;

/// For each list, and for all of them, a position behind its last change; or the number of that, while
/// its position is not known.
#[derive(Debug)]
pub(super) struct Replayed {
    scopes: Box<[AtomicU64]>,
    all: AtomicU64,
}

impl Default for Replayed {
    fn default() -> Self {
        Self {
            scopes: (0..SCOPES).map(|_| AtomicU64::new(0)).collect(),
            all: AtomicU64::new(0),
        }
    }
}

impl Replayed {
    fn slot(&self, slot: u32) -> &AtomicU64 {
        &self.scopes[slot as usize % SCOPES]
    }

    /// A write of this process with this number was committed; its position comes with its telling.
    pub(super) fn commit(&self, changed: &Changed, reason: Reason, sequence: u64) {
        let mut news = News::default();
        news.add(changed, reason);
        self.each(&news, |at| at.store(PENDING | sequence, SeqCst));
    }

    /// The news of this process were told, at a position behind them.
    pub(super) fn told(&self, news: &News, position: u64) {
        self.each(news, |at| {
            let _ = at.fetch_update(SeqCst, SeqCst, |known| {
                let is_told = known & PENDING != 0 && known & !PENDING <= news.sequence;
                is_told.then_some(position)
            });
        });
    }

    /// Another process told its news, at a position behind them.
    pub(super) fn heard(&self, news: &News, position: u64) {
        // One whose own position is still to come stays so: that will be the later one.
        self.each(news, |at| {
            at.fetch_max(position, SeqCst);
        });
    }

    /// What was written before this position may have gone unheard.
    pub(super) fn begin(&self, position: u64) {
        self.all.fetch_max(position, SeqCst);
    }

    fn each(&self, news: &News, change: impl Fn(&AtomicU64)) {
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
        let behind = |at: &AtomicU64| at.load(SeqCst) <= position;
        behind(self.slot(scope)) && behind(&self.all)
    }
}

#[cfg(test)]
mod tests {
    use super::super::generation::scope_slot;
    use super::*;
    use crate::model::{Id, Key};

    #[test]
    fn a_list_is_replayed_when_the_position_of_its_last_change_is() {
        let replayed = Replayed::default();
        let rows = |workspace| Changed::Rows(vec![Key::new(workspace, "", "p")]);
        let has = |workspace, position| replayed.has(scope_slot(workspace, ""), position);
        let news = |changed: &Changed, sequence| {
            let mut news = News::default();
            news.add(changed, Reason::Write);
            News { sequence, ..news }
        };
        assert!(has("a", 0));
        replayed.commit(&rows("a"), Reason::Write, 1);
        assert!(
            !has("a", PENDING - 1) && has("b", 0),
            "its position is not known"
        );
        replayed.commit(&rows("a"), Reason::Write, 2);
        replayed.told(&news(&rows("a"), 1), 10);
        assert!(!has("a", PENDING - 1), "the second one is still to be told");
        replayed.told(&news(&rows("a"), 2), 20);
        assert!(!has("a", 19) && has("a", 20));
        replayed.heard(&news(&rows("a"), 1), 30);
        assert!(!has("a", 29) && has("a", 30));
        let everywhere = Changed::PublishedRun(Id::new("p").unwrap());
        replayed.commit(&everywhere, Reason::Write, 3);
        assert!(!has("b", PENDING - 1), "it may be in any list");
        replayed.told(&news(&everywhere, 3), 40);
        assert!(!has("b", 39) && has("b", 40) && has("a", 40));
        replayed.commit(&rows("b"), Reason::Write, 4);
        replayed.told(&news(&Changed::Everything, 4), 50);
        assert!(!has("b", 49) && has("b", 50));
    }
}
