//! Jobs: what they do, and what an operator may do with them.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use crate::http::App;
use crate::http::problem::{Code, FieldError, Problem};
use crate::http::query::{limit, parameters};
use crate::jobs::operate::{self, Refusal};
use crate::jobs::{Changes, Counts};
use crate::model::Time;
use crate::store::job::{self, JobRow, State as JobState, Transition};

/// Jobs of a page unless asked otherwise, and at the most.
const DEFAULT_LIMIT: u32 = 20;
const MAX_LIMIT: u32 = 100;

/// A job.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct JobAnswer {
    id: String,
    /// `backfill` or `resync`.
    kind: String,
    /// `queued`, `running`, `paused`, `succeeded`, `failed` or `cancelled`.
    state: &'static str,
    /// Absent: everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    workspace: Option<String>,
    /// Of a re-sync: `merge` or `rebuild`.
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<String>,
    /// Of a re-sync: whether it only tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    dry_run: Option<bool>,
    progress: Progress,
    result: Changes,
    /// When it was first worked at; until then, when it was asked for.
    #[schema(value_type = String, format = DateTime)]
    started_at: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    finished_at: Option<Time>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// How far a job came.
#[derive(Debug, Serialize, ToSchema)]
struct Progress {
    /// Runs of the history, and rows of the table, that were looked at.
    scanned: u64,
    /// About how many there are; null where nobody knows.
    total: Option<u64>,
    percent: Option<f64>,
    /// While it runs.
    eta_seconds: Option<u64>,
}

impl From<JobRow> for JobAnswer {
    fn from(job: JobRow) -> Self {
        let counts = Counts::read(&job.counts);
        let options: serde_json::Value = serde_json::from_str(&job.options).unwrap_or_default();
        Self {
            progress: Progress::of(&job, counts.per_second),
            id: job.id,
            kind: job.kind,
            state: job.state.name(),
            workspace: job.workspace.map(|workspace| workspace.to_string()),
            mode: options["mode"].as_str().map(ToOwned::to_owned),
            dry_run: options["dry_run"].as_bool(),
            result: counts.changes,
            started_at: job.started_at,
            finished_at: job.finished_at,
            error: job.error,
        }
    }
}

impl Progress {
    fn of(job: &JobRow, per_second: f64) -> Self {
        let scanned = job.scanned;
        let percent = match (job.state, job.total) {
            (JobState::Succeeded, _) => Some(100.0),
            (_, Some(total)) if total > 0 => {
                let percent = scanned as f64 * 100.0 / total as f64;
                Some((percent * 10.0).round().min(1_000.0) / 10.0)
            }
            _ => None,
        };
        let left = job.total.map(|total| total.saturating_sub(scanned));
        let left = left.filter(|_| job.state == JobState::Running && per_second > 0.0);
        Self {
            scanned,
            total: job.total,
            percent,
            eta_seconds: left.map(|left| (left as f64 / per_second).ceil() as u64),
        }
    }
}

/// Jobs, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct JobsAnswer {
    jobs: Vec<JobAnswer>,
    /// Where the next page begins; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// Which page of the jobs.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(
    dead_code,
    reason = "describes the query; it is read field by field, to name every error"
)]
struct JobsParameters {
    /// Jobs at the most
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: Option<u32>,
    /// `next_cursor` of the page before
    cursor: Option<String>,
    /// Only those in this state
    state: Option<String>,
}

