//! `POST /admin/v1/resyncs`.

use std::sync::Arc;

use axum::Json as JsonAnswer;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use utoipa::ToSchema;

use super::job_answer::JobAnswer;
use super::jobs::refused;
use crate::http::App;
use crate::http::body::Json;
use crate::http::describe::IdInput;
use crate::http::field_error::{FieldCode, FieldError};
use crate::http::fields::{Field, Fields};
use crate::http::problem::{Code, Problem};
use crate::http::query::NoParameters;
use crate::jobs::operate;
use crate::jobs::resync::{Mode, Options};
use crate::model::Id;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// What any client makes of a uuid or a hash fits in.
const MAX_KEY_BYTES: usize = 255;

/// What to re-sync, and how.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "describes the body; it is read field by field, to name every error"
)]
struct ResyncRequest {
    /// One workspace …
    #[schema(example = "5")]
    workspace: Option<IdInput>,
    /// … or `true`: everything.
    all: Option<bool>,
    /// `merge` only raises and adds; `rebuild` lowers and removes too.
    #[schema(default = "merge")]
    mode: Option<String>,
    /// Only tell what would change: see the job's plan.
    #[schema(default = false)]
    dry_run: Option<bool>,
}

/// Make the table what the history says
///
/// A job does it, which this answers with; whichever replica comes first works at it. The same
/// `Idempotency-Key` with the same body is the same job, for as long as it is kept.
#[utoipa::path(
    post,
    path = "/admin/v1/resyncs",
    params(("Idempotency-Key" = Option<String>, Header, description = "Tells a retry from another request")),
    request_body = ResyncRequest,
    responses((status = 202, description = "The job", body = JobAnswer,
               headers(("Location" = String, description = "The job"))))
)]
pub(super) async fn ask(
    State(app): State<Arc<App>>,
    _: NoParameters,
    headers: HeaderMap,
    Json(body): Json,
) -> Result<Response, Problem> {
    let mut errors = Vec::new();
    let key = key(&headers, &mut errors);
    let asked = read(&body, &mut errors);
    let (workspace, options) = match asked {
        Some(asked) if errors.is_empty() => asked,
        _ => return Err(Problem::invalid(errors)),
    };
    if !app.has_history {
        return Err(Problem::new(
            Code::NoHistory,
            "no history is configured, so there is nothing to re-sync from; add [history]",
        ));
    }
    let job = operate::ask(&app.store, workspace.as_ref(), options, key).await;
    let job = job.map_err(refused)?;
    app.resyncs.notify_one();
    let location = HeaderValue::from_str(&format!("/admin/v1/jobs/{}", job.id)).ok();
    let mut response = (StatusCode::ACCEPTED, JsonAnswer(JobAnswer::from(job))).into_response();
    if let Some(location) = location {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

fn key<'h>(headers: &'h HeaderMap, errors: &mut Vec<FieldError>) -> Option<&'h str> {
    let mut keys = headers.get_all(IDEMPOTENCY_KEY).iter();
    let first = keys.next()?;
    let text = first.to_str().unwrap_or_default();
    if keys.next().is_some() || text.is_empty() || text.len() > MAX_KEY_BYTES {
        let detail = format!("is not one text of 1 to {MAX_KEY_BYTES} printable ASCII characters");
        errors.push(FieldError::parameter(
            "Idempotency-Key",
            FieldCode::BadKey,
            detail,
        ));
    }
    Some(text)
}

/// The workspace (`None`: everything) and the options.
fn read(body: &Value, errors: &mut Vec<FieldError>) -> Option<(Option<Id>, Options)> {
    let known = ["workspace", "all", "mode", "dry_run"];
    let mut fields = Fields::new(body, String::new(), &known, errors)?;
    let all = flag(&mut fields, "all");
    let workspace = fields.id("workspace");
    let is_given = !matches!(workspace, Field::Missing | Field::Null);
    match (is_given, all) {
        (false, false) => fields.refuse(
            "workspace",
            FieldCode::Required,
            "is required, or `\"all\": true`",
        ),
        (true, true) => fields.refuse(
            "workspace",
            FieldCode::NotBoth,
            "stands beside `all`; give one of them",
        ),
        _ => {}
    }
    let mode = match fields.value("mode") {
        Field::Here(value) => value.as_str().and_then(Mode::of).unwrap_or_else(|| {
            fields.refuse(
                "mode",
                FieldCode::BadMode,
                "is neither `merge` nor `rebuild`",
            );
            Mode::default()
        }),
        _ => Mode::default(),
    };
    let dry_run = flag(&mut fields, "dry_run");
    Some((workspace.here(), Options { mode, dry_run }))
}

/// A field that is true or not; missing and null are not.
fn flag(fields: &mut Fields<'_, '_>, name: &str) -> bool {
    match fields.value(name) {
        Field::Here(value) => value.as_bool().unwrap_or_else(|| {
            fields.refuse(name, FieldCode::WrongType, "is neither true nor false");
            false
        }),
        _ => false,
    }
}
