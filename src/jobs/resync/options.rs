//! How to re-sync.

use serde::{Deserialize, Serialize};

/// What a re-sync does with rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It only raises and adds: the complete-check, with writing.
    #[default]
    Merge,
    /// It lowers and removes too: every row is held against the run that it names.
    Rebuild,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Self; 2] = [Self::Merge, Self::Rebuild];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Merge => "merge",
            Self::Rebuild => "rebuild",
        }
    }

    /// The mode of that name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }
}

/// How to re-sync. Two requests of the same options and workspace are the same work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Options {
    /// What becomes of rows.
    pub mode: Mode,
    /// Only tell what would change, in a plan.
    pub dry_run: bool,
}

impl Options {
    /// As a job keeps them: equal options have equal texts.
    pub(crate) fn text(self) -> String {
        serde_json::to_string(&self).unwrap_or_default()
    }

    /// Of a job; ones that cannot be read are no re-sync's.
    pub(crate) fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}
