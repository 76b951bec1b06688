//! A history with runs that are no use.

use std::collections::BTreeMap;

use crate::support::Backend;
use crate::support::history::layout::{self, Layout};
use crate::support::history::{History, Run};

/// A history with text for keys, with runs that are no use for every reason.
pub(super) struct Odd {
    pub(super) history: History,
    /// Runs that are a use.
    pub(super) good: Vec<Run>,
    next: i64,
}

impl Odd {
    pub(super) fn new(backend: Backend) -> Self {
        let layout = match backend {
            Backend::Postgres => Layout {
                key_type: "text",
                ..layout::POSTGRES
            },
            // Takes a time as text or as a number.
            Backend::Sqlite => Layout {
                key_type: "text",
                time_type: "any",
                ..layout::SQLITE
            },
        };
        let versions = BTreeMap::from([(1, Some("p1".into())), (2, None)]);
        Self {
            history: History {
                layout,
                runs: Vec::new(),
                versions,
            },
            good: Vec::new(),
            next: 0,
        }
    }

    fn run(&mut self) -> Run {
        self.next += 1;
        Run::new(format!("k{:03}", self.next), "w", 1, self.next).by("u")
    }

    /// A run that is no use, because of what `change` does to it.
    pub(super) fn odd(&mut self, change: impl FnOnce(&mut Run)) {
        let mut run = self.run();
        change(&mut run);
        self.history.runs.push(run);
    }

    /// A run that is a use all the same.
    pub(super) fn good(&mut self, change: impl FnOnce(&mut Run)) {
        self.odd(change);
        self.good.extend(self.history.runs.last().cloned());
    }

    pub(super) fn version(&mut self, published_run: &str) -> i64 {
        let version = 100 + self.history.versions.len() as i64;
        self.history
            .versions
            .insert(version, Some(published_run.into()));
        version
    }
}

/// Ids that are none: empty, too long, dots, control characters.
pub(super) fn bad_ids() -> Vec<String> {
    let mut ids: Vec<_> = ["", ".", "..", "a\nb", "a\u{7f}", "a\u{85}b", "\t"]
        .map(String::from)
        .into();
    ids.push("x".repeat(129));
    ids.push("é".repeat(64) + "x");
    ids
}
