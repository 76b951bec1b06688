//! The values that settings have.

use std::str::FromStr;

use serde::Serialize;
use utoipa::ToSchema;

/// Where lists are read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReadPath {
    /// The table.
    Materialized,
    /// The history; the table is compared with it.
    Shadow,
    /// The history alone.
    History,
}

impl ReadPath {
    /// Each of them, at the place of its number.
    pub const ALL: [Self; 3] = [Self::Materialized, Self::Shadow, Self::History];

    /// Its name, as it is configured, stored and shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Materialized => "materialized",
            Self::Shadow => "shadow",
            Self::History => "history",
        }
    }

    /// Whether there must be a history to read from.
    pub fn needs_history(self) -> bool {
        self != Self::Materialized
    }
}

/// What `read_path` is set to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadPathChoice {
    /// The history until the first backfill of it succeeded, then the table.
    Auto,
    /// This one.
    Always(ReadPath),
}

impl ReadPathChoice {
    /// Its name, as it is configured and stored.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Always(path) => path.name(),
        }
    }

    /// Whether there must be a history to read from; `auto` does without.
    pub fn needs_history(self) -> bool {
        matches!(self, Self::Always(path) if path.needs_history())
    }
}

/// How the details of items are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DetailsMode {
    /// Those of a whole request together.
    Batched,
    /// One statement an item, one after the other: what is to be avoided, as a control.
    PerItem,
    /// Not at all.
    Off,
}

impl DetailsMode {
    /// Each of them, at the place of its number.
    pub const ALL: [Self; 3] = [Self::Batched, Self::PerItem, Self::Off];

    /// Its name, as it is configured, stored and shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Batched => "batched",
            Self::PerItem => "per_item",
            Self::Off => "off",
        }
    }
}

/// The text names no value of the setting; says which ones there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not {0}")]
pub struct NoValue(&'static str);

impl NoValue {
    /// The values that there are.
    pub(crate) fn among(self) -> &'static str {
        self.0
    }
}

impl FromStr for ReadPath {
    type Err = NoValue;

    fn from_str(text: &str) -> Result<Self, NoValue> {
        let mut all = Self::ALL.into_iter();
        all.find(|path| path.name() == text)
            .ok_or(NoValue("materialized, shadow or history"))
    }
}

impl FromStr for ReadPathChoice {
    type Err = NoValue;

    fn from_str(text: &str) -> Result<Self, NoValue> {
        match text {
            "auto" => Ok(Self::Auto),
            text => text
                .parse()
                .map(Self::Always)
                .map_err(|_| NoValue("auto, materialized, shadow or history")),
        }
    }
}

impl FromStr for DetailsMode {
    type Err = NoValue;

    fn from_str(text: &str) -> Result<Self, NoValue> {
        let mut all = Self::ALL.into_iter();
        all.find(|mode| mode.name() == text)
            .ok_or(NoValue("batched, per_item or off"))
    }
}