/// Jobs, newest first
///
/// Finished ones are kept for 30 days.
#[utoipa::path(
    get,
    path = "/admin/v1/jobs",
    params(JobsParameters),
    responses((status = 200, description = "A page of the jobs", body = JobsAnswer))
)]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
) -> Result<Json<JobsAnswer>, Problem> {
    let mut errors = Vec::new();
    let known = ["limit", "cursor", "state"];
    let [per_page, cursor, state] = parameters(query.as_deref(), known, &mut errors);
    let per_page = limit(per_page.as_deref(), DEFAULT_LIMIT, MAX_LIMIT, &mut errors);
    if cursor
        .as_deref()
        .is_some_and(|id| uuid::Uuid::try_parse(id).is_err())
    {
        let detail = "is not a cursor; use `next_cursor` of the last page as it came";
        errors.push(FieldError::parameter("cursor", "bad_cursor", detail));
    }
    let state = state.and_then(|name| {
        let state = JobState::of(&name);
        if state.is_none() {
            let names = JobState::ALL.map(JobState::name).join(", ");
            let detail = format!("is not one of {names}");
            errors.push(FieldError::parameter("state", "bad_state", detail));
        }
        state
    });
    if !errors.is_empty() {
        return Err(Problem::invalid(errors));
    }
    // One more than asked for tells whether there is a next page.
    let mut jobs = job::list(&app.store, cursor.as_deref(), state, per_page + 1).await?;
    let per_page = usize::try_from(per_page).unwrap_or(usize::MAX);
    let more = jobs.len() > per_page;
    jobs.truncate(per_page);
    let next_cursor = jobs.last().filter(|_| more).map(|job| job.id.clone());
    let jobs = jobs.into_iter().map(JobAnswer::from).collect();
    Ok(Json(JobsAnswer { jobs, next_cursor }))
}

/// One job
#[utoipa::path(
    get,
    path = "/admin/v1/jobs/{id}",
    params(("id" = String, Path, description = "The job")),
    responses((status = 200, description = "The job", body = JobAnswer))
)]
pub(super) async fn one(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<JobAnswer>, Problem> {
    no_parameters(query.as_deref())?;
    let job = job::get(&app.store, &id).await?;
    Ok(Json(job.ok_or_else(unknown)?.into()))
}

/// Stop a job for good
#[utoipa::path(
    post,
    path = "/admin/v1/jobs/{id}/cancel",
    params(("id" = String, Path, description = "The job")),
    responses((status = 200, description = "It is cancelled", body = JobAnswer))
)]
pub(super) async fn cancel(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<JobAnswer>, Problem> {
    change(&app, &id, query.as_deref(), Transition::Cancel).await
}

/// Stop a job until it is resumed
#[utoipa::path(
    post,
    path = "/admin/v1/jobs/{id}/pause",
    params(("id" = String, Path, description = "The job")),
    responses((status = 200, description = "It is paused", body = JobAnswer))
)]
pub(super) async fn pause(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<JobAnswer>, Problem> {
    change(&app, &id, query.as_deref(), Transition::Pause).await
}

/// Let a job go on that is paused or failed
///
/// A service goes on with a re-sync; a backfill waits for its command.
#[utoipa::path(
    post,
    path = "/admin/v1/jobs/{id}/resume",
    params(("id" = String, Path, description = "The job")),
    responses((status = 200, description = "It waits for a worker", body = JobAnswer))
)]
pub(super) async fn resume(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<JobAnswer>, Problem> {
    change(&app, &id, query.as_deref(), Transition::Resume).await
}

async fn change(
    app: &App,
    id: &str,
    query: Option<&str>,
    transition: Transition,
) -> Result<Json<JobAnswer>, Problem> {
    no_parameters(query)?;
    let changed = operate::transition(&app.store, id, transition).await;
    let job = changed.map_err(|refusal| match refusal {
        Refusal::Unknown => unknown(),
        Refusal::State(state) => Problem::new(
            Code::JobState,
            format_args!("the job is {}, which does not allow it", state.name()),
        ),
        Refusal::Overlaps { job } => overlaps(job),
        Refusal::Store(error) => error.into(),
    })?;
    Ok(Json(job.into()))
}

fn no_parameters(query: Option<&str>) -> Result<(), Problem> {
    let mut errors = Vec::new();
    let [] = parameters(query, [], &mut errors);
    match errors.is_empty() {
        true => Ok(()),
        false => Err(Problem::invalid(errors)),
    }
}

fn unknown() -> Problem {
    Problem::new(Code::NotFound, "there is no such job, or no longer")
}

/// A job whose scope overlaps is active.
pub(super) fn overlaps(job: String) -> Problem {
    let detail = format!("job {job}, whose scope overlaps, is active; wait for it, or cancel it");
    Problem::new(Code::JobOverlaps, detail).about_job(job)
}
