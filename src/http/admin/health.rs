//! Liveness and readiness.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::App;

/// The state of the service.
#[derive(Serialize, ToSchema)]
pub(super) struct Health {
    /// `ready`, `starting` or `draining`.
    status: &'static str,
    /// `up` or `down`, when it was last asked.
    database: &'static str,
    /// The running version.
    version: &'static str,
}

/// Whether the process lives
///
/// Parameters mean nothing here and are passed over.
#[utoipa::path(get, path = "/livez", responses((status = 200, description = "It does")))]
pub(super) async fn live() -> &'static str {
    "alive\n"
}

/// Whether the service takes requests
///
/// It does once it is migrated, until it drains. The database's health is in the body, not in the
/// status: taking every replica out of service would not bring the database back. Parameters mean nothing here
/// and are passed over.
#[utoipa::path(
    get,
    path = "/readyz",
    responses(
        (status = 200, description = "Ready", body = Health),
        (status = 503, description = "Starting or draining", body = Health),
    )
)]
pub(super) async fn ready(State(app): State<Arc<App>>) -> (StatusCode, Json<Health>) {
    let readiness = &app.readiness;
    let status = match (
        readiness.is_ready(),
        readiness.draining.load(Ordering::Relaxed),
    ) {
        (true, _) => "ready",
        (false, true) => "draining",
        (false, false) => "starting",
    };
    let database = match readiness.database_up.load(Ordering::Relaxed) {
        true => "up",
        false => "down",
    };
    let code = match readiness.is_ready() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    (
        code,
        Json(Health {
            status,
            database,
            version: env!("CARGO_PKG_VERSION"),
        }),
    )
}
