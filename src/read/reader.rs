//! The reader: lists out of the cache, or out of the database through the loader.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::loader::{Began, Loaded, Loader};
use super::{Page, PageRequest, page};
use crate::cache::entry::ROWS;
use crate::cache::{Cache, CacheSettings, Changed, Changes, Counts, Entry, Reason, Via};
use crate::model::Scope;
use crate::store::recent::ListStart;
use crate::store::{Store, StoreError, Token};

/// Reads lists for a service.
#[derive(Debug)]
pub struct Reader {
    store: Store,
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
    /// Of a store.
    pub fn new(store: Store, settings: CacheSettings) -> Self {
        let (cache, counts) = (Arc::new(Cache::new(settings)), Arc::default());
        Self {
            loader: Loader::new(store.clone(), Arc::clone(&cache), Arc::clone(&counts)),
            store,
            cache,
            counts,
        }
    }

    /// What is told of the store's changes.
    pub fn changes(&self) -> &Changes {
        self.store.changes()
    }

    /// The cache, to be told what it may give.
    pub fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }

    /// Forgets something, here and in other processes.
    pub fn invalidate(&self, changed: &Changed, reason: Reason) {
        self.store.committed(changed, reason);
        if *changed == Changed::Everything {
            // Not even an outage shows it again.
            self.cache.clear();
        }
    }

    /// The heads of some lists, of at least `limit` items each and one more, where there are so many. All
    /// that the cache does not give is loaded in one statement, where it is at most
    /// [`MAX_SCOPES`](crate::store::recent::MAX_SCOPES).
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
        let changes = self.store.changes();
        let kept = self.cache.coherent();
        let sees = |generation, heard_position| {
            token.is_none_or(|token| changes.sees(generation, heard_position, &token.write))
        };
        let mut found: Vec<Option<Found>> = Vec::with_capacity(scopes.len());
        for scope in scopes {
            let entry = kept.and_then(|kept| kept.get(changes, scope, limit));
            let entry = entry.filter(|entry| sees(entry.began, entry.heard_position));
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
                    && sees(generation, began.heard_position)
            };
            let started = Instant::now();
            let loaded = self.loader.load(&missing, rows, &may_join).await;
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

    /// A page behind a cursor, out of the database.
    ///
    /// # Errors
    /// [`StoreError`] where the database fails.
    pub async fn page(&self, request: PageRequest, limit: u32) -> Result<Page, StoreError> {
        let start = ListStart::from(request);
        let scope = start.scope.clone();
        let items = page::read(&self.store, &[start], limit + 1).await?;
        self.counts.add(Via::Bypass);
        let items = items.into_iter().next().unwrap_or_default();
        Ok(page::page(&scope, &items, limit))
    }
}

/// A load that was sent so long ago is not joined: it hangs, and its deadline is near.
const JOIN_WITHIN: Duration = Duration::from_secs(1);
