//! One query, and the loads that wait for it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{StreamExt, stream};

use super::{Began, Failed, Load, Shared};
use crate::cache::Entry;
use crate::model::Scope;
use crate::read::source::{PRIMARY, Read, WHATEVER};
use crate::store::lists::ListStart;
use crate::store::{AtHand, StoreError};

/// Queries at once for the lists of one that failed.
const AT_ONCE_APART: usize = 2;
/// How long the lists of one that the database broke off, because it took too long, are asked for by
/// themselves: their readers waited for long already. Two hundred take less, and more than one of them may be
/// slow.
const QUICK_WITHIN: Duration = Duration::from_millis(500);

/// Loads of one query; no longer under way when dropped.
pub(super) struct Batch<'a> {
    pub(super) shared: &'a Shared,
    pub(super) loads: Vec<(Scope, Load)>,
    /// Whether it is a part of another one, which answers for what this one is not given the time for.
    pub(super) is_part: bool,
}

impl Batch<'_> {
    /// Items of each list.
    fn rows(&self) -> u32 {
        let rows = self.loads.iter().map(|(_, load)| load.rows).max();
        rows.unwrap_or(1)
    }

    pub(super) async fn read(&self, at_hand: &mut AtHand) -> Result<Read, StoreError> {
        let least = self.loads.iter().map(|(_, load)| load.least).max();
        let start = |(scope, _): &(Scope, Load)| ListStart {
            scope: scope.clone(),
            after: None,
        };
        let starts: Vec<_> = self.loads.iter().map(start).collect();
        self.shared.counts.queries.fetch_add(1, Ordering::Relaxed);
        let source = &self.shared.source;
        source
            .read(&starts, self.rows(), least.unwrap_or(PRIMARY), at_hand)
            .await
    }

    /// Whether one of several lists may be why the others failed.
    pub(super) fn may_be_of_one(&self, error: &StoreError) -> bool {
        self.loads.len() > 1 && self.shared.source.may_be_of_one(error)
    }

    /// Loads each list by itself, a few at once.
    pub(super) async fn finish_apart(&self, began: Began) {
        let apart =
            stream::iter(&self.loads).for_each_concurrent(AT_ONCE_APART, |load| async move {
                let alone = Batch {
                    shared: self.shared,
                    loads: vec![load.clone()],
                    is_part: true,
                };
                let loaded = alone.read(&mut AtHand::default()).await;
                alone.finish(began, loaded);
            });
        apart.await;
    }

    /// Loads each list that is quick by itself: one that is slow may be why all of them were too slow together.
    pub(super) async fn finish_quick_ones(&self, began: Began) {
        if self.loads.len() > 1
            && let Ok(_turn) = self.shared.quick.acquire().await
        {
            let _ = tokio::time::timeout(QUICK_WITHIN, self.finish_apart(began)).await;
        }
    }

    /// Hands the failure to all who still wait.
    pub(super) fn fail(&self, error: StoreError) {
        let failed = Failed {
            error: Arc::new(error),
            for_a_token: self.loads.iter().any(|(_, load)| load.least > WHATEVER),
        };
        for (_, load) in &self.loads {
            let _ = load.done.set(Err(failed.clone()));
        }
    }

    /// Keeps what was loaded where it may be kept, and hands it to all who wait.
    pub(super) fn finish(&self, began: Began, loaded: Result<Read, StoreError>) {
        match loaded {
            Ok(read) => {
                let (is_stale, Read { lists, by_replica }) = (read.is_stale(), read);
                for ((scope, load), items) in self.loads.iter().zip(lists) {
                    let is_whole = items.len() < self.rows() as usize;
                    let entry = Entry::new(items, is_whole, began.generation, began.at, by_replica);
                    let entry = Arc::new(entry);
                    if let Some(kept) = self.shared.cache.coherent().filter(|_| !is_stale) {
                        let changes = &self.shared.changes;
                        kept.keep(changes, scope.clone(), Arc::clone(&entry));
                    }
                    let _ = load.done.set(Ok(entry));
                }
            }
            Err(error) => self.fail(error),
        }
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        let waits = |(_, load): &(Scope, Load)| !load.done.initialized();
        if !self.is_part && self.loads.iter().any(waits) {
            // Its task panicked.
            self.fail(StoreError::Other(sqlx::Error::WorkerCrashed));
        }
        let mut queue = self.shared.queue();
        for (scope, load) in &self.loads {
            // A later load of the same scope may have taken its place.
            let own = |(_, under_way): &(Began, Load)| Arc::ptr_eq(&under_way.done, &load.done);
            if queue.under_way.get(scope).is_some_and(own) {
                queue.under_way.remove(scope);
            }
        }
    }
}
