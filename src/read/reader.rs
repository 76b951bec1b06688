//! The reader: lists out of the cache, or out of the table through the loader; or out of the history.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::away::Away;
use super::history::HistoryLists;
use super::loader::{Began, Failed, Loaded, Loader, MayJoin};
use super::page::RecentWorkflow;
use super::shadow::{Shadow, Shadowed};
use super::source::{PRIMARY, Source, Table, WHATEVER};
use crate::cache::entry::ROWS;
use crate::cache::{ByReplica, Cache, CacheSettings, Changed, Changes, Counts, Entry, Reason, Via};
use crate::config::HistoryConfig;
use crate::model::{Key, Newest, Scope, Time};
use crate::settings::ReadPath;
use crate::store::dismissal::Dismissed;
use crate::store::lists::ListStart;
use crate::store::{Store, StoreError, Token};

/// Reads lists for a service.
#[derive(Debug)]
pub struct Reader {
    table: Arc<Table>,
    cache: Arc<Cache>,
    loader: Loader,
    /// Of those who make do with what a replica has, while the primary is out of reach: they do not wait for
    /// those who find that out.
    makes_do: Loader,
    /// Of those who waited for the primary for too long: the replica alone.
    waits_no_more: Loader,
    away: Away,
    old: Option<Old>,
    /// How lists were come by.
    pub counts: Arc<Counts>,
    /// What was seen where the table was compared with the history.
    pub shadowed: Arc<Shadowed>,
}

/// Reads of the history.
#[derive(Debug)]
struct Old {
    lists: Arc<HistoryLists>,
    loader: Loader,
    shadow: Arc<Shadow>,
}

