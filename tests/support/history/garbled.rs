//! A history with runs that cannot be mapped: one of them fails the whole statement that maps it.

use super::layout::{Layout, POSTGRES, TimeForm};
use super::{At, History, Run, Setup};
use crate::support::TestDb;

/// Times are texts, which the mapping casts; a text may be no time.
const TEXTS: Layout = Layout {
    name: "times as texts",
    time_type: "text",
    time_form: TimeForm::Rfc3339,
    ..POSTGRES
};

/// What stands instead of a time, and is told to nobody over HTTP.
pub(crate) const GARBAGE: &str = "garbage";

impl Setup {
    /// A table in `store` and a PostgreSQL history of so many random runs; those at these places have no
    /// time, but garbage. They are of the workspace `w1`.
    pub(crate) async fn garbled(store: TestDb, seed: u64, runs: usize, garbage: &[usize]) -> Self {
        let mut history = History::random(TEXTS, seed, runs);
        history.versions.insert(1, Some("p1".into()));
        for at in garbage {
            let run = &mut history.runs[*at];
            *run = Run {
                at: Some(At::Never(GARBAGE)),
                ..Run::new(&run.key, "w1", 1, 0).by("u1")
            };
        }
        let mut setup = Self::of(store, history).await;
        let (column, cast) = ("r.updated_at", "cast(r.updated_at as timestamptz)");
        setup.query = setup.query.replace(column, cast);
        setup
    }

    /// The key of the run at this place.
    pub(crate) fn key(&self, at: usize) -> &str {
        &self.history.runs[at].key
    }
}
