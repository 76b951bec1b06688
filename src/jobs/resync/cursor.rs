//! How far a re-sync came.

use serde::{Deserialize, Serialize};

use super::options::Mode;
use crate::model::Key;

/// How far a re-sync came: first the rows of the table (of a rebuild), then the runs of the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Cursor {
    /// Behind this row.
    Rows(Option<[String; 3]>),
    /// Behind this run. Runs of one workspace come in no order: always from the start.
    Runs(Option<String>),
}

impl Cursor {
    /// Of a job that may have come somewhere.
    pub(super) fn of(text: Option<&str>, mode: Mode) -> Self {
        let read = text.and_then(|text| serde_json::from_str(text).ok());
        read.unwrap_or(match mode {
            Mode::Rebuild => Self::Rows(None),
            Mode::Merge => Self::Runs(None),
        })
    }

    pub(super) fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Behind this row.
    pub(super) fn behind(key: &Key) -> Self {
        let (workspace, uid, published_run) = key.parts();
        Self::Rows(Some([workspace, uid, published_run].map(Into::into)))
    }
}
