//! What is remembered of single cards, also that there is none.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quick_cache::Weighter;
use quick_cache::sync::Cache;

/// What all remembered cards may weigh in bytes: some ten thousand of the usual size, and little beside
/// the lists.
const CAPACITY: u64 = 16 * 1024 * 1024;
/// About how many that are, which divides the cache's memory well.
const USUAL: usize = 16_384;
/// Bytes of an entry beside its texts: two shared pointers' counts, its time, its place.
const OVERHEAD: u64 = 128;

/// A card, or that there is none, until when.
#[derive(Debug, Clone)]
struct Entry {
    card: Option<Arc<str>>,
    until: Instant,
}

#[derive(Debug, Clone)]
struct Bytes;

impl Weighter<Arc<str>, Entry> for Bytes {
    fn weight(&self, id: &Arc<str>, entry: &Entry) -> u64 {
        let texts = id.len() + entry.card.as_ref().map_or(0, |card| card.len());
        OVERHEAD + texts as u64
    }
}

/// Cards by id, bounded in bytes and in time.
#[derive(Debug)]
pub(super) struct Cards {
    cache: Cache<Arc<str>, Entry, Bytes>,
    ttl: Duration,
}

impl Cards {
    pub(super) fn new(ttl: Duration) -> Self {
        Self {
            cache: Cache::with_weighter(USUAL, CAPACITY, Bytes),
            ttl,
        }
    }

    /// What is remembered of an id: its card, or that it has none.
    pub(super) fn get(&self, id: &str) -> Option<Option<Arc<str>>> {
        let entry = self.cache.get(id)?;
        (Instant::now() < entry.until).then_some(entry.card)
    }

    /// Remembers what was so at `asked`.
    pub(super) fn keep(&self, id: Arc<str>, card: Option<Arc<str>>, asked: Instant) {
        let until = asked + self.ttl;
        self.cache.insert(id, Entry { card, until });
    }

    pub(super) fn forget(&self, id: &str) {
        self.cache.remove(id);
    }

    pub(super) fn forget_all(&self) {
        self.cache.clear();
    }
}
