//! Invalidation: every commit of a write forgets what it changed, here and, by what is told to them, in
//! every other process.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use super::generation::{Forgotten, Generations};
use super::news::News;
use super::primary::Primary;
use super::replayed::Replayed;
use super::writes::{Write, Writes, lock};
use crate::model::{Id, Key};

/// Why something was forgotten, as in `recents_cache_invalidations_total{reason}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Reason {
    /// Something was used, or a row was put right.
    Write,
    /// Something was dismissed.
    Dismissal,
    /// Another process told what it changed, or is seen to have changed something.
    OtherProcess,
    /// Nothing was heard of other processes for a while.
    Listener,
    /// An operator asked for it.
    Admin,
    /// The schema or a setting changed.
    Change,
}

impl Reason {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Self; 6] = [
        Self::Write,
        Self::Dismissal,
        Self::OtherProcess,
        Self::Listener,
        Self::Admin,
        Self::Change,
    ];

    /// Its name as a label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Dismissal => "dismissal",
            Self::OtherProcess => "other_process",
            Self::Listener => "listener",
            Self::Admin => "admin",
            Self::Change => "change",
        }
    }
}

/// What a commit changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// Rows of the table; their lists are forgotten.
    Rows(Vec<Key>),
    /// A list.
    List(Id, Option<Id>),
    /// Every list of a workspace.
    Workspace(Id),
    /// A published run, in whatever list.
    PublishedRun(Id),
    /// Anything.
    Everything,
}

struct Listener(Box<dyn Fn(&Changed) + Send + Sync>);

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Listener")
    }
}

/// What changes, told to whoever keeps answers. One for each store; its clones share it.
#[derive(Debug)]
pub struct Changes {
    /// What was forgotten here.
    pub generations: Generations,
    /// This process, as others know it.
    pub origin: u64,
    counts: [AtomicU64; Reason::ALL.len()],
    news: Mutex<News>,
    /// Whether somebody will tell them.
    is_told: AtomicBool,
    /// Held while they are told.
    pub(crate) telling: tokio::sync::Mutex<()>,
    /// SQLite: held while this process writes.
    pub(crate) writing: Arc<tokio::sync::Mutex<()>>,
    pub(super) writes: Writes,
    /// Hears of every published run and workspace that is forgotten, and of everything.
    listener: OnceLock<Listener>,
    /// SQLite: changes that this process made, of those that the database counts.
    own: AtomicI64,
    /// Which database it is, and how far.
    pub(crate) primary: Primary,
    /// Where replicas are read from: how far one must be.
    pub(super) replayed: OnceLock<Replayed>,
}

impl Default for Changes {
    fn default() -> Self {
        Self {
            generations: Generations::default(),
            origin: fastrand::u64(..),
            counts: Default::default(),
            news: Mutex::default(),
            is_told: AtomicBool::new(false),
            telling: tokio::sync::Mutex::default(),
            writing: Arc::default(),
            writes: Writes::default(),
            listener: OnceLock::new(),
            own: AtomicI64::new(0),
            primary: Primary::default(),
            replayed: OnceLock::new(),
        }
    }
}

impl Changes {
    /// Forgets what a commit changed, and has the other processes told. Returns the number of this write
    /// among those of this process.
    pub fn commit(&self, changed: &Changed, reason: Reason) -> u64 {
        let mut news = lock(&self.news);
        // Before it is forgotten: what a load that begins behind that reads is kept, also of a replica.
        if let Some(replayed) = self.replayed.get() {
            replayed.commit(changed, reason, news.sequence + 1);
        }
        self.forget(changed, reason);
        self.next_write(&mut news);
        news.add(changed, reason);
        news.sequence
    }

    /// Names a moment as a write that changed nothing, of which nobody needs to hear.
    pub(crate) fn pass(&self) {
        self.generations.advance();
        self.next_write(&mut lock(&self.news));
    }

    /// Numbers a write that was committed, and forgotten already.
    fn next_write(&self, news: &mut News) {
        news.sequence += 1;
        self.writes.written(news.sequence, self.generations.now());
    }

    /// Has somebody hear of every published run and workspace that is forgotten, and of everything, here or
    /// elsewhere; only the first one who asks.
    pub fn on_forget(&self, listener: impl Fn(&Changed) + Send + Sync + 'static) {
        self.listener.get_or_init(|| Listener(Box::new(listener)));
    }

