//! The batch loader: concurrent misses of different scopes are one query, of one scope one load.
//!
//! Nothing is delayed to gather more: the next query starts when the last one ends, with all that came
//! meanwhile. Where one takes long, others do not wait for it.

mod batch;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SetOnce};

use self::batch::Batch;
use super::source::Source;
use crate::cache::{Cache, Changes, Counts, Entry};
use crate::model::Scope;
use crate::store::lists::MAX_SCOPES;
use crate::store::{AtHand, StoreError};

/// Queries at once at the most, of those that take long.
const QUERIES: usize = 4;
/// A query that takes longer does not keep others waiting; most take a tenth of it.
const SLOW: Duration = Duration::from_millis(20);

/// What became of a load; shared by all who wait for it.
pub(super) type Loaded = Result<Arc<Entry>, Failed>;

/// Why a load failed.
#[derive(Debug, Clone)]
pub(super) struct Failed {
    pub(super) error: Arc<StoreError>,
    /// Whether somebody who shared its query would not make do with whatever a replica has.
    pub(super) for_a_token: bool,
}

/// Which load under way may be joined: one that cannot have missed what the caller must see.
pub(super) type MayJoin<'a> = &'a (dyn Fn(&Scope, &Began) -> bool + Sync);

/// What is kept of a list, if that will do.
pub(super) type Kept<'a> = &'a (dyn Fn(&Scope) -> Option<Arc<Entry>> + Sync);

/// What was known when a load was sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Began {
    /// The generation.
    pub(super) generation: u64,
    /// When.
    pub(super) at: Instant,
}

/// Loads lists. Clones share its queue.
#[derive(Debug, Clone)]
pub(super) struct Loader(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    source: Source,
    changes: Arc<Changes>,
    cache: Arc<Cache>,
    counts: Arc<Counts>,
    queue: Mutex<Queue>,
    /// To ask for the lists of a query that took too long: one at a time, because a database that is slow with
    /// everything must not lose more connections to that.
    quick: Semaphore,
}

#[derive(Debug, Default)]
struct Queue {
    /// Scopes that wait for a query, in the order in which they came. As many as there are connections,
    /// times the scopes of a batch, at the most.
    order: VecDeque<Scope>,
    waiting: HashMap<Scope, Load>,
    under_way: HashMap<Scope, (Began, Load)>,
    /// Tasks that send queries, and how many of them wait for one that takes long.
    tasks: usize,
    stuck: usize,
}

/// A load that is awaited.
#[derive(Debug, Clone)]
struct Load {
    rows: u32,
    /// What a replica must have replayed.
    least: u64,
    done: Arc<SetOnce<Loaded>>,
}

impl Loader {
    /// From a source whose changes are told, for a cache.
    pub(super) fn new(
        source: Source,
        changes: Arc<Changes>,
        cache: Arc<Cache>,
        counts: Arc<Counts>,
    ) -> Self {
        let queue = Mutex::default();
        Self(Arc::new(Shared {
            source,
            changes,
            cache,
            counts,
            queue,
            quick: Semaphore::new(1),
        }))
    }

    /// Loads the first `rows` items of some lists, or more, from a database that has replayed `least`; in
    /// one query where there are at most [`MAX_SCOPES`]. A caller that goes away cancels nothing.
    pub(super) async fn load(
        &self,
        scopes: &[&Scope],
        rows: u32,
        least: u64,
        may_join: MayJoin<'_>,
        kept: Kept<'_>,
    ) -> Vec<Loaded> {
        let awaited: Vec<_> = {
            let mut queue = self.0.queue();
            let awaited = scopes
                .iter()
                .map(|scope| queue.load(scope, rows, least, may_join, kept));
            let awaited = awaited.collect();
            self.0.start_task(&mut queue);
            awaited
        };
        let mut loaded = Vec::with_capacity(scopes.len());
        for done in awaited {
            loaded.push(done.wait().await.clone());
        }
        loaded
    }
}

impl Queue {
    fn load(
        &mut self,
        scope: &Scope,
        rows: u32,
        least: u64,
        may_join: MayJoin<'_>,
        kept: Kept<'_>,
    ) -> Arc<SetOnce<Loaded>> {
        if let Some((began, load)) = self.under_way.get(scope)
            && load.rows >= rows
            && load.least >= least
            && may_join(scope, began)
        {
            return Arc::clone(&load.done);
        }
        // A load is kept before it is under way no longer: one that ended since the caller looked is there.
        if let Some(entry) = kept(scope) {
            return Arc::new(SetOnce::from(Ok(entry)));
        }
        let load = self.waiting.entry(scope.clone()).or_insert_with(|| {
            self.order.push_back(scope.clone());
            let done = Arc::default();
            Load { rows, least, done }
        });
        load.rows = load.rows.max(rows);
        load.least = load.least.max(least);
        Arc::clone(&load.done)
    }

