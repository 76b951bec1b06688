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
