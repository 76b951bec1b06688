//! The heads of some lists, as somebody asks for them: what is kept and will do, what is loaded, and what is made
//! do with where the primary does not answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::loader::{Began, Failed, Loaded, Loader};
use super::reader::{Found, How, Old, Reader};
use super::source::WHATEVER;
use crate::cache::entry::ROWS;

use crate::cache::{ByReplica, Changes, Entry, Kept, Via};
use crate::model::Scope;
use crate::store::StoreError;

/// A load that was sent so long ago is not joined: it hangs, and its deadline is near.
const JOIN_WITHIN: Duration = Duration::from_secs(1);

/// A question for the heads of lists.
pub(super) struct Asked<'a> {
    reader: &'a Reader,
    limit: u32,
    how: How<'a>,
    /// The history, if it is read.
    old: Option<&'a Old>,
    /// What is kept, if some of that may do.
    kept: Option<&'a Kept>,
}

impl<'a> Asked<'a> {
    pub(super) fn of(reader: &'a Reader, limit: u32, how: How<'a>) -> Self {
        let old = reader.old(how);
        // Nothing that is kept can be held against a token of another database.
        let is_elsewhere = how.token.is_some_and(|token| !reader.is_of_here(token));
        let kept = match old.is_some() || is_elsewhere {
            true => None,
            false => reader.cache().coherent(),
        };
        Self {
            reader,
            limit,
            how,
            old,
            kept,
        }
    }

