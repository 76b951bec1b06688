//! Invalidation: every commit of a write forgets what it changed, here and, by what is told to them, in
//! every other process.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use super::generation::{Forgotten, Generations, scope_slot};
use super::news::News;
use super::primary::Primary;
use super::replayed::Replayed;
use super::writes::{Write, Writes, lock};
use crate::model::{Id, Key};
use crate::store::Position;

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
    writes: Writes,
    /// Hears of every published run and workspace that is forgotten, and of everything.
    listener: OnceLock<Listener>,
    /// SQLite: changes that this process made, of those that the database counts.
    own: AtomicI64,
    /// Which database it is, and how far.
    pub(crate) primary: Primary,
    /// Where replicas are read from: how far one must be.
    replayed: OnceLock<Replayed>,
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

    /// From now on remembers how far a replica must be to have each list as it is.
    pub fn track_replicas(&self) {
        self.replayed.get_or_init(Replayed::default);
    }

    /// Whether this process knows of a replica.
    pub(crate) fn tracks_replicas(&self) -> bool {
        self.replayed.get().is_some()
    }

    /// Which database it is, as far as is known, and no position in it: behind every one.
    pub(crate) fn place(&self) -> Option<Position> {
        let (database, timeline) = self.primary.place()?;
        Some(Position {
            database,
            timeline,
            at: u64::MAX,
        })
    }

    /// From now on changes are heard; of what was written before this position nothing is known.
    pub(crate) fn begin_hearing(&self, position: u64) {
        if let Some(replayed) = self.replayed.get() {
            replayed.begin(position);
        }
        self.forget(&Changed::Everything, Reason::Listener);
    }

    /// These news were told, at a position behind them.
    pub(crate) fn told(&self, news: &News, position: u64) {
        if let Some(replayed) = self.replayed.get() {
            replayed.told(news, position);
        }
    }

    /// Whether a replica that had replayed so much has a list as it is, as far as is known here.
    pub fn is_replayed(&self, workspace: &str, uid: &str, position: u64) -> bool {
        let replayed = self.replayed.get();
        replayed.is_some_and(|replayed| replayed.has(scope_slot(workspace, uid), position))
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

    fn count(&self, reason: Reason, by: u64) {
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

    /// Another process told something that cannot be read: one with another protocol, or anybody.
    pub(crate) fn hear_of_the_unknown(&self) {
        // First, as in a commit.
        if let Some(replayed) = self.replayed.get() {
            replayed.heard_something();
        }
        self.hear_of_something();
    }

    /// Whatever was heard of so far was written before this position.
    pub(crate) fn all_heard_is_before(&self, position: u64) {
        if let Some(replayed) = self.replayed.get() {
            replayed.known(position);
        }
    }

    /// Forgets everything, because another process changed something.
    pub(crate) fn hear_of_something(&self) {
        // Dismissals may be among it.
        self.generations.hide(Forgotten::Everything);
        self.forget(&Changed::Everything, Reason::OtherProcess);
    }

    /// Forgets what another process told.
    pub fn hear(&self, origin: u64, position: u64, news: &News) {
        // First, as in a commit.
        if let Some(replayed) = self.replayed.get() {
            replayed.heard(news, position);
        }
        if news.everything {
            self.hear_of_something();
        }
        for slot in news
            .dismissed
            .iter()
            .map(|slot| Forgotten::ScopeSlot(*slot))
        {
            self.generations.hide(slot);
        }
        for slot in news.every_slot() {
            self.generations.forget(Forgotten::ScopeSlot(*slot));
        }
        let lists = news.every_slot().count() as u64;
        if lists > 0 {
            self.count(Reason::OtherProcess, lists);
            tracing::debug!(reason = Reason::OtherProcess.name(), lists, "forgotten");
        }
        for workspace in &news.workspaces {
            let workspace = workspace.clone();
            self.forget(&Changed::Workspace(workspace), Reason::OtherProcess);
        }
        for run in &news.published_runs {
            let run = run.clone();
            self.forget(&Changed::PublishedRun(run), Reason::OtherProcess);
        }
        let sequence = news.sequence;
        self.writes
            .heard(origin, sequence, || self.generations.now());
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

    /// Nothing that was heard counts any more: another database answers, or its log began anew.
    pub fn unhear(&self) {
        self.writes.unhear();
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
    fn whoever_begins_behind_a_forgetting_finds_that_no_replica_is_far_enough() {
        let (changes, forgotten) = (Arc::new(Changes::default()), Arc::new(AtomicU64::new(0)));
        changes.track_replicas();
        // Where a replica is that lags: always just before what is being forgotten.
        let replica = Arc::new(AtomicU64::new(1));
        let has = |changes: &Changes, at: &AtomicU64| {
            changes.is_replayed("w", "", at.load(Ordering::SeqCst))
        };
        let (weak, at, count) = (
            Arc::downgrade(&changes),
            Arc::clone(&replica),
            Arc::clone(&forgotten),
        );
        changes.on_forget(move |what| {
            assert!(!has(&weak.upgrade().unwrap(), &at), "{what:?}");
            count.fetch_add(1, Ordering::SeqCst);
        });
        let next = || replica.load(Ordering::SeqCst) + 1;
        let catches_up = || {
            replica.fetch_add(1, Ordering::SeqCst);
            assert!(has(&changes, &replica));
        };
        for changed in [
            Changed::Workspace(id("w")),
            Changed::PublishedRun(id("p")),
            Changed::Everything,
        ] {
            changes.commit(&changed, Reason::Write);
            changes.told(&changes.take_news().unwrap(), next());
            catches_up();
            let another = Changes::default();
            another.commit(&changed, Reason::Write);
            changes.hear(another.origin, next(), &another.take_news().unwrap());
            catches_up();
            changes.begin_hearing(next());
            catches_up();
        }
        assert_eq!(forgotten.load(Ordering::SeqCst), 9);
    }

    #[test]
    fn what_another_process_changed_may_be_a_dismissal_and_is_not_shown_again() {
        let changes = Changes::default();
        let began = changes.generations.now();
        let is_hidden = || {
            changes
                .generations
                .is_hidden(began, ("w", ""), std::iter::empty())
        };
        assert!(!is_hidden());
        changes.hear_of_something();
        assert!(is_hidden() && !changes.generations.is_current(began, "w", ""));
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
