//! The path `shadow`: what the history answered is held against the table, behind the answer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::history::HistoryLists;
use super::page::{self, RecentWorkflow};
use crate::check::{CheckError, complete, supported};
use crate::history::Unmappable;
use crate::model::{Key, Newest};
use crate::store::lists::ListStart;
use crate::store::{AtHand, Store};

/// Comparisons at the same time. More answers than can be compared are not: a look at the table takes
/// less time than the answer did …
const AT_ONCE: usize = 16;
/// … and only where something differs it takes some seconds, and waits for notes: of those, so many are
/// looked into at the same time, and others are neither a match nor a mismatch.
const CONFIRMED_AT_ONCE: usize = 1;
/// A mismatch is logged once in so long; they are all counted.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// How often the table said the same as the history.
#[derive(Debug, Default)]
pub struct Shadowed {
    matches: AtomicU64,
    mismatches: AtomicU64,
    errors: AtomicU64,
}

impl Shadowed {
    /// Names and counts.
    pub fn counts(&self) -> [(&'static str, u64); 3] {
        [
            ("match", &self.matches),
            ("mismatch", &self.mismatches),
            ("error", &self.errors),
        ]
        .map(|(name, count)| (name, count.load(Ordering::Relaxed)))
    }
}

/// Items that one of two lists has.
#[derive(Debug, Default, PartialEq, Eq)]
struct Apart {
    only_history: Vec<RecentWorkflow>,
    only_table: Vec<RecentWorkflow>,
}

impl Apart {
    fn of(history: &[RecentWorkflow], table: &[RecentWorkflow]) -> Self {
        let only_in = |list: &[RecentWorkflow], other: &[RecentWorkflow]| {
            let only = list.iter().filter(|item| !other.contains(item));
            only.cloned().collect()
        };
        Self {
            only_history: only_in(history, table),
            only_table: only_in(table, history),
        }
    }
}

/// Compares answers with the table.
#[derive(Debug)]
pub(super) struct Shadow {
    store: Store,
    history: HistoryLists,
    shadowed: Arc<Shadowed>,
    permits: Arc<Semaphore>,
    confirming: Semaphore,
    logged: Mutex<Option<Instant>>,
}

impl Shadow {
    pub(super) fn new(store: Store, history: HistoryLists, shadowed: Arc<Shadowed>) -> Self {
        Self {
            store,
            history,
            shadowed,
            permits: Arc::new(Semaphore::new(AT_ONCE)),
            confirming: Semaphore::new(CONFIRMED_AT_ONCE),
            logged: Mutex::new(None),
        }
    }

    /// Compares what the history gave for the first `rows` items of some lists, in the background.
    pub(super) fn compare(
        self: &Arc<Self>,
        starts: Vec<ListStart>,
        rows: u32,
        lists: Vec<Vec<RecentWorkflow>>,
    ) {
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            return;
        };
        let shadow = Arc::clone(self);
        tokio::spawn(async move {
            match page::read(&shadow.store, &mut AtHand::default(), &starts, rows).await {
                Ok(table) => {
                    for ((start, history), table) in starts.iter().zip(&lists).zip(&table) {
                        shadow.compare_one(start, rows, history, table).await;
                    }
                }
                Err(error) => {
                    let lists = starts.len() as u64;
                    shadow.shadowed.errors.fetch_add(lists, Ordering::Relaxed);
                    shadow.log("the table could not be compared", &error);
                }
            }
            drop(permit);
        });
    }

    async fn compare_one(
        &self,
        start: &ListStart,
        rows: u32,
        history: &[RecentWorkflow],
        table: &[RecentWorkflow],
    ) {
        let seen = Apart::of(history, table);
        if seen == Apart::default() {
            self.shadowed.matches.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let Ok(_confirming) = self.confirming.try_acquire() else {
            return;
        };
        let count = match self.is_different(start, rows, seen).await {
            Ok(false) => &self.shadowed.matches,
            Ok(true) => &self.shadowed.mismatches,
            Err(error) => {
                self.log("the table could not be compared", &error);
                &self.shadowed.errors
            }
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether what differs does so for longer than it takes to hear of a change: uses that the table does
    /// not know, rows that their runs do not support; or the list itself, though all its rows are right.
    async fn is_different(
        &self,
        start: &ListStart,
        rows: u32,
        seen: Apart,
    ) -> Result<bool, CheckError> {
        let scope = &start.scope;
        let of = |item: &RecentWorkflow| {
            let uid = scope.uid_column();
            let newest = Newest {
                last_used_at: item.last_used_at,
                run: item.run.clone(),
            };
            (Key::new(&scope.workspace, uid, &item.published_run), newest)
        };
        let mut uses: Vec<_> = seen.only_history.iter().map(of).collect();
        uses.sort_unstable();
        let (from, unmappable) = (self.history.history().await?, Unmappable::default());
        let missed = complete::check(&self.store, from, &uses, &unmappable).await?;
        let only_table = seen.only_table.iter().map(of).collect();
        let denied = supported::check(&self.store, from, only_table, &unmappable).await?;
        let differences = [missed.differences, denied.differences].concat();
        if let Some(first) = differences.first() {
            self.log_difference(&first.to_json(), differences.len());
            return Ok(true);
        }
        if !missed.waiting.is_empty() || !denied.waiting.is_empty() {
            return Ok(false);
        }
        let start = std::slice::from_ref(start);
        let history = self.history.read(start, rows).await?.pop();
        let table = page::read(&self.store, &mut AtHand::default(), start, rows)
            .await?
            .pop();
        let again = Apart::of(&history.unwrap_or_default(), &table.unwrap_or_default());
        let is_same = again == seen;
        if is_same {
            let first = json!({"workspace": &*scope.workspace, "uid": scope.uid_column()});
            self.log_difference(&first, 1);
        }
        Ok(is_same)
    }

    fn log_difference(&self, first: &Value, count: usize) {
        if self.may_log() {
            tracing::warn!(count, %first, "a list of the table is not what the history says");
        }
    }

    fn log(&self, message: &'static str, error: &(dyn std::error::Error + 'static)) {
        if self.may_log() {
            tracing::warn!(error, "{message}");
        }
    }

    fn may_log(&self) -> bool {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        let may = logged.is_none_or(|at| at.elapsed() > LOG_EVERY);
        if may {
            *logged = Some(Instant::now());
        }
        may
    }
}
