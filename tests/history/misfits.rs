//! Mapping queries that do not fit their database: refused before anything is written.

use super::refusing::{COLUMNS, FROM, Refusing};
use crate::support::command::run;
use crate::support::history::layout::Layout;
use crate::support::history::{History, Run, Setup};
use crate::support::{Backend, TestDb, both};

both!(
    a_query_that_says_something_else_each_time_is_refused,
    a_query_that_does_not_fit_its_database_is_refused,
    a_query_that_does_not_keep_to_its_runs_is_refused,
    a_query_that_names_another_tables_numbers_is_refused,
);

async fn a_query_that_says_something_else_each_time_is_refused(db: TestDb) {
    let mut refusing = Refusing::of(db).await;
    let time = |expression: &str| {
        format!(
            "{} {FROM}",
            COLUMNS.replace("r.updated_at as", &format!("{expression} as"))
        )
    };
    let (now, random) = match refusing.0.store.backend {
        Backend::Postgres => {
            // What only the catalogue knows.
            refusing.0.store.execute(
                "create function picks(id bigint) returns bigint language sql volatile as 'select id';
                 create function public.many(t timestamptz) returns setof timestamptz language sql immutable as 'select t';
                 create aggregate latest(timestamptz) (sfunc = timestamptz_larger, stype = timestamptz);
                 create schema elsewhere;
                 create function elsewhere.keeps(id bigint) returns bigint language sql volatile as 'select id'",
            ).await;
            for (query, words) in [
                (
                    COLUMNS.replace("r.id as", "picks(r.id) as") + " " + FROM,
                    ["picks() is volatile", "leave it out"],
                ),
                (
                    COLUMNS.replace("r.id as", "elsewhere.keeps(r.id) as") + " " + FROM,
                    ["keeps() is volatile", "leave it out"],
                ),
                (
                    time("many(r.updated_at)"),
                    ["many() is set-returning", "leave it out"],
                ),
                (
                    time("latest(r.updated_at)"),
                    ["latest() is an aggregate", "leave it out"],
                ),
                (
                    time("r.updated_at + pg_sleep(0)::text::interval"),
                    ["`pg_sleep`", "depends on the session"],
                ),
            ] {
                refusing.refuses(&query, &words).await;
            }
            (
                ["now()", "current_timestamp", "clock_timestamp()"],
                "random()",
            )
        }
        Backend::Sqlite => (
            ["datetime('now')", "current_timestamp", "unixepoch()"],
            "random()",
        ),
    };
    for now in now {
        refusing
            .refuses(&time(now), &["reads the clock", "such as `r.updated_at`"])
            .await;
        refusing
            .refuses(
                &format!("{COLUMNS} {FROM} where r.updated_at < {now}"),
                &["reads the clock"],
            )
            .await;
    }
    let query = format!("{COLUMNS} {FROM} where {random} < 1");
    refusing
        .refuses(&query, &["`random` is random", "Use a column of the run"])
        .await;
}

async fn a_query_that_does_not_fit_its_database_is_refused(db: TestDb) {
    let mut refusing = Refusing::of(db).await;
    for (column, place) in [
        ("r.id as run, ", "`run` is missing. Add the run's key"),
        ("r.uid, ", "`uid` is missing. Add the run's user"),
        (
            ", r.updated_at as last_used_at",
            "`last_used_at` is missing. Add the time of the run",
        ),
    ] {
        refusing
            .refuses(&format!("{} {FROM}", COLUMNS.replace(column, "")), &[place])
            .await;
    }
    refusing
        .refuses(
            &format!("{COLUMNS}, r.id as more {FROM}"),
            &["`more` is none of run, workspace"],
        )
        .await;
    refusing
        .refuses(
            &format!("{COLUMNS} {FROM} where r.created_at is null"),
            &["history.query", "created_at"],
        )
        .await;
    refusing
        .refuses(
            &format!(
                "{COLUMNS} {}",
                FROM.replace("saved_run_version", "versions")
            ),
            &["history.query", "versions"],
        )
        .await;
    refusing
        .refuses(&format!("{COLUMNS} {FROM} where"), &["history.query"])
        .await;
    if refusing.0.store.backend == Backend::Postgres {
        for (time, kind) in [
            ("r.updated_at::text", "text"),
            ("r.updated_at::date", "date"),
            ("r.id", "int8"),
        ] {
            let query = format!(
                "{} {FROM}",
                COLUMNS.replace("r.updated_at as", &format!("{time} as"))
            );
            refusing
                .refuses(&query, &["last_used_at is of type", kind, "timestamptz"])
                .await;
        }
    }
    let good = refusing.0.history.layout.query();
    let layout = refusing.0.history.layout;
    for (table, key, words) in [
        ("nothing_here", "id", ["history.table", "nothing_here"]),
        ("saved_run", "nothing_here", ["history.key", "nothing_here"]),
        (
            "saved_run",
            "updated_at + 1",
            ["history.key", "is not a name"],
        ),
        (
            "saved_run; drop table saved_run",
            "id",
            ["history.table", "is not a name"],
        ),
        (
            "(select * from saved_run) x",
            "id",
            ["history.table", "is not a name"],
        ),
    ] {
        refusing.0.history.layout = Layout {
            table,
            key,
            ..layout
        };
        refusing.refuses(&good, &words).await;
    }
}

