//! Conditional answers: weak entity tags and 304.

use std::hash::{DefaultHasher, Hasher};

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// A JSON answer with its entity tag, or 304 where the client has it already.
pub(super) fn answer(request: &HeaderMap, body: Vec<u8>) -> Response {
    let mut hash = DefaultHasher::new();
    hash.write(&body);
    // Weak: it stands for the content, and says nothing about its encoding on the way.
    let tag = format!("W/\"{:016x}\"", hash.finish());
    let headers = [
        (header::ETAG, HeaderValue::from_str(&tag).ok()),
        (
            header::CACHE_CONTROL,
            Some(HeaderValue::from_static("private, no-cache")),
        ),
    ];
    let mut response = match knows(request, &tag) {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => {
            let kind = HeaderValue::from_static("application/json");
            ([(header::CONTENT_TYPE, kind)], body).into_response()
        }
    };
    for (name, value) in headers {
        if let Some(value) = value {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// Whether `If-None-Match` names the tag, by weak comparison (RFC 9110, 8.8.3.2).
fn knows(request: &HeaderMap, tag: &str) -> bool {
    let opaque = |tag: &str| tag.strip_prefix("W/").unwrap_or(tag).to_owned();
    request
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|known| known == "*" || opaque(known) == opaque(tag))
}