/// How lists are to be read.
#[derive(Debug, Clone, Copy)]
pub struct How<'a> {
    /// A write that must be seen.
    pub token: Option<&'a Token>,
    /// From where; without a history always from the table.
    pub path: ReadPath,
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
        let table = Arc::new(Table::new(store, replica, settings));
        let away = table.away.clone();
        let sources = [Source::Table, Source::Table, Source::Replica];
        let [loader, makes_do, waits_no_more] = sources.map(|source| {
            Loader::new(
                source(Arc::clone(&table)),
                Arc::clone(table.primary.changes()),
                Arc::clone(&cache),
                Arc::clone(&counts),
            )
        });
        Self {
            table,
            loader,
            makes_do,
            waits_no_more,
            cache,
            counts,
            away,
            old: None,
            shadowed: Arc::default(),
        }
    }

    /// With a history, for the paths `history` and `shadow`. Where the path is `forced`, lists are given
    /// also while nobody can tell what was dismissed.
    #[must_use]
    pub fn with_history(mut self, config: HistoryConfig, forced: bool) -> Self {
        let (store, compared) = (&self.table.primary, config.clone());
        let lists = Arc::new(HistoryLists::new(store.clone(), config, forced));
        // Whatever writes the history tells nobody: nothing of it is kept.
        let loader = Loader::new(
            Source::History(Arc::clone(&lists)),
            Arc::clone(store.changes()),
            Arc::new(Cache::Off),
            Arc::clone(&self.counts),
        );
        let shadowed = Arc::clone(&self.shadowed);
        // On connections of its own, so that no answer waits for one of these.
        let compared = HistoryLists::new(store.clone(), compared, forced);
        let shadow = Shadow::new(store.clone(), compared, shadowed);
        self.old = Some(Old {
            lists,
            loader,
            shadow: Arc::new(shadow),
        });
        self
    }

    /// What is told of the store's changes.
    pub fn changes(&self) -> &Changes {
        self.table.primary.changes()
    }

    /// The cache, to be told what it may give.
    pub fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }

    /// Forgets something, here and in other processes.
    ///
    /// # Errors
    /// [`StoreError`] where others do not hear of it.
    pub async fn invalidate(&self, changed: &Changed, reason: Reason) -> Result<(), StoreError> {
        self.table.primary.forget(changed, reason).await
    }

    /// The heads of some lists, of at least `limit` items each and one more, where there are so many. All
    /// that the cache does not give is loaded in one statement, where it is at most
    /// [`MAX_SCOPES`](crate::store::lists::MAX_SCOPES).
    ///
    /// With a token, none is older than the write that it names. Those of the history are of now.
    ///
    /// # Errors
    /// [`StoreError`] where the database fails and what was known of a list is too old, or not enough
    /// for the token.
    pub async fn lists(
        &self,
        scopes: &[Scope],
        limit: u32,
        how: How<'_>,
    ) -> Result<Vec<Found>, Arc<StoreError>> {
        let token = how.token;
        let old = self.old(how);
        let changes = self.table.primary.changes();
        let (loader, kept) = match old {
            Some(old) => (&old.loader, None),
            // Nothing that is kept can be held against a token of another database.
            None if token.is_some_and(|token| !self.is_of_here(token)) => (&self.loader, None),
            None => (&self.loader, self.cache.coherent()),
        };
        let sees = |generation, by_replica: Option<ByReplica>| {
            token.is_none_or(|token| match by_replica {
                Some(ByReplica { replayed, .. }) => {
                    let place = (token.database, token.timeline);
                    replayed.place() == place && replayed.at >= self.least(Some(token))
                }
                None => changes.sees(generation, &token.write),
            })
        };
        let known = |scope: &Scope| {
            let entry = kept.and_then(|kept| kept.get(changes, scope, limit));
            entry.filter(|entry| sees(entry.began, entry.by_replica))
        };
        let at_once = |via| {
            move |entry| Found {
                entry,
                via,
                waited: Duration::ZERO,
            }
        };
        let mut found: Vec<Option<Found>> = Vec::with_capacity(scopes.len());
        for scope in scopes {
            found.push(known(scope).map(at_once(Via::Hit)));
        }
        let makes_do = old.is_none() && token.is_none();
        let is_away = makes_do && self.away.is_so(changes);
        if is_away {
            for (found, scope) in found.iter_mut().zip(scopes).filter(|(it, _)| it.is_none()) {
                *found = self.cache.stale(changes, scope).map(at_once(Via::Stale));
            }
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
                    && sees(generation, None)
            };
            if let Some(token) = token.filter(|token| self.is_of_here(token)) {
                changes.presented(&token.write);
            }
            let started = Instant::now();
            let least = self.least(token);
            let load = async |loader: &Loader, scopes: &[&Scope]| {
                loader.load(scopes, rows, least, &may_join, &known).await
            };
            let loader = if is_away { &self.makes_do } else { loader };
            // Boxed: what a hit does not need is not moved about with each hit.
            let mut loading = Box::pin(async {
                let mut loaded = load(loader, &missing).await;
                // They may have shared the query of one who waited for the primary.
                if makes_do
                    && !is_away
                    && self.table.has_replica()
                    && loaded.iter().any(it_waited_for_others)
                {
                    self.away.gone(&self.table.primary);
                    let failed = missing.iter().zip(&loaded);
                    let failed =
                        failed.filter_map(|(scope, it)| it_waited_for_others(it).then_some(*scope));
                    let failed: Vec<&Scope> = failed.collect();
                    let mut again = load(&self.makes_do, &failed).await.into_iter();
                    for loaded in loaded.iter_mut().filter(|it| it_waited_for_others(it)) {
                        if let Some(again) = again.next() {
                            *loaded = again;
                        }
                    }
                }
                loaded
            });
            let in_time = async {
                if !makes_do {
                    return Ok(loading.as_mut().await);
                }
                let made_do = async {
                    self.away.waited_too_long(&self.table.primary).await;
                    self.make_do(&missing, rows, &may_join).await
                };
                tokio::select! {
                    loaded = loading.as_mut() => Ok(loaded),
                    made_do = made_do => match made_do {
                        Some(made_do) => Err(made_do),
                        None => Ok(loading.as_mut().await),
                    }
                }
            };
            let loaded = Box::pin(in_time).await;
            let waited = started.elapsed();
            let loaded: Vec<Found> = match loaded {
                Err(made_do) => {
                    let found = |entry| Found {
                        entry,
                        via: Via::Stale,
                        waited,
                    };
                    made_do.into_iter().map(found).collect()
                }
                Ok(loaded) => {
                    let loaded = missing.iter().zip(loaded);
                    let found = loaded.map(|(scope, loaded)| match old {
                        // What is kept is the table's.
                        Some(_) => loaded
                            .map(|entry| Found { entry, via, waited })
                            .map_err(|failed| failed.error),
                        None => self.or_stale(scope, loaded, via, waited, token),
                    });
                    found.collect::<Result<_, _>>()?
                }
            };
            let missing = found.iter_mut().filter(|found| found.is_none());
            for (missing, loaded) in missing.zip(loaded) {
                *missing = Some(loaded);
            }
        }
        let found: Vec<Found> = found.into_iter().flatten().collect();
        found.iter().for_each(|found| self.counts.add(found.via));
        if let Some(old) = old.filter(|_| how.path == ReadPath::Shadow) {
            let start = |scope: &Scope| ListStart {
                scope: scope.clone(),
                after: None,
            };
            let lists = found.iter().map(|found| found.entry.head(limit).to_vec());
            old.shadow.compare(
                scopes.iter().map(start).collect(),
                limit + 1,
                lists.collect(),
            );
        }
        Ok(found)
    }

    /// The items that are known of a list behind the head of a page, where they may be shown.
    pub fn held<'a>(&self, found: &'a Found, limit: u32) -> &'a [RecentWorkflow] {
        let entry = &found.entry;
        let generations = &self.changes().generations;
        // Of one that was kept, that was asked already.
        let was_asked = found.via == Via::Stale && !entry.is_stale();
        let may_be_shown = was_asked || generations.are_current(entry.began, entry.shown(ROWS));
        match may_be_shown {
            true => entry.behind(limit),
            false => &[],
        }
    }

    /// What a dismissal hides that is dated later than `now` and that only the history has, where lists are
    /// read from that.
    ///
    /// # Errors
    /// [`StoreError`] where the history fails.
    pub async fn ahead(
        &self,
        what: &Dismissed,
        now: Time,
        how: How<'_>,
    ) -> Result<Vec<(Key, Newest)>, StoreError> {
        match self.old(how) {
            Some(old) => old.lists.ahead(what, now).await,
            None => Ok(Vec::new()),
        }
    }

    /// The history, if it is to be read.
    fn old(&self, how: How<'_>) -> Option<&Old> {
        let old = self.old.as_ref();
        old.filter(|_| how.path != ReadPath::Materialized)
    }

    /// What a replica must have replayed for a read. A token of another database, or of another history
    /// of this one, says nothing that a replica could be held against.
    fn least(&self, token: Option<&Token>) -> u64 {
        match token {
            None => WHATEVER,
            Some(token) if self.is_of_here(token) => token.write.position,
            Some(_) => PRIMARY,
        }
    }

    /// Whether a token is of this database, and of this history of it.
    fn is_of_here(&self, token: &Token) -> bool {
        self.changes().primary.place() == Some((token.database, token.timeline))
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
            Ok(entry) if entry.is_stale() => {
                self.away.gone(&self.table.primary);
                Ok(found(entry, Via::Stale))
            }
            Ok(entry) => {
                self.away.back();
                Ok(found(entry, via))
            }
            Err(Failed { error, .. }) => {
                let is_away = matches!(*error, StoreError::Unavailable(_));
                if is_away {
                    self.away.gone(&self.table.primary);
                }
                let stale = || self.cache.stale(self.changes(), scope);
                let known = (is_away && token.is_none()).then(stale);
                let stale = known.flatten().map(|entry| found(entry, Via::Stale));
                stale.ok_or(error)
            }
        }
    }

    /// What was known of some lists, or what the replica has of them, if there is something of each of them.
    async fn make_do(
        &self,
        scopes: &[&Scope],
        rows: u32,
        may_join: MayJoin<'_>,
    ) -> Option<Vec<Arc<Entry>>> {
        let known = |scope: &&Scope| self.cache.stale(self.changes(), scope);
        let mut entries: Vec<_> = scopes.iter().map(known).collect();
        let missing = scopes.iter().zip(&entries);
        let missing = missing.filter_map(|(scope, entry)| entry.is_none().then_some(*scope));
        let missing: Vec<&Scope> = missing.collect();
        if !missing.is_empty() && self.table.has_replica() {
            let loader = &self.waits_no_more;
            let loaded = loader.load(&missing, rows, WHATEVER, may_join, &|_| None);
            let missing = entries.iter_mut().filter(|entry| entry.is_none());
            for (missing, loaded) in missing.zip(loaded.await) {
                *missing = loaded.ok();
            }
        }
        entries.into_iter().collect()
    }

    /// Whether the database is known to be out of reach, for a reader who makes do without it.
    pub fn is_away(&self, how: How<'_>) -> bool {
        how.token.is_none()
            && self.old(how).is_none()
            && self.away.is_so(self.table.primary.changes())
    }

    /// Sees to it that a replica can be read when the primary is gone. Ends with the service.
    pub async fn watch_replica(&self) {
        self.table.watch_replica().await;
    }

    /// The next `rows` items of some lists, out of the database, in one statement; and whether they may be old,
    /// because the primary is out of reach.
    ///
    /// # Errors
    /// [`StoreError`] where the database fails.
    pub async fn read_on(
        &self,
        starts: &[ListStart],
        rows: u32,
        how: How<'_>,
    ) -> Result<(Vec<Vec<RecentWorkflow>>, bool), StoreError> {
        let read = match self.old(how) {
            Some(old) => {
                let lists = old.lists.read(starts, rows).await?;
                if how.path == ReadPath::Shadow {
                    old.shadow.compare(starts.to_vec(), rows, lists.clone());
                }
                (lists, false)
            }
            None => {
                let least = self.least(how.token);
                let mut reading = Box::pin(async {
                    let read = self.table.read(starts, rows, least).await;
                    match &read {
                        Ok(read) if read.is_stale() => self.away.gone(&self.table.primary),
                        Ok(_) => self.away.back(),
                        Err(StoreError::Unavailable(_)) => self.away.gone(&self.table.primary),
                        Err(_) => {}
                    }
                    read
                });
                let made_do = async {
                    if how.token.is_some() {
                        return std::future::pending().await;
                    }
                    self.away.waited_too_long(&self.table.primary).await;
                    self.table.read_replica(starts, rows).await
                };
                let read = tokio::select! {
                    read = reading.as_mut() => read?,
                    made_do = made_do => match made_do {
                        Ok(read) => read,
                        Err(_) => reading.await?,
                    }
                };
                let is_stale = read.is_stale();
                (read.lists, is_stale)
            }
        };
        let via = if read.1 { Via::Stale } else { Via::Bypass };
        starts.iter().for_each(|_| self.counts.add(via));
        Ok(read)
    }
}

/// A load that was sent so long ago is not joined: it hangs, and its deadline is near.
const JOIN_WITHIN: Duration = Duration::from_secs(1);

/// Whether a load failed because it had to wait for the primary with others.
fn it_waited_for_others(loaded: &Loaded) -> bool {
    let is_so = |failed: &Failed| {
        let is_away = matches!(*failed.error, StoreError::Unavailable(_));
        failed.for_a_token && is_away && !failed.error.is_statement_timeout()
    };
    loaded.as_ref().is_err_and(is_so)
}