    /// Takes what the next query loads.
    fn next(&mut self) -> Vec<(Scope, Load)> {
        let scopes = self.order.len().min(MAX_SCOPES);
        let taken = self.order.drain(..scopes);
        taken
            .filter_map(|scope| self.waiting.remove_entry(&scope))
            .collect()
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // It is whole between any two statements.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has what waits loaded, unless a task that is not stuck will see to it.
    fn start_task(self: &Arc<Self>, queue: &mut Queue) {
        if !queue.order.is_empty() && queue.tasks == queue.stuck && queue.tasks < QUERIES {
            queue.tasks += 1;
            tokio::spawn(Arc::clone(self).work());
        }
    }

    /// Takes what waits, and marks it as under way.
    fn begin(&self) -> Option<(Began, Batch<'_>)> {
        let mut queue = self.queue();
        let loads = queue.next();
        if loads.is_empty() {
            return None;
        }
        // Before the database is asked: whatever is forgotten from now on, the load may not see.
        let began = Began {
            generation: self.changes.generations.now(),
            at: Instant::now(),
        };
        for (scope, load) in &loads {
            let under_way = (began, load.clone());
            queue.under_way.insert(scope.clone(), under_way);
        }
        let batch = Batch {
            shared: self,
            loads,
            is_part: false,
        };
        Some((began, batch))
    }

    /// Sends one query after the other, while something waits.
    async fn work(self: Arc<Self>) {
        let mut task = Task {
            shared: &self,
            is_stuck: false,
        };
        let mut at_hand = AtHand::default();
        loop {
            // What came meanwhile is read off its sockets first, and goes with it.
            tokio::task::yield_now().await;
            let Some((began, batch)) = self.begin() else {
                return;
            };
            let mut query = std::pin::pin!(batch.read(&mut at_hand));
            let loaded = match tokio::time::timeout(SLOW, &mut query).await {
                Ok(loaded) => loaded,
                Err(_) => {
                    task.set_stuck(true);
                    query.await
                }
            };
            match loaded {
                Err(error) if batch.may_be_of_one(&error) => batch.finish_apart(began).await,
                Err(error) if error.is_statement_timeout() => {
                    batch.finish_quick_ones(began).await;
                    batch.fail(error);
                }
                loaded => batch.finish(began, loaded),
            }
            if task.is_stuck && !task.set_stuck(false) {
                return;
            }
        }
    }
}

/// A task that sends queries; what it counts for ends with it, also when it panics.
struct Task<'a> {
    shared: &'a Arc<Shared>,
    is_stuck: bool,
}

impl Task<'_> {
    /// It waits for a query that takes long, or no longer. One that others went on for is not needed any
    /// more: it stays what it was, and hears `false`.
    fn set_stuck(&mut self, stuck: bool) -> bool {
        let mut queue = self.shared.queue();
        if !stuck && queue.tasks > queue.stuck {
            return false;
        }
        match stuck {
            true => queue.stuck += 1,
            false => queue.stuck -= 1,
        }
        self.is_stuck = stuck;
        self.shared.start_task(&mut queue);
        true
    }
}

impl Drop for Task<'_> {
    fn drop(&mut self) {
        let mut queue = self.shared.queue();
        queue.tasks -= 1;
        if self.is_stuck {
            queue.stuck -= 1;
        }
        self.shared.start_task(&mut queue);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::CacheSettings;
    use crate::model::Id;
    use crate::read::source::{PRIMARY, Table};
    use crate::store::{PoolSettings, Store};

    #[tokio::test]
    async fn who_waits_for_a_load_that_panics_hears_of_it() {
        let settings = PoolSettings {
            size: 1,
            statement_timeout: SLOW,
            behind_pooler: false,
        };
        let store = Store::open("sqlite::memory:", settings).expect("a pool");
        let cache = CacheSettings {
            capacity: 0,
            ttl: SLOW,
            stale_if_error: SLOW,
        };
        let changes = Arc::clone(store.changes());
        let table = Source::Table(Arc::new(Table::new(store, None, cache)));
        let loader = Loader::new(table, changes, Arc::new(Cache::Off), Arc::default());
        let scope = Scope {
            workspace: Id::new("w").expect("an id"),
            uid: None,
        };
        let load = |queue: &mut Queue| queue.load(&scope, 1, PRIMARY, &|_, _| true, &|_| None);
        let first = load(&mut loader.0.queue());
        let (_, batch) = loader.0.begin().expect("a load that waits");
        let joined = load(&mut loader.0.queue());
        drop(batch);
        for waits in [first, joined] {
            assert!(waits.get().is_some_and(Result::is_err));
        }
        assert!(loader.0.queue().under_way.is_empty());
    }
}
