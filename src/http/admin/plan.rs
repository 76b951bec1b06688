//! The plan of a dry run, streamed.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;

use super::jobs::unknown;
use crate::http::App;
use crate::http::path::JobPath;
use crate::http::problem::{Code, Problem};
use crate::http::query::NoParameters;
use crate::jobs::Counts;
use crate::jobs::resync::Options;
use crate::model::Key;
use crate::store::StoreError;
use crate::store::job::{self, State as JobState};

/// Lines of a plan that are read together.
const LINES: u32 = 1_000;

/// What a dry run would change
///
/// A line for each row: its kind of difference (`missing`, `stale`, `ahead`, `extra`), the reason, and what
/// the history and the table say. The first 100,000 are kept; `Recents-Plan-Omitted` tells how many more
/// there are.
#[utoipa::path(
    get,
    path = "/admin/v1/jobs/{id}/plan",
    params(("id" = String, Path, description = "The job of the dry run")),
    responses((status = 200, description = "JSON, a line each", body = String,
               content_type = "application/x-ndjson",
               headers(("Recents-Plan-Omitted" = u64))))
)]
pub(super) async fn of_job(
    State(app): State<Arc<App>>,
    JobPath(id): JobPath,
    _: NoParameters,
) -> Result<Response, Problem> {
    let job = job::get(&app.store, &id).await?.ok_or_else(unknown)?;
    if !Options::read(&job.options).is_some_and(|options| options.dry_run) {
        let detail = "the job is no dry run, so it has no plan";
        return Err(Problem::new(Code::NotFound, detail));
    }
    if job.state != JobState::Succeeded {
        let state = job.state.name();
        let detail = format!("the job is {state}; its plan is whole when it has succeeded");
        return Err(Problem::new(Code::JobState, detail));
    }
    let counts = Counts::read(&job.counts);
    let omitted = counts.changes.in_all().saturating_sub(counts.kept);
    let store = app.store.clone();
    let pages = stream::try_unfold(None, move |after: Option<Key>| {
        let (store, id) = (store.clone(), id.clone());
        async move {
            let lines = job::plan_after(&store, &id, after.as_ref(), LINES).await?;
            let page: String = lines
                .iter()
                .map(|line| format!("{}\n", line.line))
                .collect();
            let last = lines.last().map(|line| line.key.clone());
            Ok::<_, StoreError>(last.map(|last| (page, Some(last))))
        }
    });
    let kind = HeaderValue::from_static("application/x-ndjson");
    let mut response = ([(header::CONTENT_TYPE, kind)], Body::from_stream(pages)).into_response();
    let omitted = HeaderValue::from(omitted);
    response
        .headers_mut()
        .insert("recents-plan-omitted", omitted);
    Ok(response)
}
