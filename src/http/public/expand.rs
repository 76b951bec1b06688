//! `expand=details`: pages filled with items that may be shown, each with its details.

use std::sync::atomic::{AtomicBool, Ordering};

use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;

use crate::details::{Candidates, Filled, Refill};
use crate::http::App;
use crate::model::{Id, Scope};
use crate::read::page::{Card, Page, RecentWorkflow, page};
use crate::read::{Cursor, Found, How, Reader};
use crate::store::StoreError;
use crate::store::lists::ListStart;

/// The header of an answer of which some details are missing.
const DETAILS: HeaderName = HeaderName::from_static("recents-details");

/// What is at hand of a list.
pub(super) enum Begin<'a> {
    /// Its head, and what is known behind that.
    Found(&'a Found),
    /// What was read behind a cursor: one more than `limit` items, where there are so many.
    Read(Vec<RecentWorkflow>),
}

impl Begin<'_> {
    /// What a page begins with.
    fn head(&self, limit: u32) -> &[RecentWorkflow] {
        match self {
            Self::Found(found) => found.entry.head(limit),
            Self::Read(items) => items,
        }
    }

    fn candidates(&self, limit: u32) -> Candidates<RecentWorkflow> {
        let items = self.head(limit).to_vec();
        let more = match self {
            Self::Found(found) => !found.entry.is_whole || !found.entry.behind(limit).is_empty(),
            Self::Read(items) => items.len() > limit as usize,
        };
        Candidates { items, more }
    }

    /// What is behind that without asking anyone.
    fn held(&self, reader: &Reader, limit: u32) -> Option<Candidates<RecentWorkflow>> {
        let Self::Found(found) = self else {
            return None;
        };
        let held = reader.held(found, limit);
        let candidates = || Candidates {
            items: held.to_vec(),
            more: !found.entry.is_whole,
        };
        (!held.is_empty()).then(candidates)
    }
}

/// Pages, and what is to be said of them.
pub(super) struct Expanded {
    pub(super) pages: Vec<Page>,
    /// Some of the details could not be had.
    pub(super) unavailable: bool,
    /// Some lists could not be read on, so that their pages are shorter, or may be the last.
    pub(super) away: bool,
}

/// Fills a page of each list; with the cursor of the next one where there is one, if `cursors` are asked for.
pub(super) async fn fill(
    app: &App,
    scopes: &[Scope],
    begins: &[Begin<'_>],
    limit: u32,
    cursors: bool,
    how: How<'_>,
) -> Result<Expanded, StoreError> {
    let Some(details) = &app.details else {
        let pages = scopes.iter().zip(begins);
        let pages = pages.map(|(scope, begin)| page(scope, begin.head(limit), limit));
        return Ok(Expanded {
            pages: pages.collect(),
            unavailable: true,
            away: false,
        });
    };
    let away = AtomicBool::new(false);
    let more = |refills| read_on_or_not(&app.reader, scopes, refills, how, &away);
    let lists = begins.iter().map(|begin| begin.candidates(limit)).collect();
    let held = |list: usize| begins.get(list)?.held(&app.reader, limit);
    let filled = details.fill(limit as usize, cursors, lists, held, more);
    let filled = filled.await?;
    Ok(Expanded {
        unavailable: filled.iter().any(|filled| filled.unavailable),
        away: away.into_inner(),
        pages: scopes.iter().zip(filled).map(page_of).collect(),
    })
}

/// Reads on in some of the lists; not where the database is out of reach, unless something must be seen.
async fn read_on_or_not(
    reader: &Reader,
    scopes: &[Scope],
    refills: Vec<Refill<RecentWorkflow>>,
    how: How<'_>,
    away: &AtomicBool,
) -> Result<Vec<Candidates<RecentWorkflow>>, StoreError> {
    let nothing = |_| Candidates {
        items: Vec::new(),
        more: true,
    };
    let lists = 0..refills.len();
    if !reader.is_away(how) {
        match read_on(reader, scopes, refills, how).await {
            Err(StoreError::Unavailable(_)) if how.token.is_none() => {}
            Ok((lists, is_stale)) => {
                away.fetch_or(is_stale, Ordering::Relaxed);
                return Ok(lists);
            }
            Err(error) => return Err(error),
        }
    }
    away.store(true, Ordering::Relaxed);
    Ok(lists.map(nothing).collect())
}

/// Reads on in some of the lists; and whether what was read may be old.
async fn read_on(
    reader: &Reader,
    scopes: &[Scope],
    refills: Vec<Refill<RecentWorkflow>>,
    how: How<'_>,
) -> Result<(Vec<Candidates<RecentWorkflow>>, bool), StoreError> {
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
    let (lists, is_stale) = reader.read_on(&known, count + 1, how).await?;
    let mut lists = lists.into_iter();
    let candidates = starts.iter().map(|start| {
        let mut items = start
            .as_ref()
            .and_then(|_| lists.next())
            .unwrap_or_default();
        let more = items.len() > count as usize;
        items.truncate(count as usize);
        Candidates { items, more }
    });
    Ok((candidates.collect(), is_stale))
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
