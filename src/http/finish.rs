//! The last word on every answer: its request id, its problem document, its log line, its time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::Instrument;
use uuid::Uuid;

use super::problem::{Code, Problem};
use super::timing;
use crate::store::StoreError;
use crate::telemetry::metrics::RequestLabels;
use crate::telemetry::{Metrics, Outage, chain};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest that a request may take: a body's 30 seconds and a statement's five fit in. It ends
/// what waits for a database that no longer says anything; a write goes on without its client.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(40);
/// What a request's header may have at the most: paths with the longest ids and cookies of 8 KiB pass, and
/// twice the fields that a browser behind a few proxies sends.
const MAX_HEADER_BYTES: usize = 32 * 1024;
const MAX_HEADER_FIELDS: usize = 64;
/// Seconds after which a client should try again: a flush or a failover later.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");
/// A request id from outside is taken over up to this length, so that logs stay readable.
const MAX_REQUEST_ID_BYTES: usize = 128;

/// What the answers of a listener have in common.
#[derive(Debug)]
pub(super) struct Finish {
    metrics: Arc<Metrics>,
    outage: Outage,
}

impl Finish {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        let outage = Outage::default();
        Self { metrics, outage }
    }
}

pub(super) async fn finish(
    State(all): State<Arc<Finish>>,
    request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let request_id = request_id(&request);
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("unmatched", MatchedPath::as_str)
        .to_owned();
    let method = method_label(request.method());
    // At debug, because a span costs as much as a tenth of the hook; failures name their request below.
    let span = tracing::debug_span!(
        "request",
        request_id = %request_id,
        method,
        route,
        trace_id = trace_id(&request),
    );
    let mut response = match is_header_too_large(&request) {
        true => {
            let detail = "a request line and its header have 32 KiB and 64 fields at most";
            Problem::new(Code::HeaderTooLarge, detail).into_response()
        }
        false => {
            let answer = tokio::time::timeout(REQUEST_TIMEOUT, next.run(request));
            let answer = answer.instrument(span.clone()).await;
            answer.unwrap_or_else(|_| {
                let detail = "the database did not answer in time; try again";
                Problem::new(Code::DatabaseUnavailable, detail).into_response()
            })
        }
    };
    let status = response.status();
    // What the framework refuses by itself comes as plain text; readiness has a body of its own.
    let kind = response.headers().get(header::CONTENT_TYPE);
    let foreign = (status.is_client_error() || status.is_server_error())
        && kind.is_none_or(|kind| kind != "application/json");
    let problem = response
        .extensions_mut()
        .remove::<Problem>()
        .or_else(|| foreign.then(|| Problem::of_status(status)));
    if let Some(problem) = &problem {
        problem.write(&mut response, &request_id);
    }
    if response.status() == StatusCode::SERVICE_UNAVAILABLE {
        let headers = response.headers_mut();
        headers.insert(header::RETRY_AFTER, RETRY_AFTER_SECONDS);
    }
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let status = response.status().as_u16();
    let elapsed = started.elapsed();
    timing::tell(&mut response, elapsed);
    if let Some(error) = problem.as_ref().and_then(Problem::cause) {
        let of_store = error.downcast_ref::<StoreError>();
        let is_news = of_store.is_none_or(|error| all.outage.is_news(error));
        // A JSON line would leave the causes of an error out.
        let error = chain(error);
        match is_news {
            true => tracing::error!(request_id, method, route, error, "the request failed"),
            false => tracing::debug!(request_id, method, route, error, "the request failed"),
        }
    }
    let labels = RequestLabels {
        method,
        route,
        status,
    };
    all.metrics.observe_request(&labels, elapsed.as_secs_f64());
    span.in_scope(|| {
        let problem = problem.map(|problem| problem.code().urn());
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        tracing::debug!(status, problem, micros, "answered");
    });
    response
}

fn is_header_too_large(request: &Request) -> bool {
    let line = request
        .uri()
        .path_and_query()
        .map_or(0, |it| it.as_str().len());
    let fields = request.headers();
    let bytes = fields
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len());
    fields.len() > MAX_HEADER_FIELDS || line + bytes.sum::<usize>() > MAX_HEADER_BYTES
}

/// The client's own id where it is one, else a new one.
fn request_id(request: &Request) -> String {
    let given = request
        .headers()
        .get(REQUEST_ID)
        .and_then(|value| value.to_str().ok());
    let usable = |id: &&str| {
        (1..=MAX_REQUEST_ID_BYTES).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic())
    };
    given
        .filter(usable)
        .map_or_else(|| Uuid::now_v7().to_string(), Into::into)
}

/// The trace that a valid W3C `traceparent` continues.
fn trace_id(request: &Request) -> Option<&str> {
    let header = request.headers().get("traceparent")?.to_str().ok()?;
    let mut parts = header.split('-');
    let (version, trace, parent, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |text: &str, length| {
        text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let zero = |text: &str| text.bytes().all(|b| b == b'0');
    let valid = hex(version, 2)
        && version != "ff"
        && (version != "00" || parts.next().is_none())
        && hex(trace, 32)
        && !zero(trace)
        && hex(parent, 16)
        && !zero(parent)
        && hex(flags, 2);
    valid.then_some(trace)
}

/// A bounded set of labels, whatever clients send.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
