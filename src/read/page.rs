//! Pages of lists.

use std::sync::Arc;
use std::time::Duration;

use serde::ser::Error;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::Cursor;
use crate::details::Candidate;
use crate::model::{Scope, Time};
use crate::store::lists::{self, ListStart};
use crate::store::{AtHand, Conn, Store, StoreError};

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
    /// What the application tells of the workflow, where it was asked for and is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub details: Option<Card>,
}

/// The details of a workflow: a JSON object, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card(pub Arc<str>);

impl Serialize for Card {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let object: &RawValue = serde_json::from_str(&self.0).map_err(S::Error::custom)?;
        object.serialize(serializer)
    }
}

impl Candidate for RecentWorkflow {
    fn published_run(&self) -> &str {
        &self.published_run
    }
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

/// The first `limit` of the items, which are one more where there is a next page.
pub fn page(scope: &Scope, items: &[RecentWorkflow], limit: u32) -> Page {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let shown = items.get(..limit).unwrap_or(items);
    let last = shown.last().filter(|_| items.len() > limit);
    let next_cursor =
        last.map(|item| Cursor::encode(scope, item.last_used_at, &item.published_run));
    Page {
        recent_workflows: shown.to_vec(),
        next_cursor,
    }
}

impl From<lists::Item> for RecentWorkflow {
    fn from(item: lists::Item) -> Self {
        Self {
            published_run: item.published_run,
            last_used_at: item.newest.last_used_at,
            run: item.newest.run,
            details: None,
        }
    }
}

/// Reads one page of each list from the database, `limit` items at the most, in one statement. For
/// commands; a service asks its [`super::Reader`].
///
/// # Errors
/// [`StoreError`] where the database fails.
pub async fn pages(
    store: &Store,
    requests: Vec<PageRequest>,
    limit: u32,
) -> Result<Vec<Page>, StoreError> {
    let starts: Vec<_> = requests.into_iter().map(ListStart::from).collect();
    let lists = read(store, &mut AtHand::default(), &starts, limit + 1).await?;
    let pages = starts
        .iter()
        .zip(lists)
        .map(|(start, items)| page(&start.scope, &items, limit));
    Ok(pages.collect())
}

/// The first `rows` items of each list, within [`READ_TIMEOUT`].
pub(super) async fn read(
    store: &Store,
    at_hand: &mut AtHand,
    starts: &[ListStart],
    rows: u32,
) -> Result<Vec<Vec<RecentWorkflow>>, StoreError> {
    let read = async {
        let mut session = at_hand.take(store).await?;
        let lists = read_by(&mut session.conn(), starts, rows).await?;
        at_hand.keep(session, store).await?;
        Ok(lists)
    };
    tokio::time::timeout(READ_TIMEOUT, read)
        .await
        .unwrap_or(Err(StoreError::Unavailable(sqlx::Error::PoolTimedOut)))
}

/// The same, of the server behind this connection, without a limit of time.
pub(super) async fn read_by(
    conn: &mut Conn<'_>,
    starts: &[ListStart],
    rows: u32,
) -> Result<Vec<Vec<RecentWorkflow>>, StoreError> {
    let lists = lists::read(conn, starts, rows).await?;
    let items = |items: Vec<lists::Item>| items.into_iter().map(Into::into).collect();
    Ok(lists.into_iter().map(items).collect())
}

impl From<PageRequest> for ListStart {
    fn from(request: PageRequest) -> Self {
        let after = request
            .cursor
            .map(|cursor| (cursor.last_used_at, cursor.published_run));
        Self {
            scope: request.scope,
            after,
        }
    }
}
