//! What is wrong with a place of a request.

use serde::Serialize;
use utoipa::ToSchema;

use crate::model::id::IdError;
use crate::model::time::TimeError;

// The description of the API lists them from here.
/// What is wrong with a place of a request, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FieldCode {
    /// The body is not JSON.
    NotJson,
    /// The body did not arrive whole.
    Unreadable,
    /// A path is not UTF-8 when decoded.
    NotUtf8,
    /// A path with a `%` that encodes nothing.
    NotEncoded,
    /// A field that there is not.
    UnknownField,
    /// A field that must be there.
    Required,
    /// A value of another type.
    WrongType,
    /// An array with too few or too many items.
    BadLength,
    /// An array with too many items.
    TooMany,
    /// An id without a character.
    Empty,
    /// An id of too many bytes.
    TooLong,
    /// An id with a control character.
    ControlCharacter,
    /// An id that cannot stand in a path.
    Dots,
    /// A text that is no time.
    MalformedTime,
    /// A time that is none of ours.
    OutOfRange,
    /// A time too far ahead of the server's clock.
    InFuture,
    /// A parameter that there is not.
    UnknownParameter,
    /// A parameter that is there more than once.
    RepeatedParameter,
    /// Not a number of items.
    BadLimit,
    /// Not the cursor of this list.
    BadCursor,
    /// Nothing that could be expanded.
    BadExpand,
    /// Not the session token of an answer.
    BadSessionToken,
    /// Not exactly one of some fields.
    BadChoice,
    /// None of the values that there are.
    UnknownValue,
    /// A value that needs a history, where there is none.
    NoHistory,
    /// No state of a job.
    BadState,
    /// No key of a request that may be repeated.
    BadKey,
    /// No way to re-sync.
    BadMode,
    /// Fields of which only one may be there.
    NotBoth,
}

impl From<IdError> for FieldCode {
    fn from(error: IdError) -> Self {
        match error {
            IdError::Empty => Self::Empty,
            IdError::TooLong(_) => Self::TooLong,
            IdError::Control(_) => Self::ControlCharacter,
            IdError::Dots => Self::Dots,
        }
    }
}

impl From<TimeError> for FieldCode {
    fn from(error: TimeError) -> Self {
        match error {
            TimeError::Infinite | TimeError::OutOfRange => Self::OutOfRange,
            TimeError::Malformed => Self::MalformedTime,
        }
    }
}

/// One invalid place of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// Where in the body, as a JSON pointer in a URI fragment.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "#/runs/3/last_used_at")]
    pub pointer: Option<String>,
    /// Which parameter of the URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub parameter: Option<String>,
    /// What is wrong, for programs.
    pub code: FieldCode,
    /// What is wrong, for people.
    pub detail: String,
}

impl FieldError {
    /// A place in the body, as a JSON pointer.
    pub fn pointer(pointer: &str, code: impl Into<FieldCode>, detail: impl ToString) -> Self {
        Self {
            pointer: Some(fragment(pointer)),
            parameter: None,
            code: code.into(),
            detail: detail.to_string(),
        }
    }

    /// A parameter of the path or the query.
    pub fn parameter(name: &str, code: impl Into<FieldCode>, detail: impl ToString) -> Self {
        Self {
            pointer: None,
            parameter: Some(name.into()),
            code: code.into(),
            detail: detail.to_string(),
        }
    }
}

/// A JSON pointer as a URI's fragment (RFC 6901, 6): what may not stand in one is percent-encoded.
fn fragment(pointer: &str) -> String {
    let mut fragment = String::from("#");
    for byte in pointer.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => fragment.push(char::from(byte)),
            _ if b"/-._~!$&'()*+,;=:@?".contains(&byte) => fragment.push(char::from(byte)),
            _ => fragment.push_str(&format!("%{byte:02X}")),
        }
    }
    fragment
}
