//! Parameters of a query.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::field_error::{FieldCode, FieldError};
use super::problem::Problem;

/// A request without parameters. Every endpoint takes this, or reads its [`parameters`], so that none passes
/// over what somebody asked for; but for the probes, to which what calls them may append what it likes.
pub(super) struct NoParameters;

impl<S: Send + Sync> FromRequestParts<S> for NoParameters {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let mut errors = Vec::new();
        let [] = parameters(parts.uri.query(), [], &mut errors);
        match errors.is_empty() {
            true => Ok(Self),
            false => Err(Problem::invalid(errors)),
        }
    }
}

/// The parameters of a query, each of them known and there once at the most; anything else is
/// noted in `errors`.
pub(super) fn parameters<const N: usize>(
    query: Option<&str>,
    known: [&str; N],
    errors: &mut Vec<FieldError>,
) -> [Option<String>; N] {
    let mut values = [const { None }; N];
    for (name, value) in form_urlencoded::parse(query.unwrap_or("").as_bytes()) {
        match known.iter().position(|k| *k == name) {
            None => {
                let detail = match known.is_empty() {
                    true => "is not a parameter here; there are none".to_owned(),
                    false => format!("is not a parameter here; there are {}", known.join(", ")),
                };
                errors.push(FieldError::parameter(
                    &name,
                    FieldCode::UnknownParameter,
                    detail,
                ));
            }
            Some(at) if values[at].is_some() => {
                let detail = "is there more than once";
                errors.push(FieldError::parameter(
                    &name,
                    FieldCode::RepeatedParameter,
                    detail,
                ));
            }
            Some(at) => values[at] = Some(value.into_owned()),
        }
    }
    values
}

/// How many items a page has at the most: a whole number from 1 to `most`, `default` where none is
/// given.
pub(super) fn limit(
    text: Option<&str>,
    default: u32,
    most: u32,
    errors: &mut Vec<FieldError>,
) -> u32 {
    let Some(text) = text else { return default };
    let number = Some(text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let number = number.and_then(|text| text.parse().ok());
    number
        .filter(|n| (1..=most).contains(n))
        .unwrap_or_else(|| {
            let detail = format!("is not a whole number from 1 to {most}");
            errors.push(FieldError::parameter("limit", FieldCode::BadLimit, detail));
            default
        })
}
