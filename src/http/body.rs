//! JSON bodies, within their limits.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequest, Request};
use axum::http::header;
use futures_util::TryStreamExt;
use serde_json::Value;

use super::field_error::{FieldCode, FieldError};
use super::problem::{Code, Problem};

/// The largest body: 1,000 uses with the longest ids have about 700 KiB.
const MAX_BODY_BYTES: usize = 1024 * 1024;
/// What is read of a body that is too large, so that its sender hears why it is refused.
const MAX_DRAINED_BYTES: usize = 16 * MAX_BODY_BYTES;
/// And for how long.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest that a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// A JSON body.
pub(super) struct Json(pub(super) Value);

impl<S: Send + Sync> FromRequest<S> for Json {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        let kind = request
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok());
        if !kind.is_some_and(is_json) {
            return Err(Problem::new(
                Code::UnsupportedMediaType,
                "send JSON, with `Content-Type: application/json`",
            ));
        }
        if request.headers().contains_key(header::CONTENT_ENCODING) {
            return Err(Problem::new(
                Code::UnsupportedMediaType,
                "send the JSON as it is, without a `Content-Encoding`",
            ));
        }
        let too_large = || {
            Problem::new(
                Code::BodyTooLarge,
                "a body has 1 MiB at most; send several smaller ones",
            )
        };
        let declared = request.headers().get(header::CONTENT_LENGTH);
        let declared = declared.and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
        if declared.is_some_and(|bytes| bytes > MAX_BODY_BYTES) {
            // Who asks before sending is still waiting.
            if !request.headers().contains_key(header::EXPECT) {
                drain(request.into_body()).await;
            }
            return Err(too_large());
        }
        let read = to_bytes(request.into_body(), MAX_BODY_BYTES);
        let bytes = tokio::time::timeout(BODY_TIMEOUT, read)
            .await
            .map_err(|_| {
                Problem::new(
                    Code::RequestTimeout,
                    "the body did not arrive within 30 seconds",
                )
            })?
            .map_err(|error| match is_too_large(&error) {
                true => too_large(),
                false => invalid(FieldCode::Unreadable, "the body did not arrive whole"),
            })?;
        serde_json::from_slice(&bytes)
            .map(Self)
            .map_err(|error| invalid(FieldCode::NotJson, format_args!("is not JSON: {error}")))
    }
}

/// Reads on for a while without keeping anything: a client that is still sending when the connection
/// closes sees only that, and not the answer.
async fn drain(body: Body) {
    let mut chunks = body.into_data_stream();
    let mut drained = 0;
    let reading = async {
        while let Ok(Some(chunk)) = chunks.try_next().await {
            drained += chunk.len();
            if drained > MAX_DRAINED_BYTES {
                break;
            }
        }
    };
    // Whoever sends so slowly does without the answer.
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, reading).await;
}

fn invalid(code: impl Into<FieldCode>, detail: impl ToString) -> Problem {
    Problem::invalid(vec![FieldError::pointer("", code, detail)])
}

fn is_json(kind: &str) -> bool {
    let essence = kind.split(';').next().unwrap_or("").trim();
    essence.eq_ignore_ascii_case("application/json")
}

fn is_too_large(error: &axum::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if error.to_string().contains("length limit exceeded") {
            return true;
        }
        source = error.source();
    }
    false
}
