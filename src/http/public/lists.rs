//! `GET` of a list.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use utoipa::IntoParams;

use super::expand::{self, Begin, mark};
use crate::cache::{Answer, Via};
use crate::http::field_error::{FieldCode, FieldError};
use crate::http::path::ScopePath;
use crate::http::problem::{Code, Problem};
use crate::http::query::parameters;
use crate::http::session::Session;
use crate::http::timing::Waited;
use crate::http::{App, conditional};
use crate::model::Scope;
use crate::read::page::{DEFAULT_LIMIT, MAX_LIMIT, page};
use crate::read::{Cursor, Page};
use crate::store::Token;
use crate::store::lists::ListStart;

/// The header of an answer that may be old, because the database is out of reach.
const STALE: HeaderName = HeaderName::from_static("recents-stale");

/// Which page of a list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(
    dead_code,
    reason = "describes the query; it is read field by field, to name every error"
)]
struct ListParameters {
    /// Items at the most
    #[param(minimum = 1, maximum = 100, default = 4)]
    limit: Option<u32>,
    /// `next_cursor` of the page before
    cursor: Option<String>,
    /// `details` for the details of each item
    expand: Option<String>,
}

/// The workflows that anyone used last in a workspace
///
/// Newest first. A workspace never seen has an empty list.
#[utoipa::path(
    get,
    path = "/v1/workspaces/{workspace}/recent-workflows",
    params(
        ("workspace" = String, Path, description = "The workspace"),
        ListParameters,
        ("If-None-Match" = Option<String>, Header, description = "The `ETag` of a known answer"),
        ("Recents-Session-Token" = Option<String>, Header, description = "Of a write that must be seen"),
    ),
    responses(
        (status = 200, description = "A page of the list", body = Page,
         headers(("ETag" = String), ("Cache-Control" = String),
                 ("Recents-Stale" = Option<String>, description = "`true`: the database is out of reach, or says nothing for three seconds"),
                 ("Recents-Details" = Option<String>,
                  description = "`unavailable`: some details that were asked for are missing"))),
        (status = 304, description = "The page is the known one"),
    )
)]
pub(super) async fn of_workspace(
    State(app): State<Arc<App>>,
    ScopePath(scope): ScopePath,
    Session(token): Session,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    list(&app, scope, token, query.as_deref(), &headers).await
}

/// The workflows that one user used last in a workspace
///
/// Newest first. A user never seen has an empty list.
#[utoipa::path(
    get,
    path = "/v1/workspaces/{workspace}/users/{uid}/recent-workflows",
    params(
        ("workspace" = String, Path, description = "The workspace"),
        ("uid" = String, Path, description = "The user"),
        ListParameters,
        ("If-None-Match" = Option<String>, Header, description = "The `ETag` of a known answer"),
        ("Recents-Session-Token" = Option<String>, Header, description = "Of a write that must be seen"),
    ),
    responses(
        (status = 200, description = "A page of the list", body = Page,
         headers(("ETag" = String), ("Cache-Control" = String),
                 ("Recents-Stale" = Option<String>, description = "`true`: the database is out of reach, or says nothing for three seconds"),
                 ("Recents-Details" = Option<String>,
                  description = "`unavailable`: some details that were asked for are missing"))),
        (status = 304, description = "The page is the known one"),
    )
)]
pub(super) async fn of_user(
    State(app): State<Arc<App>>,
    ScopePath(scope): ScopePath,
    Session(token): Session,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    list(&app, scope, token, query.as_deref(), &headers).await
}

async fn list(
    app: &App,
    scope: Scope,
    token: Option<Token>,
    query: Option<&str>,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let mut errors = Vec::new();
    let [limit, cursor, details] = parameters(query, ["limit", "cursor", "expand"], &mut errors);
    let limit = match limit {
        None => DEFAULT_LIMIT,
        Some(text) => Some(&text)
            .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|text| text.parse().ok())
            .filter(|n| (1..=MAX_LIMIT).contains(n))
            .unwrap_or_else(|| {
                let detail = format!("is not a whole number from 1 to {MAX_LIMIT}");
                errors.push(FieldError::parameter("limit", FieldCode::BadLimit, detail));
                DEFAULT_LIMIT
            }),
    };
    let cursor = cursor.and_then(|text| {
        let cursor = Cursor::decode(&scope, &text);
        cursor
            .map_err(|e| errors.push(FieldError::parameter("cursor", FieldCode::BadCursor, e)))
            .ok()
    });
    let expanded = details.is_some();
    if details.is_some_and(|details| details != "details") {
        errors.push(FieldError::parameter(
            "expand",
            FieldCode::BadExpand,
            "is not `details`",
        ));
    }
    if !errors.is_empty() {
        return Err(Problem::invalid(errors));
    }
    let how = app.how(token.as_ref());
    let started = Instant::now();
    let scopes = std::slice::from_ref(&scope);
    let (mut found, mut via) = (Vec::new(), Vec::new());
    let begin = match cursor {
        None => {
            found = app.reader.lists(scopes, limit, how).await?;
            let Some(found) = found.first() else {
                return Err(Problem::new(Code::Internal, "the list was not read"));
            };
            if !expanded {
                let answer = conditional::answer(headers, found.entry.answer(&scope, limit));
                return Ok(came_by(answer, found.waited, &[found.via]));
            }
            Begin::Found(found)
        }
        Some(cursor) => {
            let start = [ListStart {
                scope: scope.clone(),
                after: Some((cursor.last_used_at, cursor.published_run)),
            }];
            // Boxed, as below: what a page out of the cache does not need is not moved about with each.
            let read = Box::pin(app.reader.read_on(&start, limit + 1, how));
            let (mut lists, is_stale) = read.await?;
            via.extend(is_stale.then_some(Via::Stale));
            let items = lists.pop().unwrap_or_default();
            if !expanded {
                let answer = conditional::answer(headers, Answer::of(&page(&scope, &items, limit)));
                return Ok(came_by(answer, started.elapsed(), &via));
            }
            Begin::Read(items)
        }
    };
    via.extend(found.iter().map(|found| found.via));
    let expanded = Box::pin(expand::fill(app, scopes, &[begin], limit, true, how)).await?;
    via.extend(expanded.away.then_some(Via::Stale));
    let page = expanded.pages.into_iter().next();
    let page = page.ok_or_else(|| Problem::new(Code::Internal, "no page was filled"))?;
    let answer = conditional::answer(headers, Answer::of(&page));
    Ok(mark(
        came_by(answer, started.elapsed(), &via),
        expanded.unavailable,
    ))
}

/// Says how an answer was come by: how long the databases were waited for, and whether it is stale
/// because the table's is out of reach.
pub(super) fn came_by(mut answer: Response, waited: Duration, via: &[Via]) -> Response {
    answer.extensions_mut().insert(Waited(waited));
    if via.contains(&Via::Stale) {
        let stale = HeaderValue::from_static("true");
        answer.headers_mut().insert(STALE, stale);
    }
    answer
}
