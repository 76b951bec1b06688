//! Uses to record, and what they should make of the table.

use std::collections::BTreeMap;

use recents::model::{Time, Usage};
use serde_json::{Value, json};

/// 2023-11-14T22:13:20Z in microseconds: a time that is in the past for every clock.
pub(crate) const T0: i64 = 1_700_000_000_000_000;

/// The table as the tests see it: key to time in microseconds and run.
pub(crate) type Rows = BTreeMap<(String, String, String), (i64, Option<String>)>;

/// A use, with owned parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Use {
    pub(crate) workspace: String,
    pub(crate) uid: Option<String>,
    pub(crate) published_run: String,
    pub(crate) micros: i64,
    pub(crate) run: Option<String>,
}

impl Use {
    /// A use at `T0 + after` microseconds, by nobody, of no known run.
    pub(crate) fn new(workspace: &str, published_run: &str, after: i64) -> Self {
        Self {
            workspace: workspace.into(),
            uid: None,
            published_run: published_run.into(),
            micros: T0 + after,
            run: None,
        }
    }

    pub(crate) fn by(mut self, uid: &str) -> Self {
        self.uid = Some(uid.into());
        self
    }

    pub(crate) fn run(mut self, run: &str) -> Self {
        self.run = Some(run.into());
        self
    }

    pub(crate) fn at(mut self, micros: i64) -> Self {
        self.micros = micros;
        self
    }

    pub(crate) fn time(&self) -> Time {
        Time::from_micros(self.micros).expect("a time of 1970 to 9999")
    }

    pub(crate) fn usage(&self) -> Usage<'_> {
        Usage {
            workspace: &self.workspace,
            uid: self.uid.as_deref(),
            published_run: &self.published_run,
            last_used_at: self.time(),
            run: self.run.as_deref(),
        }
    }

    /// As `POST /v1/runs` takes it.
    pub(crate) fn json(&self) -> Value {
        json!({
            "workspace": self.workspace,
            "uid": self.uid,
            "published_run": self.published_run,
            "run": self.run,
            "last_used_at": self.time().to_string(),
        })
    }
}

/// The body of `POST /v1/runs`.
pub(crate) fn body_of(uses: &[Use]) -> Value {
    json!({"runs": uses.iter().map(Use::json).collect::<Vec<_>>()})
}
