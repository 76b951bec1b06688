//! HTTP: two listeners, one kind of error, limits on everything.

pub mod admin;
mod body;
mod conditional;
mod describe;
pub mod field_error;
mod fields;
mod finish;
mod path;
pub mod problem;
pub mod public;
mod query;
pub mod server;
mod session;
mod timing;
pub mod work;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::middleware;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi;
use utoipa::openapi::OpenApi as Description;
use utoipa_axum::router::OpenApiRouter;

use crate::details::Details;
use crate::dismiss::Sweeps;
use crate::read::{How, Reader};
use crate::record::Recorder;
use crate::settings::Settings;
use crate::store::{Store, Token};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::RequestLabels;
use problem::{Code, Problem};

/// What the handlers work with; shared, because every request takes it several times.
#[derive(Debug)]
pub struct App {
    /// The table.
    pub store: Store,
    /// The way in.
    pub recorder: Recorder,
    /// The way out.
    pub reader: Arc<Reader>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// How far ahead of the server's clock a use may be.
    pub max_clock_skew: Duration,
    /// Whether a history is configured, so that uses must name their run.
    pub has_history: bool,
    /// What changes at run time.
    pub settings: Arc<Settings>,
    /// The details of items, where they are configured.
    pub details: Option<Arc<Details>>,
    /// Says that a re-sync waits for a worker.
    pub resyncs: Arc<tokio::sync::Notify>,
    /// Asks for what stays hidden to be swept.
    pub sweeps: Arc<Sweeps>,
    /// Whether the service is ready.
    pub readiness: Arc<Readiness>,
}

impl App {
    /// How a request with this token is to be read now.
    fn how<'a>(&self, token: Option<&'a Token>) -> How<'a> {
        How {
            token,
            path: self.settings.read_path(),
        }
    }
}

/// What `/readyz` answers from.
#[derive(Debug, Default)]
pub struct Readiness {
    migrated: AtomicBool,
    draining: AtomicBool,
    database_up: AtomicBool,
}

impl Readiness {
    /// The schema is what the program needs.
    pub fn set_migrated(&self) {
        self.migrated.store(true, Ordering::Relaxed);
    }

    /// The service is shutting down.
    pub fn set_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether the database answered when it was last asked.
    pub fn set_database_up(&self, up: bool) {
        self.database_up.store(up, Ordering::Relaxed);
    }

    fn is_ready(&self) -> bool {
        self.migrated.load(Ordering::Relaxed) && !self.draining.load(Ordering::Relaxed)
    }
}

#[derive(OpenApi)]
#[openapi(info(
    title = "recents",
    description = "\"Recently used\" lists that stay instant and exact, however long the history \
                   behind them grows.",
    license(name = "MIT OR Apache-2.0")
))]
struct Api;

fn documented() -> (OpenApiRouter<Arc<App>>, OpenApiRouter<Arc<App>>) {
    (public::router(), admin::router())
}

/// The description of both listeners' endpoints.
pub fn openapi() -> Description {
    let (public, admin) = documented();
    let mut description = Api::openapi();
    description.merge(public.into_openapi());
    description.merge(admin.into_openapi());
    describe::problems(&mut description);
    description
}

/// The public listener's service.
pub fn public_router(app: Arc<App>) -> Router {
    finished(documented().0, app)
}

/// The admin listener's service.
pub fn admin_router(app: Arc<App>) -> Router {
    finished(documented().1, app)
}

fn finished(router: OpenApiRouter<Arc<App>>, app: Arc<App>) -> Router {
    let (router, description) = router.split_for_parts();
    // Dashboards find the series of every route before its first request.
    for (route, item) in &description.paths.paths {
        let methods = [
            ("GET", &item.get),
            ("POST", &item.post),
            ("PATCH", &item.patch),
            ("DELETE", &item.delete),
        ];
        for (method, operation) in methods {
            let statuses = operation
                .iter()
                .flat_map(|it| it.responses.responses.keys());
            let mut successes = statuses.filter_map(|status| status.parse::<u16>().ok());
            if let Some(status) = successes.find(|status| *status < 300) {
                let labels = RequestLabels {
                    method,
                    route: route.clone(),
                    status,
                };
                app.metrics.expect_request(&labels);
            }
        }
    }
    framed(router, Arc::clone(&app.metrics)).with_state(app)
}

/// What every listener has around its routes: one kind of error, request ids, log lines, times. For
/// routes of another program too, which then pay the same.
pub fn framed<S: Clone + Send + Sync + 'static>(
    router: Router<S>,
    metrics: Arc<Metrics>,
) -> Router<S> {
    router
        .fallback(async || Problem::new(Code::NotFound, "there is no such resource here"))
        .method_not_allowed_fallback(async || {
            Problem::new(
                Code::MethodNotAllowed,
                "the resource has no such method; see Allow",
            )
        })
        .layer(CatchPanicLayer::custom(problem::of_panic))
        .layer(middleware::from_fn_with_state(
            Arc::new(finish::Finish::new(metrics)),
            finish::finish,
        ))
}
