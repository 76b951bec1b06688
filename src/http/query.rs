//! Parameters of a query.

use super::field_error::{FieldCode, FieldError};

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