async fn a_query_that_does_not_keep_to_its_runs_is_refused(db: TestDb) {
    let mut refusing = Refusing::of(db).await;
    // Versions have the numbers 0 to 39, so they look like keys.
    for run in [
        "r.parent_version_id",
        "r.id + 1",
        "r.workspace_id",
        "r.uid",
        "r.id % 3",
        "v.id",
    ] {
        let query = format!(
            "{} {FROM}",
            COLUMNS.replace("r.id as", &format!("{run} as"))
        );
        refusing
            .refuses(&query, &["history.query: it returned", "run"])
            .await;
    }
    for run in ["nullif(r.id, r.id)", "null"] {
        let query = format!(
            "{} {FROM}",
            COLUMNS.replace("r.id as", &format!("{run} as"))
        );
        refusing
            .refuses(
                &query,
                &[
                    "history.query: it returned",
                    "`run` must be the history's key",
                ],
            )
            .await;
    }
    // Two versions for a run: a join that multiplies.
    let on = "on v.id in (r.parent_version_id, r.parent_version_id + 1)";
    let query = format!("{COLUMNS} from runs r join saved_run_version v {on}");
    refusing
        .refuses(
            &query,
            &[
                "twice",
                "each run gives one row or none: join on unique columns",
            ],
        )
        .await;
    let query = format!("{COLUMNS} from runs r, saved_run_version v");
    refusing
        .refuses(&query, &["twice", "join on unique columns"])
        .await;
}

async fn a_query_that_names_another_tables_numbers_is_refused(db: TestDb) {
    // Each run's version has the number of another run, so that no set of them looks wrong.
    let runs = (1..=51)
        .map(|key| Run::new(key, "w", 52 - key, key))
        .collect();
    let layout = Layout::of(db.backend);
    let mut refusing = Refusing(Setup::of(db, History::of(layout, runs)).await);
    let query = format!("{} {FROM}", COLUMNS.replace("r.id as", "v.id as"));
    let words = [
        "of the run",
        "which it was given; `run` must be the history's key",
    ];
    refusing.refuses(&query, &words).await;
    refusing.0.query = format!("{COLUMNS} {FROM}");
    refusing.0.backfill(&[]).await;
}

/// A part of the history would pass for all of it, and its table for proven.
#[tokio::test]
async fn a_history_of_which_rows_are_hidden_from_the_role_is_refused() {
    let mut setup = Setup::plain(TestDb::migrated(Backend::Postgres).await, 5, 100).await;
    setup
        .source()
        .execute(
            "alter table saved_run enable row level security;
             create policy own on saved_run using (workspace_id = 'w1')",
        )
        .await;
    let url = setup
        .store
        .role(&["grant select on saved_run, saved_run_version to %"])
        .await;
    let mut backfill = setup.command(&["backfill", "--dry-run"]);
    let refused = run(backfill.env("RECENTS_HISTORY_URL", &url)).expect(2);
    assert!(
        refused.err.contains("row-level security policy"),
        "{refused:?}"
    );
}