    /// Forgets, here only.
    pub fn forget(&self, changed: &Changed, reason: Reason) {
        let hides = matches!(reason, Reason::Dismissal | Reason::Admin);
        let forget = |what| {
            self.generations.forget(what);
            if hides {
                self.generations.hide(what);
            }
        };
        match changed {
            Changed::Rows(keys) => {
                let mut last = ("", "");
                for key in keys {
                    let (workspace, uid, _) = key.parts();
                    // Sorted keys of one list stand together.
                    if last != (workspace, uid) {
                        forget(Forgotten::Scope(workspace, uid));
                        self.count(reason, 1);
                        tracing::debug!(reason = reason.name(), workspace, uid, "forgotten");
                    }
                    last = (workspace, uid);
                }
                return;
            }
            Changed::List(workspace, uid) => {
                forget(Forgotten::Scope(workspace, uid.as_deref().unwrap_or("")));
            }
            Changed::Workspace(workspace) => forget(Forgotten::Workspace(workspace)),
            Changed::PublishedRun(run) => forget(Forgotten::PublishedRun(run)),
            Changed::Everything => forget(Forgotten::Everything),
        }
        if let Some(Listener(listener)) = self.listener.get() {
            listener(changed);
        }
        self.count(reason, 1);
        tracing::debug!(reason = reason.name(), what = ?changed, "forgotten");
    }

    pub(super) fn count(&self, reason: Reason, by: u64) {
        self.counts[reason as usize].fetch_add(by, Ordering::Relaxed);
    }

    /// How often something was forgotten for a reason.
    pub fn counted(&self, reason: Reason) -> u64 {
        self.counts[reason as usize].load(Ordering::Relaxed)
    }

    /// The number of this process's newest write.
    pub fn sequence(&self) -> u64 {
        lock(&self.news).sequence
    }

    /// Whether the caller is to tell the news: there are some and nobody is telling them.
    pub(crate) fn begin_telling(&self) -> bool {
        !lock(&self.news).is_empty() && !self.is_told.swap(true, Ordering::SeqCst)
    }

    /// These news could not be told; they are to be told again, with what came since.
    pub(crate) fn give_back(&self, untold: News) {
        lock(&self.news).join(untold);
    }

    /// Takes the news to tell; `None` ends the telling.
    pub(crate) fn take_news(&self) -> Option<News> {
        let mut news = lock(&self.news);
        if news.is_empty() {
            // Under the lock: whoever adds some next will find that nobody tells them.
            self.is_told.store(false, Ordering::SeqCst);
            return None;
        }
        let sequence = news.sequence;
        let taken = std::mem::take(&mut *news);
        news.sequence = sequence;
        Some(taken)
    }

    /// Whether a load that began at a generation sees a write of any process, and all that was committed
    /// before that, by whomever: it began behind the write, or behind the news of it.
    pub fn sees(&self, began: u64, write: &Write) -> bool {
        match write.origin == self.origin {
            true => self.writes.is_own_seen(began, write, self.sequence()),
            false => self.writes.is_anothers_seen(began, write),
        }
    }

    /// Somebody presented this write of another process: it is committed, and a load that begins from now
    /// on sees it, whether or not it is ever heard of. Only this very write, because a token may be made up.
    pub fn presented(&self, write: &Write) {
        if write.origin != self.origin {
            self.writes.presented(write, || self.generations.advance());
        }
    }

    /// SQLite: this process made so many of the changes that the database counts.
    pub(crate) fn own(&self, changes: i64) {
        self.own.fetch_add(changes, Ordering::SeqCst);
    }

    /// SQLite: how many this process made.
    pub(crate) fn owned(&self) -> i64 {
        self.own.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::super::news::MAX_TOLD;
    use super::*;

    fn id(text: &str) -> Id {
        Id::new(text).unwrap()
    }

    #[test]
    fn too_many_lists_are_told_as_everything() {
        let changes = Changes::default();
        let key = |i: usize| Key::new(&format!("w{i}"), "", "p");
        changes.commit(&Changed::Rows((0..10).map(key).collect()), Reason::Write);
        assert!(changes.begin_telling() && !changes.begin_telling());
        let news = changes.take_news().unwrap();
        assert_eq!(
            (news.slots.len(), news.everything, news.sequence),
            (10, false, 1)
        );
        assert_eq!(changes.take_news(), None);
        changes.commit(
            &Changed::Rows((0..2 * MAX_TOLD).map(key).collect()),
            Reason::Write,
        );
        changes.commit(&Changed::PublishedRun(id("88")), Reason::Dismissal);
        assert!(changes.begin_telling(), "whoever told before has ended");
        let news = changes.take_news().unwrap();
        let rest = news.slots.len() + news.published_runs.len();
        assert_eq!((rest, news.everything, news.sequence), (0, true, 3));
    }

    #[test]
    fn news_that_could_not_be_told_are_told_with_the_next() {
        let changes = Changes::default();
        changes.commit(&Changed::List(id("5"), None), Reason::Write);
        let untold = changes.take_news().unwrap();
        changes.commit(&Changed::Workspace(id("6")), Reason::Admin);
        changes.give_back(untold.clone());
        let news = changes.take_news().unwrap();
        assert_eq!((&news.slots, news.workspaces.len()), (&untold.slots, 1));
        assert_eq!(news.sequence, 2);
        changes.give_back(News {
            everything: true,
            ..news
        });
        let news = changes.take_news().unwrap();
        assert_eq!(
            (news.everything, news.slots.len(), news.sequence),
            (true, 0, 2)
        );
    }
}