    fn changes(&self) -> &'a Changes {
        self.reader.changes()
    }

    /// Whether something older will do, where the primary does not answer.
    pub(super) fn makes_do(&self) -> bool {
        self.old.is_none() && self.how.token.is_none()
    }

    /// What is kept of a list, if it will do.
    pub(super) fn kept(&self, scope: &Scope) -> Option<Arc<Entry>> {
        let entry = self.kept?.get(self.changes(), scope, self.limit);
        entry.filter(|entry| self.sees(entry.began, entry.by_replica))
    }

    /// Whether what was read since a generation, or of a replica, has the write that the token names.
    fn sees(&self, generation: u64, by_replica: Option<ByReplica>) -> bool {
        let Some(token) = self.how.token else {
            return true;
        };
        match by_replica {
            Some(ByReplica { replayed, .. }) => {
                let place = (token.database, token.timeline);
                replayed.place() == place && replayed.at >= self.reader.least(Some(token))
            }
            None => self.changes().sees(generation, &token.write),
        }
    }

    /// Whether a load under way will do. One that was sent before the question came may miss what others changed
    /// in between, unless that would have been heard.
    fn may_join(&self, scope: &Scope, began: &Began) -> bool {
        let (generation, generations) = (began.generation, &self.changes().generations);
        self.kept.is_some()
            && generations.is_current(generation, &scope.workspace, scope.uid_column())
            && generations.no_published_run_since(generation)
            && began.at.elapsed() < JOIN_WITHIN
            && self.sees(generation, None)
    }

    /// The heads of lists of which nothing is known that will do, in their order.
    ///
    /// # Errors
    /// [`StoreError`] where the database fails and nothing else will do.
    pub(super) async fn load(
        &self,
        scopes: &[&Scope],
        is_away: bool,
    ) -> Result<Vec<Found>, Arc<StoreError>> {
        if let Some(token) = self.how.token.filter(|it| self.reader.is_of_here(it)) {
            self.changes().presented(&token.write);
        }
        let started = Instant::now();
        // Where nothing else could be given, nobody asks for how long it takes, with each read.
        let loaded = match self.makes_do() && self.reader.may_make_do() {
            false => self.wait_for(scopes, is_away).await,
            true => match self.wait_or_make_do(scopes, is_away).await {
                Ok(loaded) => loaded,
                Err(entries) => {
                    let waited = started.elapsed();
                    let found = |entry| Found {
                        entry,
                        via: Via::Stale,
                        waited,
                    };
                    return Ok(entries.into_iter().map(found).collect());
                }
            },
        };
        let (waited, loaded) = (started.elapsed(), scopes.iter().zip(loaded));
        let found = loaded.map(|(scope, loaded)| self.or_stale(scope, loaded, waited));
        found.collect()
    }

    /// What the databases say; or, where that takes too long, all that somebody who does not wait is given.
    async fn wait_or_make_do(
        &self,
        scopes: &[&Scope],
        is_away: bool,
    ) -> Result<Vec<Loaded>, Vec<Arc<Entry>>> {
        let reader = self.reader;
        let mut loading = Box::pin(self.wait_for(scopes, is_away));
        let made_do = async {
            reader.away.waited_too_long(&reader.table.primary).await;
            self.make_do(scopes).await
        };
        tokio::select! {
            loaded = loading.as_mut() => Ok(loaded),
            made_do = made_do => match made_do {
                Some(entries) => Err(entries),
                None => Ok(loading.await),
            }
        }
    }

    async fn load_by(&self, loader: &Loader, scopes: &[&Scope]) -> Vec<Loaded> {
        let may_join = |scope: &Scope, began: &Began| self.may_join(scope, began);
        let kept = |scope: &Scope| self.kept(scope);
        let least = self.reader.least(self.how.token);
        loader
            .load(scopes, self.rows(), least, &may_join, &kept)
            .await
    }

    /// How many items of each list are loaded.
    fn rows(&self) -> u32 {
        match self.kept {
            Some(_) => ROWS,
            None => self.limit + 1,
        }
    }

    /// What the databases say.
    async fn wait_for(&self, scopes: &[&Scope], is_away: bool) -> Vec<Loaded> {
        let reader = self.reader;
        let loader = match self.old {
            Some(old) => &old.loader,
            None if is_away => &reader.makes_do,
            None => &reader.loader,
        };
        let mut loaded = self.load_by(loader, scopes).await;
        // They may have shared the query of one who waited for the primary.
        if self.makes_do()
            && !is_away
            && reader.table.has_replica()
            && loaded.iter().any(it_waited_for_others)
        {
            reader.away.gone(&reader.table.primary);
            let failed = scopes.iter().zip(&loaded);
            let failed =
                failed.filter_map(|(scope, it)| it_waited_for_others(it).then_some(*scope));
            let failed: Vec<&Scope> = failed.collect();
            let again = self.load_by(&reader.makes_do, &failed).await;
            let failed = loaded.iter_mut().filter(|it| it_waited_for_others(it));
            for (loaded, again) in failed.zip(again) {
                *loaded = again;
            }
        }
        loaded
    }

    /// What was known of some lists, or what the replica has of them, if there is something of each of them.
    async fn make_do(&self, scopes: &[&Scope]) -> Option<Vec<Arc<Entry>>> {
        let reader = self.reader;
        let known = |scope: &&Scope| reader.cache().stale(self.changes(), scope);
        let mut entries: Vec<_> = scopes.iter().map(known).collect();
        let missing = scopes.iter().zip(&entries);
        let missing = missing.filter_map(|(scope, entry)| entry.is_none().then_some(*scope));
        let missing: Vec<&Scope> = missing.collect();
        if !missing.is_empty() && reader.table.has_replica() {
            let may_join = |scope: &Scope, began: &Began| self.may_join(scope, began);
            let loader = &reader.waits_no_more;
            let loaded = loader.load(&missing, self.rows(), WHATEVER, &may_join, &|_| None);
            let missing = entries.iter_mut().filter(|entry| entry.is_none());
            for (missing, loaded) in missing.zip(loaded.await) {
                *missing = loaded.ok();
            }
        }
        entries.into_iter().collect()
    }

    /// What was loaded; or, while the database is out of reach, what was known before.
    fn or_stale(
        &self,
        scope: &Scope,
        loaded: Loaded,
        waited: Duration,
    ) -> Result<Found, Arc<StoreError>> {
        let via = match self.kept {
            Some(_) => Via::Miss,
            None => Via::Bypass,
        };
        let found = |entry, via| Found { entry, via, waited };
        // What is kept is the table's.
        if self.old.is_some() {
            let found = loaded.map(|entry| found(entry, via));
            return found.map_err(|failed| failed.error);
        }
        let (away, primary) = (&self.reader.away, &self.reader.table.primary);
        match loaded {
            Ok(entry) if entry.is_stale() => {
                away.gone(primary);
                Ok(found(entry, Via::Stale))
            }
            Ok(entry) => {
                away.back();
                Ok(found(entry, via))
            }
            Err(Failed { error, .. }) => {
                let is_away = matches!(*error, StoreError::Unavailable(_));
                if is_away {
                    away.gone(primary);
                }
                let stale = || self.reader.cache().stale(self.changes(), scope);
                let known = (is_away && self.makes_do()).then(stale);
                let stale = known.flatten().map(|entry| found(entry, Via::Stale));
                stale.ok_or(error)
            }
        }
    }
}

/// Whether a load failed because it had to wait for the primary with others.
fn it_waited_for_others(loaded: &Loaded) -> bool {
    let is_so = |failed: &Failed| {
        let is_away = matches!(*failed.error, StoreError::Unavailable(_));
        failed.for_a_token && is_away && !failed.error.is_statement_timeout()
    };
    loaded.as_ref().is_err_and(is_so)
}
