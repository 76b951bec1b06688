//! Types of ids in a history, as far as they matter for comparing with them.

use uuid::Uuid;

/// The type of a column of ids, as far as it matters for comparing with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IdType {
    Int2,
    Int4,
    Int8,
    Uuid,
    Text,
    /// Anything else: compared by its text.
    Other,
}

impl IdType {
    /// By the name that the driver gives it.
    pub(super) fn of(name: &str) -> Self {
        match name {
            "INT2" => Self::Int2,
            "INT4" => Self::Int4,
            "INT8" => Self::Int8,
            "UUID" => Self::Uuid,
            "TEXT" | "VARCHAR" => Self::Text,
            _ => Self::Other,
        }
    }

    /// Whether all values take the same room.
    pub(crate) fn has_fixed_length(self) -> bool {
        !matches!(self, Self::Text | Self::Other)
    }

    /// About how many bytes a value takes in an array.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::Int2 | Self::Int4 | Self::Int8 => 8,
            Self::Uuid => 16,
            Self::Text | Self::Other => 40,
        }
    }

    pub(crate) fn sql(self) -> &'static str {
        match self {
            Self::Int2 => "int2",
            Self::Int4 => "int4",
            Self::Int8 => "int8",
            Self::Uuid => "uuid",
            Self::Text | Self::Other => "text",
        }
    }

    /// Whether a value of the type is written like this; another text, also another spelling of a
    /// value, names nothing, and a cast of it could fail for all the others of its batch.
    pub(super) fn accepts(self, text: &str) -> bool {
        let is = |written: Option<String>| written.is_some_and(|written| written == text);
        match self {
            Self::Int2 => is(text.parse().ok().map(|n: i16| n.to_string())),
            Self::Int4 => is(text.parse().ok().map(|n: i32| n.to_string())),
            Self::Int8 => is(text.parse().ok().map(|n: i64| n.to_string())),
            Self::Uuid => is(Uuid::try_parse(text).ok().map(|uuid| uuid.to_string())),
            Self::Text | Self::Other => true,
        }
    }

    /// A column so that it compares with a parameter of [`IdType::sql`].
    pub(super) fn comparable(self, column: &str) -> String {
        match self {
            Self::Other => format!("cast({column} as text)"),
            _ => column.into(),
        }
    }
}

/// Types of the history's key and of the query's columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Types {
    pub(crate) key: IdType,
    pub(crate) run: IdType,
    pub(crate) workspace: IdType,
    pub(crate) uid: IdType,
    pub(crate) published_run: IdType,
}
