//! Lists out of the history itself, which needs no table: how the question was answered before.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OnceCell;

use super::page::RecentWorkflow;
use super::rest::Rest;
use crate::config::HistoryConfig;
use crate::dismiss;
use crate::history::{self, History, HistoryError};
use crate::model::{Key, Newest, Scope, Time};
use crate::store::dismissal::Dismissed;
use crate::store::lists::ListStart;
use crate::store::{Store, StoreError, dismissal};
use crate::telemetry::chain;

/// A database that says nothing for so long is gone; longer than a list may take it.
const READ_TIMEOUT: Duration = Duration::from_secs(12);

/// The history of a table, connected to when it is first asked.
#[derive(Debug)]
pub(super) struct HistoryLists {
    store: Store,
    config: HistoryConfig,
    /// Whether lists are given also where nobody can tell what was dismissed.
    forced: bool,
    history: OnceCell<Arc<History>>,
    /// The history could not be connected to; the table's database could not tell what was dismissed.
    away: Rest,
    untold: Rest,
}

impl HistoryLists {
    pub(super) fn new(store: Store, config: HistoryConfig, forced: bool) -> Self {
        Self {
            store,
            config,
            forced,
            history: OnceCell::new(),
            away: Rest::new(),
            untold: Rest::new(),
        }
    }

    pub(super) async fn history(&self) -> Result<&Arc<History>, StoreError> {
        let connect = async || {
            if !self.away.is_over() {
                return Err(gone());
            }
            let connected = history::connect(&self.config).await;
            connected.map(Arc::new).map_err(|error| {
                self.away.begin();
                as_store_error(error)
            })
        };
        self.history.get_or_try_init(connect).await
    }

    /// What a dismissal hides that is dated later than `now`.
    pub(super) async fn ahead(
        &self,
        what: &Dismissed,
        now: Time,
    ) -> Result<Vec<(Key, Newest)>, StoreError> {
        let ahead = async {
            let history = self.history().await?;
            let ahead = dismiss::ahead(history, what, now).await;
            ahead.map_err(as_store_error)
        };
        within_time(ahead).await
    }

    /// The next `rows` items of each list, as the history has them now, without what was dismissed.
    pub(super) async fn read(
        &self,
        starts: &[ListStart],
        rows: u32,
    ) -> Result<Vec<Vec<RecentWorkflow>>, StoreError> {
        let scopes: Vec<&Scope> = starts.iter().map(|start| &start.scope).collect();
        let newest = async {
            let history = self.history().await?;
            history.newest(&scopes).await.map_err(as_store_error)
        };
        let newest = within_time(newest).await?;
        let mut lists: HashMap<(&str, &str), Vec<&(Key, Newest)>> = HashMap::new();
        for item in &newest {
            let (workspace, uid, _) = item.0.parts();
            lists.entry((workspace, uid)).or_default().push(item);
        }
        for items in lists.values_mut() {
            items.sort_unstable_by(|a, b| position(b).cmp(&position(a)));
        }
        let mut read = Vec::with_capacity(starts.len());
        for start in starts {
            let of = (start.scope.workspace.as_str(), start.scope.uid_column());
            let items = lists.get(&of).map_or(&[][..], Vec::as_slice);
            let behind = |item: &&&(Key, Newest)| match &start.after {
                Some((time, published_run)) => position(item) < (*time, published_run.as_str()),
                None => true,
            };
            let items: Vec<_> = items.iter().filter(behind).copied().collect();
            read.push(items);
        }
        self.visible(read, rows as usize).await
    }

    /// The first `rows` of each list that nobody dismissed.
    async fn visible(
        &self,
        lists: Vec<Vec<&(Key, Newest)>>,
        rows: usize,
    ) -> Result<Vec<Vec<RecentWorkflow>>, StoreError> {
        let mut until = HashMap::new();
        let mut asked: Vec<&Key> = lists.iter().flatten().map(|item| &item.0).collect();
        asked.sort_unstable();
        asked.dedup();
        let is_asked = !asked.is_empty() && (!self.forced || self.untold.is_over());
        if is_asked {
            // In one statement, however many workflows a list has.
            match within_time(dismissal::of_keys(&self.store, asked.iter().copied())).await {
                Ok(found) => until = found,
                // There is no table, and so nothing was dismissed; or the operator said to do without it.
                Err(StoreError::Unmigrated(_)) => {}
                Err(error) if self.forced => {
                    self.untold.begin();
                    let error = chain(&error);
                    tracing::warn!(error, "lists are given with what was dismissed");
                }
                Err(error) => return Err(error),
            }
        }
        let is_visible =
            |(key, newest): &&(Key, Newest)| until.get(key) < Some(&newest.last_used_at);
        let shown = |items: Vec<&(Key, Newest)>| {
            let items = items.into_iter().filter(is_visible).take(rows);
            items.map(item_of).collect()
        };
        Ok(lists.into_iter().map(shown).collect())
    }
}

fn position((key, newest): &(Key, Newest)) -> (crate::model::Time, &str) {
    (newest.last_used_at, key.parts().2)
}

fn item_of((key, newest): &(Key, Newest)) -> RecentWorkflow {
    RecentWorkflow {
        published_run: key.parts().2.into(),
        last_used_at: newest.last_used_at,
        run: newest.run.clone(),
        details: None,
    }
}

async fn within_time<T>(
    read: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let read = tokio::time::timeout(READ_TIMEOUT, read).await;
    read.unwrap_or_else(|_| Err(gone()))
}

fn gone() -> StoreError {
    StoreError::Unavailable(sqlx::Error::PoolTimedOut)
}

/// A history that cannot be read, as what it means to a reader: it is away, or fails.
fn as_store_error(error: HistoryError) -> StoreError {
    match error {
        HistoryError::TimedOut(_) => gone(),
        HistoryError::Database(error) => match error.into() {
            away @ (StoreError::Unavailable(_) | StoreError::Conflict(_)) => away,
            StoreError::Full(error)
            | StoreError::Refused(error)
            | StoreError::Unmigrated(error)
            | StoreError::Corrupt(error)
            | StoreError::Other(error) => StoreError::Other(error),
            other => other,
        },
        error => StoreError::Other(sqlx::Error::Configuration(error.into())),
    }
}
