//! Jobs: what they do, and what an operator may do with them.

use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::job_answer::JobAnswer;
use crate::http::App;
use crate::http::field_error::{FieldCode, FieldError};
use crate::http::path::JobPath;
use crate::http::problem::{Code, Problem};
use crate::http::query::{NoParameters, limit, parameters};
use crate::jobs::operate::{self, Refusal};
use crate::store::job::{self, State as JobState, Transition};

/// Jobs of a page unless asked otherwise, and at the most.
const DEFAULT_LIMIT: u32 = 20;
const MAX_LIMIT: u32 = 100;

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
        errors.push(FieldError::parameter(
            "cursor",
            FieldCode::BadCursor,
            detail,
        ));
    }
    let state = state.and_then(|name| {
        let state = JobState::of(&name);
        if state.is_none() {
            let names = JobState::ALL.map(JobState::name).join(", ");
            let detail = format!("is not one of {names}");
            errors.push(FieldError::parameter("state", FieldCode::BadState, detail));
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
    JobPath(id): JobPath,
    _: NoParameters,
) -> Result<Json<JobAnswer>, Problem> {
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
    JobPath(id): JobPath,
    _: NoParameters,
) -> Result<Json<JobAnswer>, Problem> {
    change(&app, &id, Transition::Cancel).await
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
    JobPath(id): JobPath,
    _: NoParameters,
) -> Result<Json<JobAnswer>, Problem> {
    change(&app, &id, Transition::Pause).await
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
    JobPath(id): JobPath,
    _: NoParameters,
) -> Result<Json<JobAnswer>, Problem> {
    change(&app, &id, Transition::Resume).await
}

async fn change(app: &App, id: &str, transition: Transition) -> Result<Json<JobAnswer>, Problem> {
    let changed = operate::transition(&app.store, id, transition).await;
    let job = changed.map_err(refused)?;
    if job.state == JobState::Queued {
        app.resyncs.notify_one();
    }
    Ok(Json(job.into()))
}

pub(super) fn unknown() -> Problem {
    Problem::new(Code::NotFound, "there is no such job, or no longer")
}

/// Why a request about a job is refused.
pub(super) fn refused(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::Unknown => unknown(),
        Refusal::State(state) => Problem::new(
            Code::JobState,
            format_args!("the job is {}, which does not allow it", state.name()),
        ),
        Refusal::Overlaps { job } => {
            let detail =
                format!("job {job}, whose scope overlaps, is active; wait for it, or cancel it");
            Problem::new(Code::JobOverlaps, detail).about_job(job)
        }
        Refusal::KeyReused => Problem::new(
            Code::IdempotencyKeyReused,
            "the Idempotency-Key came with another request before; send another key",
        ),
        Refusal::Store(error) => error.into(),
    }
}
