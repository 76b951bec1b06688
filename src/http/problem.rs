//! Problem documents (RFC 9457): the one form of every error.

use std::any::Any;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::field_error::{FieldCode, FieldError};
use crate::record::RecordError;
use crate::settings::SettingsError;
use crate::store::StoreError;

/// The kinds of problems. Their names are part of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The request breaks a rule; `errors` says which and where.
    InvalidRequest,
    /// The database cannot hold a value of the request.
    ValueRefused,
    /// No such resource.
    NotFound,
    /// No such method on the resource.
    MethodNotAllowed,
    /// The configuration forces the read path.
    ReadPathForced,
    /// An active job overlaps.
    JobOverlaps,
    /// A job's state does not allow it.
    JobState,
    /// There is no history to read from.
    NoHistory,
    /// The request did not arrive in time.
    RequestTimeout,
    /// The header is too large.
    HeaderTooLarge,
    /// The body is too large.
    BodyTooLarge,
    /// The body is not JSON.
    UnsupportedMediaType,
    /// An idempotency key came with another request before.
    IdempotencyKeyReused,
    /// A fault of the service.
    Internal,
    /// The database is out of reach, too slow, or without its tables.
    DatabaseUnavailable,
    /// The database has no room left.
    StorageFull,
    /// Too many uses wait to be written, or dismissals to be swept.
    QueueFull,
    /// The service is shutting down.
    ShuttingDown,
}

impl Code {
    /// Every code.
    pub const ALL: [Self; 18] = [
        Self::InvalidRequest,
        Self::ValueRefused,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::ReadPathForced,
        Self::JobOverlaps,
        Self::JobState,
        Self::NoHistory,
        Self::RequestTimeout,
        Self::HeaderTooLarge,
        Self::BodyTooLarge,
        Self::UnsupportedMediaType,
        Self::IdempotencyKeyReused,
        Self::Internal,
        Self::DatabaseUnavailable,
        Self::StorageFull,
        Self::QueueFull,
        Self::ShuttingDown,
    ];

    fn parts(self) -> (&'static str, StatusCode, &'static str) {
        match self {
            Self::InvalidRequest => (
                "invalid_request",
                StatusCode::BAD_REQUEST,
                "The request is invalid",
            ),
            Self::ValueRefused => (
                "value_refused",
                StatusCode::BAD_REQUEST,
                "The database cannot hold a value",
            ),
            Self::NotFound => ("not_found", StatusCode::NOT_FOUND, "Not found"),
            Self::MethodNotAllowed => (
                "method_not_allowed",
                StatusCode::METHOD_NOT_ALLOWED,
                "Method not allowed",
            ),
            Self::ReadPathForced => (
                "read_path_forced",
                StatusCode::CONFLICT,
                "The configuration forces the read path",
            ),
            Self::JobOverlaps => (
                "job_overlaps",
                StatusCode::CONFLICT,
                "An active job overlaps",
            ),
            Self::JobState => (
                "job_state",
                StatusCode::CONFLICT,
                "The job's state does not allow it",
            ),
            Self::NoHistory => (
                "no_history",
                StatusCode::CONFLICT,
                "No history is configured",
            ),
            Self::RequestTimeout => (
                "request_timeout",
                StatusCode::REQUEST_TIMEOUT,
                "The request took too long",
            ),
            Self::HeaderTooLarge => (
                "header_too_large",
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "The header is too large",
            ),
            Self::BodyTooLarge => (
                "body_too_large",
                StatusCode::PAYLOAD_TOO_LARGE,
                "The body is too large",
            ),
            Self::UnsupportedMediaType => (
                "unsupported_media_type",
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "The body is not declared as JSON",
            ),
            Self::IdempotencyKeyReused => (
                "idempotency_key_reused",
                StatusCode::UNPROCESSABLE_ENTITY,
                "The idempotency key came with another request before",
            ),
            Self::Internal => (
                "internal",
                StatusCode::INTERNAL_SERVER_ERROR,
                "The service failed",
            ),
            Self::DatabaseUnavailable => (
                "database_unavailable",
                StatusCode::SERVICE_UNAVAILABLE,
                "The database is unavailable",
            ),
            Self::StorageFull => (
                "storage_full",
                StatusCode::SERVICE_UNAVAILABLE,
                "The database's disk is full",
            ),
            Self::QueueFull => (
                "queue_full",
                StatusCode::SERVICE_UNAVAILABLE,
                "Too much is waiting",
            ),
            Self::ShuttingDown => (
                "shutting_down",
                StatusCode::SERVICE_UNAVAILABLE,
                "The service is shutting down",
            ),
        }
    }

    /// The problem's `type`.
    pub fn urn(self) -> String {
        format!("urn:recents:problem:{}", self.parts().0)
    }

    /// The status code.
    pub fn status(self) -> StatusCode {
        self.parts().1
    }
}

/// An error on its way to the client. `finish` writes the document, which names the request.
#[derive(Debug, Clone)]
pub struct Problem {
    code: Code,
    detail: String,
    errors: Vec<FieldError>,
    job: Option<String>,
    cause: Option<Cause>,
}

