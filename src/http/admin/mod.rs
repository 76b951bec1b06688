//! The admin listener: settings, jobs, the cache, health, metrics, the description of the API.

mod cache;
pub mod health;
pub mod job_answer;
pub mod jobs;
pub mod plan;
pub mod resyncs;
pub mod settings;

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::problem::{Code, Problem};
use super::query::NoParameters;

pub(super) fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .routes(routes!(cache::invalidate))
        .routes(routes!(settings::get, settings::change))
        .routes(routes!(resyncs::ask))
        .routes(routes!(jobs::list))
        .routes(routes!(jobs::one))
        .routes(routes!(plan::of_job))
        .routes(routes!(jobs::cancel))
        .routes(routes!(jobs::pause))
        .routes(routes!(jobs::resume))
        .routes(routes!(metrics))
        .routes(routes!(openapi))
}

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Metrics for Prometheus
///
/// Parameters mean nothing here and are passed over.
#[utoipa::path(
    get,
    path = "/metrics",
    responses((status = 200, description = "OpenMetrics text", body = String, content_type = OPENMETRICS))
)]
async fn metrics(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let text = app
        .metrics
        .encode()
        .map_err(|_| Problem::new(Code::Internal, "the metrics could not be written"))?;
    Ok((
        [(header::CONTENT_TYPE, HeaderValue::from_static(OPENMETRICS))],
        text,
    )
        .into_response())
}

/// This description
#[utoipa::path(
    get,
    path = "/openapi.json",
    responses((status = 200, description = "OpenAPI 3.1 of both listeners"))
)]
async fn openapi(_: NoParameters) -> Response {
    axum::Json(super::openapi()).into_response()
}
