//! Reading fields of a JSON body, so that every invalid one is named, not only the first.

use serde_json::{Map, Value};

use super::field_error::{FieldCode, FieldError};
use crate::model::{Id, Time};

/// The fields of one object of a body, and where it stands.
pub(super) struct Fields<'v, 'e> {
    object: &'v Map<String, Value>,
    pointer: String,
    errors: &'e mut Vec<FieldError>,
}

/// A field that may be missing, null, invalid (and then already named), or here.
pub(super) enum Field<T> {
    Missing,
    Null,
    Invalid,
    Here(T),
}

impl<T> Field<T> {
    pub(super) fn here(self) -> Option<T> {
        match self {
            Self::Here(value) => Some(value),
            _ => None,
        }
    }
}

impl<'v, 'e> Fields<'v, 'e> {
    /// The object at `pointer`, which has no other fields than `known`.
    pub(super) fn new(
        value: &'v Value,
        pointer: String,
        known: &[&str],
        errors: &'e mut Vec<FieldError>,
    ) -> Option<Self> {
        let Value::Object(object) = value else {
            errors.push(FieldError::pointer(
                &pointer,
                FieldCode::WrongType,
                "is not an object",
            ));
            return None;
        };
        for name in object.keys().filter(|name| !known.contains(&name.as_str())) {
            let place = format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
            let detail = format!("is not a field here; there are {}", known.join(", "));
            errors.push(FieldError::pointer(&place, FieldCode::UnknownField, detail));
        }
        Some(Self {
            object,
            pointer,
            errors,
        })
    }

    /// Notes that a field is invalid.
    pub(super) fn refuse(&mut self, name: &str, code: impl Into<FieldCode>, detail: impl ToString) {
        let place = format!("{}/{name}", self.pointer);
        self.errors.push(FieldError::pointer(&place, code, detail));
    }

    /// A field as it came.
    pub(super) fn value(&self, name: &str) -> Field<&'v Value> {
        match self.object.get(name) {
            None => Field::Missing,
            Some(Value::Null) => Field::Null,
            Some(value) => Field::Here(value),
        }
    }

    /// An id: text, or a 64-bit integer.
    pub(super) fn id(&mut self, name: &str) -> Field<Id> {
        let text = match self.value(name) {
            Field::Here(Value::String(text)) => text.clone(),
            Field::Here(Value::Number(number)) if number.is_i64() || number.is_u64() => {
                number.to_string()
            }
            Field::Here(_) => {
                self.refuse(
                    name,
                    FieldCode::WrongType,
                    "is neither a string nor a 64-bit integer",
                );
                return Field::Invalid;
            }
            Field::Null => return Field::Null,
            Field::Missing | Field::Invalid => return Field::Missing,
        };
        match Id::new(text) {
            Ok(id) => Field::Here(id),
            Err(error) => {
                self.refuse(name, error, error);
                Field::Invalid
            }
        }
    }

    /// An id that must be here.
    pub(super) fn required_id(&mut self, name: &str) -> Option<Id> {
        match self.id(name) {
            Field::Missing | Field::Null => {
                self.refuse(name, FieldCode::Required, "is required");
                None
            }
            field => field.here(),
        }
    }

    /// A user's id: missing, null and empty are no user.
    pub(super) fn uid(&mut self) -> Option<Id> {
        if let Field::Here(Value::String(text)) = self.value("uid")
            && text.is_empty()
        {
            return None;
        }
        self.id("uid").here()
    }

    /// An RFC 3339 time; missing and null are none.
    pub(super) fn time(&mut self, name: &str) -> Option<Time> {
        let Field::Here(value) = self.value(name) else {
            return None;
        };
        let Value::String(text) = value else {
            self.refuse(
                name,
                FieldCode::WrongType,
                "is not a string with an RFC 3339 time",
            );
            return None;
        };
        match Time::parse_rfc3339(text) {
            Ok(time) => Some(time),
            Err(error) => {
                self.refuse(name, error, error);
                None
            }
        }
    }
}
