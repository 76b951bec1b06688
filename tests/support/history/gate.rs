//! A gate in a history: readers that come to it wait until it is opened.

use super::{History, Run, Setup, layout};
use crate::support::TestDb;
use crate::support::beside::Beside;

/// Runs of a history with gates.
pub(crate) const RUNS: i64 = 1_000;
/// There is a gate before each run whose number is a multiple of this.
pub(crate) const EVERY: i64 = 100;

/// A closed gate of a PostgreSQL history; opened when dropped.
pub(crate) struct Gate(Beside);

impl Gate {
    /// The mapping query's `run` calls this function of the test's own: it takes what a closed
    /// gate holds. To PostgreSQL it is as stable as any.
    pub(crate) const FUNCTION: &str = "
        create function gate(id bigint) returns bigint language plpgsql stable as $$
        begin
            perform pg_advisory_xact_lock_shared(-id / 100);
            return id;
        end $$";

    /// A table in `store`, and a PostgreSQL history with gates of [`RUNS`] runs, numbered from 1 as they are
    /// walked: from the greatest key down, -1.
    pub(crate) async fn setup(store: TestDb) -> Setup {
        let runs = (1..=RUNS).map(|number| {
            let workspace = format!("w{}", number % 7);
            let version = number % 40;
            Run::new(-number, &workspace, version, number * 7919 % 1_009)
                .by(&format!("u{}", number % 3))
        });
        let history = History::of(layout::POSTGRES, runs.collect());
        let mut setup = Setup::of(store, history).await;
        setup.source().execute(Self::FUNCTION).await;
        setup.query = history_query();
        setup
    }

    /// Closes the gate before a run. The first and last hundred runs have none that can be
    /// closed: a command tries its mapping query with them when it starts.
    pub(crate) async fn close(setup: &Setup, number: i64) -> Self {
        assert!(
            number % EVERY == 0 && (2 * EVERY..RUNS - EVERY).contains(&number),
            "no gate at {number}"
        );
        let mut conn = setup.source().connect().await;
        conn.execute(&format!("select pg_advisory_lock({})", number / EVERY))
            .await;
        Self(conn)
    }

    pub(crate) async fn open(mut self) {
        self.0.execute("select pg_advisory_unlock_all()").await;
    }

    /// How many wait before it.
    pub(crate) async fn waiting(&mut self) -> usize {
        let waiting = "select pid::text from pg_locks where locktype = 'advisory' and not granted
                       and database = (select oid from pg_database where datname = current_database())";
        self.0.texts(waiting).await.len()
    }
}

fn history_query() -> String {
    layout::POSTGRES.query_of("gate(r.id)", "join")
}
