//! Session tokens on the wire.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;

use super::field_error::{FieldCode, FieldError};
use super::problem::Problem;
use crate::store::Token;

/// The header of answers to writes, and of reads that must not be older.
const SESSION_TOKEN: HeaderName = HeaderName::from_static("recents-session-token");

/// The session token of a read, if it has one.
pub(super) struct Session(pub(super) Option<Token>);

impl<S: Send + Sync> FromRequestParts<S> for Session {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let mut values = parts.headers.get_all(SESSION_TOKEN).iter();
        let Some(value) = values.next() else {
            return Ok(Self(None));
        };
        let text = value.to_str().ok().filter(|_| values.next().is_none());
        let token = text.and_then(|text| Token::decode(text).ok());
        token.map(|token| Self(Some(token))).ok_or_else(|| {
            let detail = crate::store::token::BadToken;
            Problem::invalid(vec![FieldError::parameter(
                "Recents-Session-Token",
                FieldCode::BadSessionToken,
                detail,
            )])
        })
    }
}

/// Lets the answer to a write name it.
pub(super) fn name_write(mut response: Response, token: &str) -> Response {
    if let Ok(value) = HeaderValue::from_str(token) {
        response.headers_mut().insert(SESSION_TOKEN, value);
    }
    response
}
