//! How many statements notes cost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use recents::capture::drain::{Drain, Step};
use recents::record::{Recorder, Recording};
use recents::store::{PoolSettings, Store};
use recents::telemetry::Metrics;

use super::followed::grouped;
use crate::promises::fold::record;
use crate::races::drain::drain_of;
use crate::support::history::layout::POSTGRES;
use crate::support::history::setup::same;
use crate::support::history::{History, Setup, Turnstile};
use crate::support::{Backend, TestDb, Use};

/// A way in which notes come about at once.
struct Way {
    name: &'static str,
    /// What makes so many, of the runs from the first on.
    sql: fn(usize, usize) -> String,
    /// Whether the hook is told of these runs, too.
    by_hook: bool,
}

const WAYS: [Way; 5] = [
    Way {
        name: "one statement",
        sql: insert,
        by_hook: false,
    },
    Way {
        name: "a statement each, in one transaction",
        sql: |first, runs| {
            let each: Vec<_> = (first..first + runs).map(|run| insert(run, 1)).collect();
            format!("begin; {}; commit", each.join("; "))
        },
        by_hook: false,
    },
    Way {
        name: "the hook",
        sql: |first, runs| {
            format!(
                "set session_replication_role = replica; {}; reset session_replication_role",
                insert(first, runs)
            )
        },
        by_hook: true,
    },
    Way {
        name: "rows that go down",
        // Those that the hook was told of, below an older run of each.
        sql: |first, runs| {
            let from = first - 1_000_000;
            let older = insert_as(first, runs, "n - 1000000", "2025-01-01Z");
            format!(
                "{older}; update saved_run set updated_at = '2024-01-01Z'
                     where id between {from} and {from} + {runs} - 1"
            )
        },
        by_hook: false,
    },
    Way {
        name: "rows that go",
        sql: |first, runs| {
            let from = first - 2_000_000;
            format!(
                "delete from saved_run where id between {from} and {from} + {runs} - 1
                     or id between {from} + 1000000 and {from} + 1000000 + {runs} - 1"
            )
        },
        by_hook: false,
    },
];

/// Each of another workspace, so that each is raised, as a row of its user's list too, and looked at
/// again.
fn insert(first: usize, runs: usize) -> String {
    insert_as(first, runs, "n", "2026-01-01Z")
}

fn insert_as(first: usize, runs: usize, workspace: &str, time: &str) -> String {
    format!(
        "insert into saved_run select n, 'n' || ({workspace}), 'u',
             (select min(id) from saved_run_version where published_run_id is not null),
             timestamptz '{time}' from generate_series({first}, {first} + {runs} - 1) n"
    )
}

/// The time of [`insert`], in microseconds.
const TIME: i64 = 1_767_225_600_000_000;

/// Sent when there is time for it, in whichever round that is: what other processes are told, the end of a
/// transaction that only read, whose beginning is counted, what a new connection is asked first, and the looks
/// for what is fresh while rows are computed.
const APART: [&str; 5] = [
    "pg_notify",
    "ROLLBACK",
    "set_config('synchronous_commit'",
    "false as is_new from recents.outbox",
    "where t.id > $1 and t.error is null and t.run is null order by t.id desc limit $2",
];

/// A hook and a drain, of which every statement is seen.
struct Seen {
    way: Turnstile,
    recorder: Recorder,
    drain: Drain,
}

impl Seen {
    async fn of(setup: &Setup) -> Self {
        let way = Turnstile::letting(usize::MAX, &setup.store.url).await;
        let settings = PoolSettings {
            size: 4,
            statement_timeout: Duration::from_secs(20),
            behind_pooler: false,
        };
        let store = Store::open(&way.url, settings).expect("a good url");
        let metrics = Arc::new(Metrics::new(&store));
        let noting = Recording {
            noting: true,
            ..Recording::default()
        };
        let (recorder, _) = Recorder::start(store.clone(), metrics, noting);
        let drain = drain_of(setup, store, &way.url).await;
        Self {
            way,
            recorder,
            drain,
        }
    }

    /// How often each statement was executed until all of these uses, and what was noted, was worked off.
    async fn statements(&mut self, uses: &[Use]) -> BTreeMap<String, usize> {
        let before = self.way.executed();
        if !uses.is_empty() {
            let (applied, _) = record(&self.recorder, uses).await;
            assert_eq!(applied, uses.len() as u64);
        }
        while self.drain.step(true).await.expect("a step") == Step::Worked {}
        let mut counts = BTreeMap::new();
        for text in self.way.statements().split_off(before) {
            if APART.iter().all(|apart| !text.contains(apart)) {
                *counts.entry(text).or_default() += 1;
            }
        }
        counts
    }
}

/// All of them, those on the notes themselves and the ends of transactions too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_number_of_notes_takes_the_same_number_of_statements() {
    let history = History::random(POSTGRES, 74, 1_000);
    let setup = Setup::of(TestDb::migrated(Backend::Postgres).await, history).await;
    setup.recents(&["capture", "install"]).expect(0);
    setup.recents(&["backfill"]).expect(0);
    let mut seen = Seen::of(&setup).await;
    let mut source = setup.source().connect().await;
    let version = "select published_run_id from saved_run_version
                   where published_run_id is not null order by id limit 1";
    let published_run = source.texts(version).await.remove(0);
    for (at, way) in (1..).zip(WAYS) {
        let mut counts = Vec::new();
        // The first warms up: what is asked once is asked then.
        for (round, runs) in (1..).zip([1, 1, 100, 1_000]) {
            let first = at * 1_000_000 + round * 10_000;
            source.execute(&(way.sql)(first, runs)).await;
            let told = if way.by_hook { runs } else { 0 };
            let uses: Vec<_> = (first..first + told)
                .map(|run| {
                    let usage = Use::new(&format!("n{run}"), &published_run, 0).by("u");
                    usage.at(TIME).run(&run.to_string())
                })
                .collect();
            counts.push(seen.statements(&uses).await);
        }
        counts.remove(0);
        for text in ["delete from recents.note", "recent_workflow", "with runs"] {
            let is_seen = counts[0].keys().any(|statement| statement.contains(text));
            assert!(is_seen, "{}: no {text} among {:#?}", way.name, counts[0]);
        }
        for (more, runs) in counts[1..].iter().zip([100, 1_000]) {
            assert_eq!(*more, counts[0], "{}, of {runs} runs and of 1", way.name);
        }
    }
    let notes = "select ((select count(*) from recents.outbox) + (select count(*) from recents.note))::text";
    assert_eq!(source.texts(notes).await, ["0"]);
    let rows = setup.store.rows().await;
    same(&rows, &grouped(&setup).await, "after all of it");
}
