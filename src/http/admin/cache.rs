//! `POST /admin/v1/cache/invalidate`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use serde_json::Value;
use utoipa::ToSchema;

use crate::cache::{Changed, Reason};
use crate::http::App;
use crate::http::body::Json;
use crate::http::describe::IdInput;
use crate::http::field_error::{FieldCode, FieldError};
use crate::http::fields::{Field, Fields};
use crate::http::problem::Problem;
use crate::http::query::NoParameters;

/// What to forget: one of the three.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "describes the body; it is read field by field, to name every error"
)]
struct InvalidateRequest {
    /// Every list of a workspace; and all details, which are kept by published run.
    #[schema(required = false)]
    workspace: Option<IdInput>,
    /// Every kept list that holds a published run, and its details. Of a row that was added by hand, name the
    /// workspace: its list does not hold it yet.
    #[schema(required = false)]
    published_run: Option<IdInput>,
    /// Everything.
    all: Option<bool>,
}

/// Forget kept answers, on every replica
///
/// For what is changed by hand: what the service changes it forgets by itself. Beside SQLite, other processes
/// forget everything, within 100 ms.
#[utoipa::path(
    post,
    path = "/admin/v1/cache/invalidate",
    request_body = InvalidateRequest,
    responses((status = 204, description = "Forgotten here; the other replicas are being told"))
)]
pub(super) async fn invalidate(
    State(app): State<Arc<App>>,
    _: NoParameters,
    Json(body): Json,
) -> Result<StatusCode, Problem> {
    let mut errors = Vec::new();
    match read(&body, &mut errors) {
        Some(changed) if errors.is_empty() => {
            app.reader.invalidate(&changed, Reason::Admin).await?;
            Ok(StatusCode::NO_CONTENT)
        }
        _ => Err(Problem::invalid(errors)),
    }
}

fn read(body: &Value, errors: &mut Vec<FieldError>) -> Option<Changed> {
    let known = ["workspace", "published_run", "all"];
    let mut fields = Fields::new(body, String::new(), &known, errors)?;
    let workspace = fields.id("workspace").here().map(Changed::Workspace);
    let published_run = fields.id("published_run").here().map(Changed::PublishedRun);
    let all = match fields.value("all") {
        Field::Missing | Field::Null => None,
        Field::Here(Value::Bool(true)) => Some(Changed::Everything),
        _ => {
            fields.refuse("all", FieldCode::WrongType, "is not `true`");
            return None;
        }
    };
    let mut given = [workspace, published_run, all].into_iter().flatten();
    match (given.next(), given.next()) {
        (Some(changed), None) => Some(changed),
        // Named already.
        _ if !errors.is_empty() => None,
        _ => {
            let detail = "names not exactly one of workspace, published_run and all";
            errors.push(FieldError::pointer("", FieldCode::BadChoice, detail));
            None
        }
    }
}
