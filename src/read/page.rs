//! Pages of lists.

use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use super::Cursor;
use crate::model::{Scope, Time};
use crate::store::recent::{self, ListStart};
use crate::store::{Store, StoreError};

/// A page's items unless asked otherwise.
pub const DEFAULT_LIMIT: u32 = 4;
/// A page's items at the most; nobody looks at more, and the answer stays some kilobytes.
pub const MAX_LIMIT: u32 = 100;

/// A read takes milliseconds. A database that says nothing for so long, not even that the statement
/// took too long, is gone, and a page that waits for its lists should hear that.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Which page of which list.
#[derive(Debug, Clone)]
pub struct PageRequest {
    /// Whose list.
    pub scope: Scope,
    /// Behind which item; `None` for the first page.
    pub cursor: Option<Cursor>,
}

/// An item of a list: a workflow and its newest use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct RecentWorkflow {
    /// The workflow.
    #[schema(value_type = String, example = "88")]
    pub published_run: Box<str>,
    /// When it was last used, RFC 3339 in UTC with microseconds.
    #[schema(value_type = String, format = DateTime, example = "2026-11-20T10:00:00.123456Z")]
    pub last_used_at: Time,
    /// The run that used it; absent where the hook was called without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, nullable = false, example = "991")]
    pub run: Option<Box<str>>,
}

/// A page of a list, newest first; ties by `published_run`, descending in byte order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Page {
    /// The items.
    pub recent_workflows: Vec<RecentWorkflow>,
    /// Where the next page begins; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub next_cursor: Option<String>,
}

/// Reads one page of each list, `limit` items at the most, in one statement.
///
/// # Errors
/// [`StoreError`] where the database fails.
pub async fn pages(
    store: &Store,
    requests: Vec<PageRequest>,
    limit: u32,
) -> Result<Vec<Page>, StoreError> {
    let starts: Vec<_> = requests.into_iter().map(start).collect();
    // One more than asked for tells whether there is a next page.
    let read = recent::lists(store, &starts, limit + 1);
    let lists = tokio::time::timeout(READ_TIMEOUT, read)
        .await
        .unwrap_or(Err(StoreError::Unavailable(sqlx::Error::PoolTimedOut)))?;
    Ok(starts
        .iter()
        .zip(lists)
        .map(|(start, items)| page(&start.scope, items, limit))
        .collect())
}

fn start(request: PageRequest) -> ListStart {
    let after = request
        .cursor
        .map(|cursor| (cursor.last_used_at, cursor.published_run));
    ListStart {
        scope: request.scope,
        after,
    }
}

fn page(scope: &Scope, mut items: Vec<recent::Item>, limit: u32) -> Page {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = items.len() > limit;
    items.truncate(limit);
    let last = items.last().filter(|_| more);
    let next_cursor =
        last.map(|item| Cursor::encode(scope, item.newest.last_used_at, &item.published_run));
    let recent_workflows = items
        .into_iter()
        .map(|item| RecentWorkflow {
            published_run: item.published_run,
            last_used_at: item.newest.last_used_at,
            run: item.newest.run,
        })
        .collect();
    Page {
        recent_workflows,
        next_cursor,
    }
}
