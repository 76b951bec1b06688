//! The cache itself: bounded by bytes, current by generation, and told where it must not be asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use foldhash::fast::RandomState;
use quick_cache::Weighter;
use quick_cache::sync::{Cache as Lists, DefaultLifecycle};

use super::Entry;
use super::entry::ROWS;
use super::invalidation::Changes;
use crate::model::Scope;

/// About how many bytes a list takes, to size the cache's tables with.
const ABOUT_BYTES: u64 = 2_048;

/// How to keep answers.
#[derive(Debug, Clone, Copy)]
pub struct CacheSettings {
    /// Bytes at the most; 0 is off.
    pub capacity: u64,
    /// How long an answer is given without asking again, whatever was heard.
    pub ttl: Duration,
    /// How old an answer may be that is given while the database is out of reach.
    pub stale_if_error: Duration,
}

/// Lists that were read, or nothing.
#[derive(Debug)]
pub enum Cache {
    /// Every read asks the database.
    Off,
    /// Lists are kept.
    On(Box<Kept>),
}

/// Lists that were read.
#[derive(Debug)]
pub struct Kept {
    lists: Lists<Scope, Arc<Entry>, Bytes, RandomState>,
    settings: CacheSettings,
    /// Whether this process hears what others change. It keeps and gives nothing while it does not.
    hears: AtomicBool,
}

#[derive(Debug, Clone)]
struct Bytes;

impl Weighter<Scope, Arc<Entry>> for Bytes {
    fn weight(&self, _scope: &Scope, entry: &Arc<Entry>) -> u64 {
        entry.bytes() as u64
    }
}

impl Cache {
    /// As the settings say.
    pub fn new(settings: CacheSettings) -> Self {
        if settings.capacity == 0 {
            return Self::Off;
        }
        let items = usize::try_from(settings.capacity / ABOUT_BYTES).unwrap_or(usize::MAX);
        Self::On(Box::new(Kept {
            lists: Lists::with(
                items.max(1),
                settings.capacity,
                Bytes,
                RandomState::default(),
                DefaultLifecycle::default(),
            ),
            settings,
            hears: AtomicBool::new(false),
        }))
    }

    /// Whether lists may be given and kept now.
    pub fn is_coherent(&self) -> bool {
        self.coherent().is_some()
    }

    /// The lists, where they may be given and kept now.
    pub(crate) fn coherent(&self) -> Option<&Kept> {
        match self {
            Self::On(kept) if kept.hears.load(Ordering::SeqCst) => Some(kept),
            _ => None,
        }
    }

    /// From now on, this process hears what others change, or no longer. The caller forgets everything
    /// before it says that it hears.
    pub(crate) fn set_hearing(&self, hears: bool) {
        if let Self::On(kept) = self {
            kept.hears.store(hears, Ordering::SeqCst);
        }
    }

    /// What was known of a list while the database is out of reach, if it is not too old and nothing of it
    /// was dismissed since.
    pub(crate) fn stale(&self, changes: &Changes, scope: &Scope) -> Option<Arc<Entry>> {
        let Self::On(kept) = self else { return None };
        let entry = kept.lists.get(scope)?;
        let of = (scope.workspace.as_str(), scope.uid_column());
        let is_hidden = changes
            .generations
            .is_hidden(entry.began, of, entry.shown(ROWS));
        let is_young = entry.read_at.elapsed() < kept.settings.stale_if_error;
        (is_young && !is_hidden).then_some(entry)
    }

    /// Lists that are kept, and their bytes.
    pub fn size(&self) -> (u64, u64) {
        match self {
            Self::Off => (0, 0),
            Self::On(kept) => (kept.lists.len() as u64, kept.lists.weight()),
        }
    }
}

impl Kept {
    /// A list of which a page of `limit` is current.
    pub(crate) fn get(&self, changes: &Changes, scope: &Scope, limit: u32) -> Option<Arc<Entry>> {
        let entry = self.lists.get(scope)?;
        let generations = &changes.generations;
        let is_current = entry.read_at.elapsed() < self.settings.ttl
            && generations.is_current(entry.began, &scope.workspace, scope.uid_column())
            && generations.are_current(entry.began, entry.shown(limit));
        is_current.then_some(entry)
    }

    /// Keeps a list, unless something that concerns it was forgotten since its load began, or it was read for
    /// somebody who needed less of it than others may, when nothing was to be kept.
    pub(crate) fn keep(&self, changes: &Changes, scope: Scope, entry: Arc<Entry>) {
        let generations = &changes.generations;
        let (workspace, uid) = (&scope.workspace, scope.uid_column());
        if entry.has_every_page() && generations.is_current(entry.began, workspace, uid) {
            self.lists.insert(scope, entry);
        }
    }
}

/// What became of reads, as in `recents_cache_requests_total{result}`, and how many queries they were.
#[derive(Debug, Default)]
pub struct Counts {
    by_via: [AtomicU64; 4],
    pub(crate) queries: AtomicU64,
}

/// How a list was come by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Via {
    /// From the cache.
    Hit,
    /// From the database, and kept.
    Miss,
    /// From the database, and not kept.
    Bypass,
    /// From the cache, because the database is out of reach.
    Stale,
}

impl Via {
    /// Each of them, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Hit, Self::Miss, Self::Bypass, Self::Stale];

    /// Its name as a label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Bypass => "bypass",
            Self::Stale => "stale",
        }
    }
}

impl Counts {
    /// Counts one.
    pub(crate) fn add(&self, via: Via) {
        self.by_via[via as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many queries loaded what the cache did not have.
    pub fn queries(&self) -> u64 {
        self.queries.load(Ordering::Relaxed)
    }

    /// How many.
    pub fn of(&self, via: Via) -> u64 {
        self.by_via[via as usize].load(Ordering::Relaxed)
    }
}
