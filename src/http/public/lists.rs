//! `GET` of a list.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use axum::response::Response;
use utoipa::IntoParams;

use crate::http::field_error::{FieldCode, FieldError};
use crate::http::path::ScopePath;
use crate::http::problem::Problem;
use crate::http::query::parameters;
use crate::http::{App, conditional};
use crate::model::Scope;
use crate::read::page::{DEFAULT_LIMIT, MAX_LIMIT};
use crate::read::{Cursor, Page, PageRequest, pages};

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
    ),
    responses(
        (status = 200, description = "A page of the list", body = Page,
         headers(("ETag" = String), ("Cache-Control" = String))),
        (status = 304, description = "The page is the known one"),
    )
)]
pub(super) async fn of_workspace(
    State(app): State<Arc<App>>,
    ScopePath(scope): ScopePath,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    list(&app, scope, query.as_deref(), &headers).await
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
    ),
    responses(
        (status = 200, description = "A page of the list", body = Page,
         headers(("ETag" = String), ("Cache-Control" = String))),
        (status = 304, description = "The page is the known one"),
    )
)]
pub(super) async fn of_user(
    State(app): State<Arc<App>>,
    ScopePath(scope): ScopePath,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    list(&app, scope, query.as_deref(), &headers).await
}

async fn list(
    app: &App,
    scope: Scope,
    query: Option<&str>,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let mut errors = Vec::new();
    let [limit, cursor, expand] = parameters(query, ["limit", "cursor", "expand"], &mut errors);
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
    if expand.is_some_and(|expand| expand != "details") {
        errors.push(FieldError::parameter(
            "expand",
            FieldCode::BadExpand,
            "is not `details`",
        ));
    }
    if !errors.is_empty() {
        return Err(Problem::invalid(errors));
    }
    let mut pages = pages(&app.store, vec![PageRequest { scope, cursor }], limit).await?;
    let page = pages.pop().unwrap_or(Page {
        recent_workflows: Vec::new(),
        next_cursor: None,
    });
    Ok(conditional::answer(
        headers,
        serde_json::to_vec(&page).unwrap_or_default(),
    ))
}
