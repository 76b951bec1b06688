//! `POST /v1/runs`: the upsert hook.

use std::sync::Arc;
use std::time::Instant;

use axum::Json as JsonAnswer;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::http::App;
use crate::http::body::Json;
use crate::http::describe::{IdInput, uid_input};
use crate::http::field_error::{FieldCode, FieldError};
use crate::http::fields::{Field, Fields};
use crate::http::problem::Problem;
use crate::http::query::parameters;
use crate::http::session::name_write;
use crate::http::timing::Waited;
use crate::model::{Id, Time, Usage};
use crate::telemetry::metrics::Source;

/// Runs of one request at the most, so that a request is one statement.
pub const MAX_RUNS: usize = 1_000;

/// Runs that were saved.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "describes the body; it is read field by field, to name every error"
)]
struct RunsRequest {
    /// 1 to 1,000 runs, all recorded or none.
    #[schema(min_items = 1, max_items = 1000)]
    runs: Vec<RunItem>,
}

/// A run that was saved.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "describes the body; it is read field by field, to name every error"
)]
struct RunItem {
    /// Where it ran.
    workspace: IdInput,
    /// The workflow that it used; null is no use.
    #[schema(required = true)]
    published_run: Option<IdInput>,
    #[schema(schema_with = uid_input, required = false)]
    uid: Option<IdInput>,
    /// The run's key in the history; required of a use where a history is configured.
    run: Option<IdInput>,
    /// When; the server's now unless given.
    #[schema(format = DateTime, example = "2026-11-20T10:00:00Z")]
    last_used_at: Option<String>,
}

/// What became of the runs; the three add up to their number.
#[derive(Serialize, ToSchema)]
pub(super) struct RunsAnswer {
    /// Runs that changed the workspace's list.
    applied: u64,
    /// Runs that an equal or a newer use outdid.
    superseded: u64,
    /// Runs that are no use.
    skipped: u64,
}

/// Record runs after they were committed
///
/// 200 means that they are durable. Sending the same runs again changes nothing.
#[utoipa::path(
    post,
    path = "/v1/runs",
    request_body = RunsRequest,
    responses((status = 200, description = "The runs are durable", body = RunsAnswer,
               headers(("Recents-Session-Token" = String))))
)]
pub(super) async fn record(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
    Json(body): Json,
) -> Result<Response, Problem> {
    let mut errors = Vec::new();
    let [] = parameters(query.as_deref(), [], &mut errors);
    let runs = read(&body, &app, &mut errors);
    if !errors.is_empty() {
        let items = body
            .get("runs")
            .and_then(Value::as_array)
            .map_or(0, Vec::len);
        app.metrics
            .count_runs(Source::Hook, "rejected", items as u64);
        return Err(Problem::invalid(errors));
    }
    let uses: Vec<_> = runs.iter().filter_map(Run::usage).collect();
    let skipped = (runs.len() - uses.len()) as u64;
    if skipped > 0 {
        app.metrics.count_runs(Source::Hook, "skipped", skipped);
    }
    let started = Instant::now();
    let recorded = app.recorder.record(&uses).await?;
    let waited = Waited(started.elapsed());
    let (applied, superseded) = (recorded.applied, recorded.superseded);
    let answer = JsonAnswer(RunsAnswer {
        applied,
        superseded,
        skipped,
    });
    let mut answer = name_write(answer.into_response(), &recorded.token);
    answer.extensions_mut().insert(waited);
    Ok(answer)
}

/// A checked item.
struct Run {
    workspace: Id,
    uid: Option<Id>,
    /// `None`: no use.
    published_run: Option<Id>,
    run: Option<Id>,
    last_used_at: Time,
}

impl Run {
    fn usage(&self) -> Option<Usage<'_>> {
        Some(Usage {
            workspace: &self.workspace,
            uid: self.uid.as_deref(),
            published_run: self.published_run.as_deref()?,
            last_used_at: self.last_used_at,
            run: self.run.as_deref(),
        })
    }
}

fn read(body: &Value, app: &App, errors: &mut Vec<FieldError>) -> Vec<Run> {
    let Some(mut fields) = Fields::new(body, String::new(), &["runs"], errors) else {
        return Vec::new();
    };
    let items = match fields.value("runs") {
        Field::Here(Value::Array(items)) if (1..=MAX_RUNS).contains(&items.len()) => items,
        Field::Here(Value::Array(items)) => {
            let detail = format!("has {} items; send 1 to {MAX_RUNS}", items.len());
            fields.refuse("runs", FieldCode::BadLength, detail);
            return Vec::new();
        }
        Field::Here(_) => {
            fields.refuse("runs", FieldCode::WrongType, "is not an array");
            return Vec::new();
        }
        _ => {
            fields.refuse("runs", FieldCode::Required, "is required");
            return Vec::new();
        }
    };
    // One clock reading for the whole request.
    let now = Time::now();
    items
        .iter()
        .enumerate()
        .filter_map(|(at, item)| run(item, at, now, app, errors))
        .collect()
}

fn run(item: &Value, at: usize, now: Time, app: &App, errors: &mut Vec<FieldError>) -> Option<Run> {
    let known = ["workspace", "published_run", "uid", "run", "last_used_at"];
    let mut fields = Fields::new(item, format!("/runs/{at}"), &known, errors)?;
    let workspace = fields.required_id("workspace");
    let published_run = fields.id("published_run");
    if matches!(published_run, Field::Missing) {
        fields.refuse(
            "published_run",
            FieldCode::Required,
            "is required; null where the run used none",
        );
    }
    let uid = fields.uid();
    let run = match app.has_history && !matches!(published_run, Field::Null) {
        true => fields.required_id("run"),
        false => fields.id("run").here(),
    };
    let last_used_at = fields.time("last_used_at").unwrap_or(now);
    if last_used_at > now.saturating_add(app.max_clock_skew) {
        let detail = format!(
            "is more than {} ahead of the server's clock, {now}",
            humantime::format_duration(app.max_clock_skew)
        );
        fields.refuse("last_used_at", FieldCode::InFuture, detail);
    }
    Some(Run {
        workspace: workspace?,
        uid,
        published_run: published_run.here(),
        run,
        last_used_at,
    })
}