/// What only the log tells.
type Cause = Arc<dyn std::error::Error + Send + Sync>;

/// The document.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct Document<'a> {
    /// `urn:recents:problem:<code>`.
    #[serde(rename = "type")]
    kind: String,
    /// What kind of problem it is, for people.
    title: &'a str,
    /// The status code.
    status: u16,
    /// What happened this time and what to do.
    detail: &'a str,
    /// The answer's `X-Request-Id`.
    request_id: &'a str,
    /// For an invalid request: every invalid place.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
    /// The job that it is about, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<&'a str>,
}

impl Problem {
    /// A problem without places.
    pub fn new(code: Code, detail: impl ToString) -> Self {
        Self {
            code,
            detail: detail.to_string(),
            errors: Vec::new(),
            job: None,
            cause: None,
        }
    }

    /// An invalid request.
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        let detail = match errors.len() {
            1 => "1 place of the request is invalid; nothing was changed".into(),
            n => format!("{n} places of the request are invalid; nothing was changed"),
        };
        Self {
            code: Code::InvalidRequest,
            detail,
            errors,
            job: None,
            cause: None,
        }
    }

    /// Names the job that it is about.
    pub(super) fn about_job(mut self, job: String) -> Self {
        self.job = Some(job);
        self
    }

    /// The problem that stands for an error status which some part of the framework answered.
    pub(super) fn of_status(status: StatusCode) -> Self {
        let code = Code::ALL.into_iter().find(|code| code.status() == status);
        let fallback = if status.is_client_error() {
            Code::InvalidRequest
        } else {
            Code::Internal
        };
        let reason = status.canonical_reason().unwrap_or("the request failed");
        Self::new(code.unwrap_or(fallback), reason)
    }

    pub(super) fn code(&self) -> Code {
        self.code
    }

    /// What the log has to tell about it, where nothing else did.
    pub(super) fn cause(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&**self.cause.as_ref()?)
    }

    pub(super) fn write(&self, response: &mut Response, request_id: &str) {
        let (_, status, title) = self.code.parts();
        let document = Document {
            kind: self.code.urn(),
            title,
            status: status.as_u16(),
            detail: &self.detail,
            request_id,
            errors: &self.errors,
            job: self.job.as_deref(),
        };
        let body = serde_json::to_vec(&document).unwrap_or_default();
        *response.body_mut() = Body::from(body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.remove(header::CONTENT_LENGTH);
        let kind = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, kind);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.code.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<&StoreError> for Problem {
    fn from(error: &StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) => {
                Self::new(Code::DatabaseUnavailable, format!("{error}; try again"))
            }
            StoreError::Conflict(_) => Self::new(
                Code::DatabaseUnavailable,
                "the database is busy with conflicting work; try again",
            ),
            StoreError::Full(_) => Self::new(
                Code::StorageFull,
                "the database has no room left on its disk; try again when there is some",
            ),
            StoreError::Refused(_) => Self::new(
                Code::ValueRefused,
                "the database cannot hold a value of this request; nothing of it was recorded",
            ),
            StoreError::Unmigrated(_) => Self::new(
                Code::DatabaseUnavailable,
                "the database has no tables yet; try again when it was migrated",
            ),
            StoreError::Schema(_)
            | StoreError::Corrupt(_)
            | StoreError::LostJob
            | StoreError::Other(_) => {
                Self::new(Code::Internal, "the service failed; its log says more")
            }
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let problem = Self::from(&error);
        Self {
            cause: Some(Arc::new(error)),
            ..problem
        }
    }
}

impl From<Arc<StoreError>> for Problem {
    fn from(error: Arc<StoreError>) -> Self {
        let problem = Self::from(&*error);
        Self {
            cause: Some(error),
            ..problem
        }
    }
}

impl From<SettingsError> for Problem {
    fn from(error: SettingsError) -> Self {
        match error {
            SettingsError::Forced(_) => Self::new(Code::ReadPathForced, error),
            SettingsError::NoHistory(_) => Self::invalid(vec![FieldError::pointer(
                "/read_path",
                FieldCode::NoHistory,
                error,
            )]),
            SettingsError::Store(error) => error.into(),
        }
    }
}

impl From<RecordError> for Problem {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::QueueFull => Self::new(Code::QueueFull, error),
            RecordError::Closed => Self::new(Code::ShuttingDown, error),
            // Logged by the writer, once for all the requests that it hit.
            RecordError::Store(error) => Self::from(&*error),
        }
    }
}

/// A handler panicked: a fault of the service, logged with what it said.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the layer hands the panic over"
)]
pub(super) fn of_panic(panic: Box<dyn Any + Send>) -> Response {
    let said = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("nothing");
    let problem = Problem {
        cause: Some(Arc::from(Box::<dyn std::error::Error + Send + Sync>::from(
            format!("a handler panicked: {said}"),
        ))),
        ..Problem::new(Code::Internal, "the service failed; its log says more")
    };
    problem.into_response()
}
