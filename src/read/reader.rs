//! The reader: lists out of the cache, or out of the table through the loader; or out of the history.

use std::sync::Arc;
use std::time::Duration;

use super::asked::Asked;
use super::away::Away;
use super::history::HistoryLists;
use super::loader::Loader;
use super::page::RecentWorkflow;
use super::shadow::{Shadow, Shadowed};
use super::source::{PRIMARY, Source, Table, WHATEVER};
use crate::cache::entry::ROWS;
use crate::cache::{Cache, CacheSettings, Changed, Changes, Counts, Entry, Reason, Via};
use crate::config::HistoryConfig;
use crate::model::{Key, Newest, Scope, Time};
use crate::settings::ReadPath;
use crate::store::dismissal::Dismissed;
use crate::store::lists::ListStart;
use crate::store::{AtHand, Store, StoreError, Token};

/// Reads lists for a service.
#[derive(Debug)]
pub struct Reader {
    pub(super) table: Arc<Table>,
    cache: Arc<Cache>,
    pub(super) loader: Loader,
    /// Of those who make do with what a replica has, while the primary is out of reach: they do not wait for
    /// those who find that out.
    pub(super) makes_do: Loader,
    /// Of those who waited for the primary for too long: the replica alone.
    pub(super) waits_no_more: Loader,
    pub(super) away: Away,
    old: Option<Old>,
    /// How lists were come by.
    pub counts: Arc<Counts>,
    /// What was seen where the table was compared with the history.
    pub shadowed: Arc<Shadowed>,
}

/// Reads of the history.
#[derive(Debug)]
pub(super) struct Old {
    lists: Arc<HistoryLists>,
    pub(super) loader: Loader,
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
        let asked = Asked::of(self, limit, how);
        let at_once = |via| {
            move |entry| Found {
                entry,
                via,
                waited: Duration::ZERO,
            }
        };
        let mut found: Vec<Option<Found>> = Vec::with_capacity(scopes.len());
        for scope in scopes {
            found.push(asked.kept(scope).map(at_once(Via::Hit)));
        }
        let is_away = self.is_away(how);
        if is_away {
            for (found, scope) in found.iter_mut().zip(scopes).filter(|(it, _)| it.is_none()) {
                let stale = self.cache.stale(self.changes(), scope);
                *found = stale.map(at_once(Via::Stale));
            }
        }
        let missing: Vec<&Scope> = scopes
            .iter()
            .zip(&found)
            .filter_map(|(scope, found)| found.is_none().then_some(scope))
            .collect();
        if !missing.is_empty() {
            // Boxed: what a hit does not need is not moved about with each hit.
            let loaded = Box::pin(asked.load(&missing, is_away)).await?;
            let missing = found.iter_mut().filter(|found| found.is_none());
            for (missing, loaded) in missing.zip(loaded) {
                *missing = Some(loaded);
            }
        }
        let found: Vec<Found> = found.into_iter().flatten().collect();
        found.iter().for_each(|found| self.counts.add(found.via));
        if let Some(old) = self.old(how).filter(|_| how.path == ReadPath::Shadow) {
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
    pub(super) fn old(&self, how: How<'_>) -> Option<&Old> {
        let old = self.old.as_ref();
        old.filter(|_| how.path != ReadPath::Materialized)
    }

    /// What a replica must have replayed for a read. A token of another database, or of another history
    /// of this one, says nothing that a replica could be held against.
    pub(super) fn least(&self, token: Option<&Token>) -> u64 {
        match token {
            None => WHATEVER,
            Some(token) if self.is_of_here(token) => token.write.position,
            Some(_) => PRIMARY,
        }
    }

    /// Whether a token is of this database, and of this history of it.
    pub(super) fn is_of_here(&self, token: &Token) -> bool {
        self.changes().primary.place() == Some((token.database, token.timeline))
    }

    /// Whether the database is known to be out of reach, for a reader who makes do without it.
    pub fn is_away(&self, how: How<'_>) -> bool {
        how.token.is_none()
            && self.old(how).is_none()
            && self.away.is_so(self.table.primary.changes())
    }

    /// Whether anything can be given that does not come of the primary.
    pub(super) fn may_make_do(&self) -> bool {
        self.table.has_replica() || matches!(*self.cache, Cache::On(_))
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
                    let read = self
                        .table
                        .read(starts, rows, least, &mut AtHand::default())
                        .await;
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
