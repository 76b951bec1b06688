//! The reader: lists out of the cache, or out of the database through the loader.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::loader::{Began, Loaded, Loader};
use super::page::RecentWorkflow;
use super::source::{PRIMARY, Source, WHATEVER};
use crate::cache::entry::ROWS;
use crate::cache::{Cache, CacheSettings, Changed, Changes, Counts, Entry, Reason, Via};
use crate::model::Scope;
use crate::store::lists::ListStart;
use crate::store::{Store, StoreError, Token};

/// Reads lists for a service.
#[derive(Debug)]
pub struct Reader {
    source: Arc<Source>,
    cache: Arc<Cache>,
    loader: Loader,
    /// How lists were come by.
    pub counts: Arc<Counts>,
}

/// A list that was read.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its head: of at least as many items as were asked for and one more, where there are so many.
    pub entry: Arc<Entry>,
    /// How it was come by.
    pub via: Via,
    /// How long the database was waited for.
    pub waited: Duration,
}

impl Reader {
    /// Of a store, and of a streaming replica of it, if there is one.
    pub fn new(store: Store, replica: Option<Store>, settings: CacheSettings) -> Self {
        let (cache, counts) = (Arc::new(Cache::new(settings)), Arc::default());
        if replica.is_some() {
            store.changes().track_replicas();
        }
        let source = Arc::new(Source::new(store, replica));
        let loader = Loader::new(Arc::clone(&source), Arc::clone(&cache), Arc::clone(&counts));
        Self {
            source,
            loader,
            cache,
            counts,
        }
    }

    /// What is told of the store's changes.
    pub fn changes(&self) -> &Changes {
        self.source.primary.changes()
    }

    /// The cache, to be told what it may give.
    pub fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }

    /// Forgets something, here and in other processes.
    pub fn invalidate(&self, changed: &Changed, reason: Reason) {
        self.source.primary.committed(changed, reason);
        if *changed == Changed::Everything {
            // Not even an outage shows it again.
            self.cache.clear();
        }
    }

    /// The heads of some lists, of at least `limit` items each and one more, where there are so many. All
    /// that the cache does not give is loaded in one statement, where it is at most
    /// [`MAX_SCOPES`](crate::store::lists::MAX_SCOPES).
    ///
    /// With a token, none is older than the write that it names.
    ///
    /// # Errors
    /// [`StoreError`] where the database fails and what was known of a list is too old, or not enough
    /// for the token.
    pub async fn lists(
        &self,
        scopes: &[Scope],
        limit: u32,
        token: Option<&Token>,
    ) -> Result<Vec<Found>, Arc<StoreError>> {
        let changes = self.source.primary.changes();
        let kept = self.cache.coherent();
        let sees = |generation, heard_position, replayed: Option<u64>| {
            token.is_none_or(|token| match replayed {
                Some(replayed) => replayed >= self.least(Some(token)),
                None => changes.sees(generation, heard_position, &token.write),
            })
        };
        let known = |scope: &Scope| {
            let entry = kept.and_then(|kept| kept.get(changes, scope, limit));
            entry.filter(|entry| sees(entry.began, entry.heard_position, entry.replayed))
        };
        let mut found: Vec<Option<Found>> = Vec::with_capacity(scopes.len());
        for scope in scopes {
            let entry = known(scope);
            found.push(entry.map(|entry| Found {
                entry,
                via: Via::Hit,
                waited: Duration::ZERO,
            }));
        }
        let missing: Vec<&Scope> = scopes
            .iter()
            .zip(&found)
            .filter_map(|(scope, found)| found.is_none().then_some(scope))
            .collect();
        if !missing.is_empty() {
            let (rows, via) = match kept {
                Some(_) => (ROWS, Via::Miss),
                None => (limit + 1, Via::Bypass),
            };
            // One that was sent before the question came may miss what others changed in between, unless
            // that would have been heard.
            let may_join = |scope: &Scope, began: &Began| {
                let generation = began.generation;
                let generations = &changes.generations;
                kept.is_some()
                    && generations.is_current(generation, &scope.workspace, scope.uid_column())
                    && generations.no_published_run_since(generation)
                    && began.at.elapsed() < JOIN_WITHIN
                    && sees(generation, began.heard_position, None)
            };
            let started = Instant::now();
            let loaded = self
                .loader
                .load(&missing, rows, self.least(token), &may_join, &known)
                .await;
            let waited = started.elapsed();
            let mut loaded = missing.into_iter().zip(loaded);
            for found in found.iter_mut().filter(|found| found.is_none()) {
                if let Some((scope, loaded)) = loaded.next() {
                    *found = Some(self.or_stale(scope, loaded, via, waited, token)?);
                }
            }
        }
        let found: Vec<Found> = found.into_iter().flatten().collect();
        found.iter().for_each(|found| self.counts.add(found.via));
        Ok(found)
    }

    /// What a replica must have replayed for a read. A token of another database, or of another history
    /// of this one, says nothing that a replica could be held against.
    fn least(&self, token: Option<&Token>) -> u64 {
        let Some(token) = token else { return WHATEVER };
        let changes = self.source.primary.changes();
        let database = changes.database.get().copied();
        let timeline = changes.timeline.load(Ordering::SeqCst);
        match (database, timeline) == (Some(token.database), token.timeline) {
            true => token.write.position,
            false => PRIMARY,
        }
    }

    /// What was loaded; or, while the database is out of reach, what was known before.
    fn or_stale(
        &self,
        scope: &Scope,
        loaded: Loaded,
        via: Via,
        waited: Duration,
        token: Option<&Token>,
    ) -> Result<Found, Arc<StoreError>> {
        let found = |entry, via| Found { entry, via, waited };
        match loaded {
            Ok(entry) => Ok(found(entry, via)),
            Err(error) => {
                let is_away = matches!(*error, StoreError::Unavailable(_));
                let known = (is_away && token.is_none()).then(|| self.cache.stale(scope));
                let stale = known.flatten().map(|entry| found(entry, Via::Stale));
                stale.ok_or(error)
            }
        }
    }

    /// The next `rows` items of some lists, out of the database, in one statement.
    ///
    /// # Errors
    /// [`StoreError`] where the database fails.
    pub async fn read_on(
        &self,
        starts: &[ListStart],
        rows: u32,
        token: Option<&Token>,
    ) -> Result<Vec<Vec<RecentWorkflow>>, StoreError> {
        let read = self.source.read(starts, rows, self.least(token)).await?;
        starts.iter().for_each(|_| self.counts.add(Via::Bypass));
        Ok(read.lists)
    }
}

/// A load that was sent so long ago is not joined: it hangs, and its deadline is near.
const JOIN_WITHIN: Duration = Duration::from_secs(1);
