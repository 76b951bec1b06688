//! Several lists at once.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{RawQuery, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::expand::{self, Begin, mark};
use super::lists::came_by;
use crate::cache::Via;
use crate::http::App;
use crate::http::body::Json;
use crate::http::describe::IdInput;
use crate::http::field_error::{FieldCode, FieldError};
use crate::http::fields::{Field, Fields};
use crate::http::problem::Problem;
use crate::http::query::parameters;
use crate::http::session::Session;
use crate::model::{Id, Scope};
use crate::read::page::{DEFAULT_LIMIT, MAX_LIMIT, RecentWorkflow, page};
use crate::store::lists;

/// Lists of one request at the most, so that it is one statement.
const MAX_SCOPES: usize = 100;
const _: () = assert!(MAX_SCOPES <= lists::MAX_SCOPES);

/// Which lists.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "describes the body; it is read field by field, to name every error"
)]
struct BatchRequest {
    /// Up to 100; answered in order.
    #[schema(max_items = 100)]
    scopes: Vec<BatchScope>,
    /// Items of each list at the most.
    #[schema(minimum = 1, maximum = 100, default = 4)]
    limit: Option<u32>,
    /// `["details"]` for the details of each item.
    expand: Option<Vec<String>>,
}

/// Whose list.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "describes the body; it is read field by field, to name every error"
)]
struct BatchScope {
    workspace: IdInput,
    /// Missing or null: the workspace's own list. An empty one is refused, so that nobody who is not known is shown
    /// what everybody used.
    uid: Option<IdInput>,
}

/// The lists, in the order of the request.
#[derive(Serialize, ToSchema)]
pub(super) struct BatchAnswer {
    lists: Vec<BatchList>,
}

#[derive(Serialize, ToSchema)]
struct BatchList {
    #[schema(value_type = String)]
    workspace: Box<str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, nullable = false)]
    uid: Option<Box<str>>,
    recent_workflows: Vec<RecentWorkflow>,
}

/// The first page of up to 100 lists
#[utoipa::path(
    post,
    path = "/v1/recent-workflows/batch",
    params(
        ("Recents-Session-Token" = Option<String>, Header, description = "Of a write that must be seen"),
    ),
    request_body = BatchRequest,
    responses((status = 200, description = "The lists, in order", body = BatchAnswer))
)]
pub(super) async fn lists(
    State(app): State<Arc<App>>,
    Session(token): Session,
    RawQuery(query): RawQuery,
    Json(body): Json,
) -> Result<Response, Problem> {
    let mut errors = Vec::new();
    let [] = parameters(query.as_deref(), [], &mut errors);
    let (scopes, limit, expanded) = read(&body, &mut errors);
    if !errors.is_empty() {
        return Err(Problem::invalid(errors));
    }
    let started = Instant::now();
    let how = app.how(token.as_ref());
    let found = app.reader.lists(&scopes, limit, how).await?;
    let mut via: Vec<Via> = found.iter().map(|found| found.via).collect();
    let waited = found.iter().map(|found| found.waited).max();
    let (pages, waited, unavailable) = match expanded {
        false => {
            let pages = scopes.iter().zip(&found);
            let pages = pages.map(|(scope, found)| page(scope, &found.entry.items, limit));
            (pages.collect(), waited.unwrap_or_default(), false)
        }
        true => {
            let begins: Vec<_> = found.iter().map(Begin::Found).collect();
            let expanded = expand::fill(&app, &scopes, &begins, limit, false, how).await?;
            via.extend(expanded.away.then_some(Via::Stale));
            (expanded.pages, started.elapsed(), expanded.unavailable)
        }
    };
    let text = |id: &Id| Box::from(id.as_str());
    let lists = scopes.iter().zip(pages).map(|(scope, page)| BatchList {
        workspace: text(&scope.workspace),
        uid: scope.uid.as_ref().map(text),
        recent_workflows: page.recent_workflows,
    });
    let answer = axum::Json(BatchAnswer {
        lists: lists.collect(),
    });
    let caching = HeaderValue::from_static("private, no-cache");
    let answer = ([(header::CACHE_CONTROL, caching)], answer).into_response();
    Ok(mark(came_by(answer, waited, &via), unavailable))
}

fn read(body: &Value, errors: &mut Vec<FieldError>) -> (Vec<Scope>, u32, bool) {
    let known = ["scopes", "limit", "expand"];
    let Some(mut fields) = Fields::new(body, String::new(), &known, errors) else {
        return (Vec::new(), DEFAULT_LIMIT, false);
    };
    let limit = match fields.value("limit") {
        Field::Here(value) => {
            let limit = value.as_u64().and_then(|n| u32::try_from(n).ok());
            limit
                .filter(|n| (1..=MAX_LIMIT).contains(n))
                .unwrap_or_else(|| {
                    let detail = format!("is not a whole number from 1 to {MAX_LIMIT}");
                    fields.refuse("limit", FieldCode::BadLimit, detail);
                    DEFAULT_LIMIT
                })
        }
        _ => DEFAULT_LIMIT,
    };
    let mut expanded = false;
    if let Field::Here(expand) = fields.value("expand") {
        expanded = expand.as_array().is_some_and(|values| !values.is_empty());
        let details = |value: &Value| value.as_str() == Some("details");
        if !expand
            .as_array()
            .is_some_and(|values| values.iter().all(details))
        {
            fields.refuse("expand", FieldCode::BadExpand, "is not [\"details\"]");
        }
    }
    let scopes = match fields.value("scopes") {
        Field::Here(Value::Array(scopes)) if scopes.len() <= MAX_SCOPES => scopes,
        Field::Here(Value::Array(_)) => {
            fields.refuse(
                "scopes",
                FieldCode::TooMany,
                format_args!("has more than {MAX_SCOPES} items"),
            );
            return (Vec::new(), limit, expanded);
        }
        Field::Here(_) => {
            fields.refuse("scopes", FieldCode::WrongType, "is not an array");
            return (Vec::new(), limit, expanded);
        }
        _ => {
            fields.refuse("scopes", FieldCode::Required, "is required");
            return (Vec::new(), limit, expanded);
        }
    };
    let scopes = scopes.iter().enumerate().filter_map(|(at, scope)| {
        let mut fields = Fields::new(
            scope,
            format!("/scopes/{at}"),
            &["workspace", "uid"],
            errors,
        )?;
        let (workspace, uid) = (fields.required_id("workspace"), fields.id("uid").here());
        Some(Scope {
            workspace: workspace?,
            uid,
        })
    });
    (scopes.collect(), limit, expanded)
}
