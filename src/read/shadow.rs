//! The path `shadow`: what the history answered is held against the table, behind the answer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::history::HistoryLists;
use super::page::{self, RecentWorkflow};
use crate::check::{CheckError, Difference, complete, supported};
use crate::model::{Key, Newest};
use crate::store::Store;
use crate::store::lists::ListStart;

/// Comparisons at the same time. More answers than can be compared are not: a look at the table takes
/// less time than the answer did, and only where something differs it takes some seconds.
const AT_ONCE: usize = 16;
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

/// Compares answers with the table.
#[derive(Debug)]
pub(super) struct Shadow {
    store: Store,
    history: Arc<HistoryLists>,
    shadowed: Arc<Shadowed>,
    permits: Arc<Semaphore>,
    logged: Mutex<Option<Instant>>,
}

impl Shadow {
    pub(super) fn new(store: Store, history: Arc<HistoryLists>, shadowed: Arc<Shadowed>) -> Self {
        Self {
            store,
            history,
            shadowed,
            permits: Arc::new(Semaphore::new(AT_ONCE)),
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
            match page::read(&shadow.store, &starts, rows).await {
                Ok(table) => {
                    for ((start, history), table) in starts.iter().zip(&lists).zip(&table) {
                        shadow.compare_one(start, history, table).await;
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
        history: &[RecentWorkflow],
        table: &[RecentWorkflow],
    ) {
        let differences = match history == table {
            true => Ok(Vec::new()),
            false => self.differences(start, history, table).await,
        };
        let count = match differences {
            Ok(differences) => match differences.first() {
                None => &self.shadowed.matches,
                Some(first) => {
                    self.log_difference(first, differences.len());
                    &self.shadowed.mismatches
                }
            },
            Err(error) => {
                self.log("the table could not be compared", &error);
                &self.shadowed.errors
            }
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// What differs for longer than it takes to hear of a change: uses that the table does not know,
    /// rows that their runs do not support.
    async fn differences(
        &self,
        start: &ListStart,
        history: &[RecentWorkflow],
        table: &[RecentWorkflow],
    ) -> Result<Vec<Difference>, CheckError> {
        let scope = &start.scope;
        let of = |item: &RecentWorkflow| {
            let uid = scope.uid_column();
            let newest = Newest {
                last_used_at: item.last_used_at,
                run: item.run.clone(),
            };
            (Key::new(&scope.workspace, uid, &item.published_run), newest)
        };
        let only_in = |list: &[RecentWorkflow], other: &[RecentWorkflow]| {
            let only = list.iter().filter(|item| !other.contains(item));
            only.map(of).collect::<Vec<_>>()
        };
        let mut uses = only_in(history, table);
        uses.sort_unstable();
        let rows = only_in(table, history);
        let from = self.history.history().await?;
        let mut differences = complete::check(&self.store, from, &uses).await?;
        differences.extend(supported::check(&self.store, from, rows).await?);
        Ok(differences)
    }

    fn log_difference(&self, first: &Difference, count: usize) {
        if self.may_log() {
            let first = first.to_json();
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
