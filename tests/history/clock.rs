//! Strings that PostgreSQL reads as the current time: refused wherever it does.

use recents::history::refuse::{Refusal, judge};
use recents::store::Dialect;

use crate::support::{Backend, TestDb};

/// Conditions that hold where a string is read as the current time, which `at` is.
const CONDITIONS: [&str; 33] = [
    "r.at = 'now'",
    "r.at = ' Now '",
    "r.at operator(pg_catalog.=) 'now'",
    "r.at - 'now' = interval '0'",
    "r.at is not distinct from 'now'",
    "r.at = 'now'::timestamptz",
    "r.at = 'now'::text::timestamptz",
    "r.at = timestamptz 'now'",
    "r.at::date = date 'today'",
    "r.at in (r.none, 'now')",
    "'now' in (r.none, r.at)",
    "'now' in (select r.at)",
    "'now' = any (array[r.at])",
    "r.at = any ('{now}')",
    "r.at = all ('{\"now\"}')",
    "r.at between 'now' and 'now'",
    "'now' between r.at and r.at",
    "case when r.done then r.none else 'now' end = r.at",
    "case when not r.done then 'now' else r.none end = r.at",
    "case r.at when 'now' then true end",
    "coalesce(r.none, 'now') = r.at",
    "greatest(r.at, 'now') = r.at",
    "nullif(r.at, 'now') is null",
    "(array[r.at, 'now'])[2] = r.at",
    "array[r.at] @> '{now}'",
    "array[r.at] && '{now}'",
    "(1, r.at) = (1, 'now')",
    "(1, r.at) in ((1, 'now'))",
    "row(r.at) = row('now')",
    "(r.at, interval '1') overlaps ('now', interval '1')",
    "exists (select 1 from (values (1, r.none), (2, 'now')) v(n, at) where v.at = r.at)",
    "'now' at time zone 'UTC' = r.at at time zone 'UTC'",
    "lower('[now,now]'::tstzrange) = r.at",
];

#[tokio::test]
async fn a_string_that_postgresql_reads_as_now_is_refused_wherever_it_does() {
    let db = TestDb::empty(Backend::Postgres).await;
    let mut conn = db.connect().await;
    // In which `now()` is the same.
    conn.execute("begin").await;
    for condition in CONDITIONS {
        let of_now = "(select now() as at, null::timestamptz as none, false as done) r";
        let holds = conn
            .texts(&format!("select ({condition})::text from {of_now}"))
            .await;
        assert_eq!(holds, ["true"], "{condition} reads the clock");
        let query = format!(
            "select r.id as run, r.ws as workspace, r.uid, r.flow as published_run, r.at as last_used_at
             from runs r where {condition}"
        );
        let judged = judge(&query, "app.saved_run", Dialect::Postgres);
        assert!(
            matches!(judged, Err(Refusal::ClockLiteral(_))),
            "{condition}: {judged:?}"
        );
    }
}
