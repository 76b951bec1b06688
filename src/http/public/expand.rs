//! `expand=details`: pages filled with items that may be shown, each with its details.

use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;

use crate::details::{Candidates, Filled, Refill};
use crate::http::App;
use crate::model::{Id, Scope};
use crate::read::page::{Card, Page, RecentWorkflow};
use crate::read::{Cursor, How, Reader};
use crate::store::StoreError;
use crate::store::lists::ListStart;

/// The header of an answer of which some details are missing.
const DETAILS: HeaderName = HeaderName::from_static("recents-details");

/// Pages, and whether some of the details could not be had.
pub(super) struct Expanded {
    pub(super) pages: Vec<Page>,
    pub(super) unavailable: bool,
}

/// Fills a page of each list. `heads` are what the lists begin with: one more than `limit` items, where
/// there are so many.
pub(super) async fn fill(
    app: &App,
    scopes: &[Scope],
    heads: Vec<Vec<RecentWorkflow>>,
    limit: u32,
    how: How<'_>,
) -> Result<Expanded, StoreError> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let Some(details) = &app.details else {
        let pages = scopes.iter().zip(heads);
        let pages = pages.map(|(scope, head)| crate::read::page::page(scope, &head, limit as u32));
        return Ok(Expanded {
            pages: pages.collect(),
            unavailable: true,
        });
    };
    let heads = heads.into_iter().map(|items| Candidates {
        more: items.len() > limit,
        items,
    });
    let more = |refills| read_on(&app.reader, scopes, refills, how);
    let filled = details.fill(limit, heads.collect(), more).await?;
    Ok(Expanded {
        unavailable: filled.iter().any(|filled| filled.unavailable),
        pages: scopes.iter().zip(filled).map(page_of).collect(),
    })
}

/// Reads on in some of the lists.
async fn read_on(
    reader: &Reader,
    scopes: &[Scope],
    refills: Vec<Refill<RecentWorkflow>>,
    how: How<'_>,
) -> Result<Vec<Candidates<RecentWorkflow>>, StoreError> {
    let start = |refill: &Refill<RecentWorkflow>| {
        // A row that somebody else wrote may have anything for an id; nothing is read behind it.
        let published_run = Id::new(&*refill.after.published_run).ok()?;
        Some(ListStart {
            scope: scopes.get(refill.list)?.clone(),
            after: Some((refill.after.last_used_at, published_run)),
        })
    };
    let starts: Vec<_> = refills.iter().map(start).collect();
    let known: Vec<ListStart> = starts.iter().flatten().cloned().collect();
    let count = refills.iter().map(|refill| refill.count).max().unwrap_or(0);
    let mut lists = reader.read_on(&known, count + 1, how).await?.into_iter();
    let candidates = starts.iter().map(|start| {
        let mut items = start
            .as_ref()
            .and_then(|_| lists.next())
            .unwrap_or_default();
        let more = items.len() > count as usize;
        items.truncate(count as usize);
        Candidates { items, more }
    });
    Ok(candidates.collect())
}

fn page_of((scope, filled): (&Scope, Filled<RecentWorkflow>)) -> Page {
    let items = filled.items.into_iter().map(|(item, card)| RecentWorkflow {
        details: card.map(Card),
        ..item
    });
    Page {
        recent_workflows: items.collect(),
        next_cursor: filled
            .next
            .map(|item| Cursor::encode(scope, item.last_used_at, &item.published_run)),
    }
}

/// Says of an answer that some of its details are missing.
pub(super) fn mark(mut answer: Response, unavailable: bool) -> Response {
    if unavailable {
        let value = HeaderValue::from_static("unavailable");
        answer.headers_mut().insert(DETAILS, value);
    }
    answer
}
