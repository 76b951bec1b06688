//! How long a request took, and how long of that it waited for the database.

use std::fmt::Write;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// How long an answer waited for the database; left with it by its handler.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waited(pub(super) Duration);

/// Says it in the answer, in milliseconds.
pub(super) fn tell(response: &mut Response, total: Duration) {
    let waited = response.extensions_mut().remove::<Waited>();
    // Whole numbers: writing the decimals of a fraction takes longer than all the rest.
    let millis = |duration: Duration| (duration.as_millis(), duration.subsec_micros() % 1_000);
    let mut text = String::with_capacity(40);
    // Writing to a text does not fail.
    if let Some(Waited(waited)) = waited {
        let (millis, micros) = millis(waited);
        let _ = write!(text, "db;dur={millis}.{micros:03}, ");
    }
    let (millis, micros) = millis(total);
    let _ = write!(text, "total;dur={millis}.{micros:03}");
    if let Ok(value) = HeaderValue::try_from(text) {
        response.headers_mut().insert(SERVER_TIMING, value);
    }
}
