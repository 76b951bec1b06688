//! Conditional answers: weak entity tags and 304.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::cache::Answer;

/// A JSON answer with its entity tag, or 304 where the client has it already.
pub(super) fn answer(request: &HeaderMap, answer: Answer) -> Response {
    let mut response = match knows(request, &answer.tag) {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => {
            let kind = HeaderValue::from_static("application/json");
            ([(header::CONTENT_TYPE, kind)], answer.body).into_response()
        }
    };
    let headers = response.headers_mut();
    headers.insert(header::ETAG, answer.tag);
    let caching = HeaderValue::from_static("private, no-cache");
    headers.insert(header::CACHE_CONTROL, caching);
    response
}

/// Whether `If-None-Match` names the tag, by weak comparison (RFC 9110, 8.8.3.2).
fn knows(request: &HeaderMap, tag: &HeaderValue) -> bool {
    let opaque = |tag: &str| tag.strip_prefix("W/").unwrap_or(tag).to_owned();
    request
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|known| known == "*" || tag.to_str().is_ok_and(|tag| opaque(known) == opaque(tag)))
}
