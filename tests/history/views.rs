//! Views in a mapping query: seen through, to the history and to what is another one each time.

use super::refusing::{COLUMNS, FROM, Refusing};
use crate::support::history::layout::Layout;
use crate::support::history::{History, Setup};
use crate::support::{Backend, TestDb, both};

both!(
    a_view_that_reads_the_history_again_is_refused,
    a_view_that_says_something_else_each_time_is_refused,
    a_view_over_other_tables_is_fine,
);

impl Refusing {
    async fn execute(&self, sql: &str) {
        self.0.source().execute(sql).await;
    }
}

/// The mapping query with a relation joined.
fn joined(relation: &str, on: &str) -> String {
    format!("{COLUMNS} {FROM} join {relation} x on {on}")
}

async fn a_view_that_reads_the_history_again_is_refused(db: TestDb) {
    let mut refusing = Refusing::of(db).await;
    refusing
        .execute(
            "create view latest as
                 select workspace_id, max(updated_at) as at from saved_run group by workspace_id;
             create view named as select l.workspace_id as w, l.at from latest l;
             create view \"Named Twice\" as select * from named where at is not null;
             create view counted as
                 select v.id, (select count(*) from saved_run s where s.parent_version_id = v.id) as uses
                 from saved_run_version v;
             create view busy as
                 with s as (select parent_version_id from saved_run)
                 select id from saved_run_version where id in (select parent_version_id from s)",
        )
        .await;
    for (query, view) in [
        (
            joined("latest", "x.workspace_id = r.workspace_id"),
            "`latest`",
        ),
        (
            joined("LATEST", "x.workspace_id = r.workspace_id"),
            "`latest`",
        ),
        (
            joined("named", "x.w = r.workspace_id"),
            "`latest` behind `named`",
        ),
        (
            joined("\"Named Twice\"", "x.w = r.workspace_id"),
            match refusing.0.store.backend {
                Backend::Postgres => "`latest` behind `\"Named Twice\"`",
                Backend::Sqlite => "`latest` behind `named twice`",
            },
        ),
        (joined("counted", "x.id = v.id"), "`counted`"),
        (
            format!("{COLUMNS} {FROM} where r.parent_version_id in (select id from busy)"),
            "`busy`",
        ),
        (
            format!(
                "with b as (select * from busy) {}",
                joined("b", "x.id = v.id")
            ),
            "`busy`",
        ),
    ] {
        let words = format!("the view {view} reads the history table");
        refusing
            .refuses(&query, &[&words, "take the columns of the run from `runs`"])
            .await;
    }
}

async fn a_view_that_says_something_else_each_time_is_refused(db: TestDb) {
    let mut refusing = Refusing::of(db).await;
    let cases = match refusing.0.store.backend {
        Backend::Postgres => {
            refusing
                .execute(
                    "create function picks(id bigint) returns bigint language sql volatile as 'select id';
                     create schema elsewhere",
                )
                .await;
            &[
                (
                    "id, now() as at from saved_run_version",
                    "`now` reads the clock",
                ),
                (
                    "id from saved_run_version where current_date > '2020-01-01'",
                    "`current_date` reads the clock",
                ),
                (
                    "id from saved_run_version where age('2020-01-01'::timestamptz) > '1 day'",
                    "`age` reads the clock",
                ),
                (
                    "id, (('now'::text)::date) as at from saved_run_version",
                    "'now'",
                ),
                (
                    "id from saved_run_version order by random() limit 20",
                    "`random` is random",
                ),
                (
                    "id from saved_run_version tablesample system (50)",
                    "`TABLESAMPLE`",
                ),
                (
                    "v.id from saved_run_version v, now() n where n > '2020-01-01'",
                    "`now` reads the clock",
                ),
                // The parser does not know all of PostgreSQL's SQL.
                (
                    "id from saved_run_version where id::text collate \"C\" < now()::text",
                    "`now` reads the clock",
                ),
                (
                    "id, id::text collate \"C\" as t, current_timestamp as at from saved_run_version",
                    "`current_timestamp` reads the clock",
                ),
                (
                    "picks(id) as id, id::text collate \"C\" as t from saved_run_version",
                    "picks() is volatile",
                ),
                (
                    "picks(id) as id from saved_run_version",
                    "picks() is volatile",
                ),
                (
                    "id, row_number() over (order by pg_backend_pid()) as n from saved_run_version",
                    "`pg_backend_pid`",
                ),
            ][..]
        }
        Backend::Sqlite => &[
            (
                "id, datetime('now') as at from saved_run_version",
                "`datetime` reads the clock",
            ),
            (
                "id from saved_run_version where CURRENT_DATE > '2020'",
                "`current_date` reads the clock",
            ),
            (
                "id from saved_run_version /* the older half */ where unixepoch() > id",
                "`unixepoch` reads the clock",
            ),
            (
                "id from saved_run_version order by random() limit 20",
                "`random` is random",
            ),
        ],
    };
    for (select, words) in cases {
        println!("{select}");
        refusing
            .execute(&format!("create view unsteady as select {select}"))
            .await;
        let words = ["in the view `unsteady`: ", words];
        let query = joined("unsteady", "x.id = v.id");
        refusing.refuses(&query, &words).await;
        refusing
            .execute("create view over as select id from unsteady")
            .await;
        let words = ["in the view `unsteady` behind `over`: ", words[1]];
        refusing
            .refuses(&joined("over", "x.id = v.id"), &words)
            .await;
        refusing.execute("drop view over; drop view unsteady").await;
    }
}

async fn a_view_over_other_tables_is_fine(db: TestDb) {
    let mut setup = Refusing::of(db).await.0;
    let source = setup.source();
    source
        .execute(
            "create table other (id bigint primary key, at text, version_id bigint);
             insert into other select id, '2020-01-01', id from saved_run_version;
             create view plain as select * from saved_run_version;
             create view grouped as
                 select version_id, count(*) as n, max(at) as at from other
                 group by version_id having count(*) > 0 order by 2 desc limit 1000;
             create view mixed as
                 with o as (select distinct version_id as id from other)
                 select p.id, p.published_run_id, row_number() over (order by p.id) as n
                 from plain p join o on o.id = p.id
                 where exists (select 1 from grouped g where g.version_id = p.id)
                 union all select id, published_run_id, 0 from saved_run_version where id < 0",
        )
        .await;
    let mut queries = vec![
        joined("plain", "x.id = v.id"),
        joined("grouped", "x.version_id = v.id"),
        joined("mixed", "x.id = v.id"),
        format!("{COLUMNS} from runs r join mixed v on v.id = r.parent_version_id"),
    ];
    match setup.store.backend {
        Backend::Postgres => {
            // What PostgreSQL makes of a view's text is read, whatever it looks like.
            source
                .execute(
                    "create function same(id bigint) returns bigint language sql stable as 'select id';
                     create schema elsewhere;
                     create view elsewhere.rich as
                     select same(v.id) as id, v.id::text as text,
                            extract(year from timestamptz '2020-01-01') as year,
                            interval '1 day' * 2 as days, array[1, 2, 3] as list, (array[1, 2])[1] as first,
                            '{\"a\": 1}'::jsonb ->> 'a' as json, '{\"a\": 1}'::jsonb @> '{}' as has,
                            case v.id when 1 then 'one' else null end as named,
                            timestamptz '2020-01-01' at time zone 'UTC' as local,
                            coalesce(nullif(v.published_run_id, ''), 'x') as published,
                            count(*) filter (where v.id > 1) over w as counted,
                            string_agg(v.published_run_id, ',') over (partition by v.id % 2) as texts,
                            v.id = any (array[1, 2]) as some, row(v.id, 1) = row(2, 1) as pair,
                            v.id is distinct from 3 as other, v.published_run_id like 'p%' as liked,
                            v.published_run_id ~* '^p' as matched, not v.id between 1 and 2 as beyond,
                            substring(v.published_run_id from 1 for 2) as part, 'now'::text as word,
                            position('p' in v.published_run_id) as place, v.id operator(pg_catalog.+) 1 as next,
                            greatest(v.id, 2) as greatest, age(timestamptz '2020-01-02', timestamptz '2020-01-01') as age,
                            $$it's$$ as quoted, 'caf\u{e9}' as accent, date '2020-01-01' + 1 as day
                     from saved_run_version v
                     left join lateral (select o.at from other o where o.version_id = v.id limit 1) l on true
                     cross join generate_series(1, 1) with ordinality as g(x, n)
                     window w as (order by v.id rows between unbounded preceding and current row);
                     create view sets as
                     select (id % 2) as half, percentile_cont(0.5) within group (order by id) as middle
                     from saved_run_version group by grouping sets ((id % 2), ());
                     create view odd as
                     select id, id::text collate \"C\" as text, lag(id) over (order by id
                         rows between 1 preceding and current row exclude current row) as before
                     from only saved_run_version;
                     create materialized view kept as select id from saved_run_version;
                     create view tree as
                     with recursive t(id) as (select 1::bigint union all select id + 1 from t where id < 40)
                     select t.id from t join lateral unnest(array[t.id]) u on true where t.id in (values (1), (2))
                     except select -1",
                )
                .await;
            queries.extend([
                joined("elsewhere.rich", "x.id = v.id"),
                joined("odd", "x.id = v.id"),
                joined("kept", "x.id = v.id"),
                format!(
                    "{COLUMNS} {FROM} left join sets x on x.half = v.id % 2 and x.half is null"
                ),
                format!("{COLUMNS} {FROM} left join tree x on x.id = v.id"),
            ]);
        }
        Backend::Sqlite => {
            source
                .execute(
                    "create view [rich one] (id, \"text\", at) as
                     -- with a comment; and its semicolon
                     select v.id, cast(v.id as text) || 'x', datetime(o.at, '+1 day')
                     from saved_run_version v left join other o using (id)
                     where v.published_run_id glob 'p*' and v.id not null
                     order by o.at collate nocase",
                )
                .await;
            queries.push(joined("\"Rich One\"", "x.id = v.id"));
        }
    }
    for query in queries {
        println!("{query}");
        setup.query = query;
        setup
            .store
            .execute("delete from {recents}recent_workflow")
            .await;
        setup.backfill(&["--restart"]).await;
        setup.recents(&["verify"]).expect(0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_and_what_they_are_partitions_of_are_the_history() {
    let layout = crate::support::history::layout::ALL
        .into_iter()
        .find(|layout| layout.name == "partitions")
        .expect("partitions");
    let history = History::random(layout, 71, 300);
    let setup = Setup::of(TestDb::migrated(Backend::Postgres).await, history).await;
    let mut refusing = Refusing(setup);
    refusing
        .execute(
            "create view few as select id from saved_run_1 where uid is null;
             create view all_of_them as select id from saved_run;
             create schema \"Else\";
             create materialized view \"Else\".\"Kept \"\"Few\"\"\" as select id from few",
        )
        .await;
    let again = "reads the history table, so a row could depend on other runs";
    for (relation, words) in [
        ("few", ["the view `few`", again]),
        (
            "\"Else\".\"Kept \"\"Few\"\"\"",
            ["the view `few` behind `\"Else\".\"Kept", again],
        ),
        (
            "saved_run_0",
            [
                "the history table `saved_run_0` by its name",
                "Write `runs` in its place",
            ],
        ),
    ] {
        refusing
            .refuses(&joined(relation, "x.id = r.id"), &words)
            .await;
    }
    refusing.0.history.layout = Layout {
        table: "saved_run_1",
        ..layout
    };
    let words = ["the view `all_of_them`", again];
    let query = joined("all_of_them", "x.id = r.id");
    refusing.refuses(&query, &words).await;
}

/// The history itself may be a view, as long as it says the same each time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_that_is_a_view_is_judged_too() {
    for backend in [Backend::Postgres, Backend::Sqlite] {
        let mut refusing = Refusing::of(TestDb::migrated(backend).await).await;
        let (now, word) = match backend {
            Backend::Postgres => ("now() > updated_at", "`now` reads the clock"),
            Backend::Sqlite => ("unixepoch() > 0", "`unixepoch` reads the clock"),
        };
        refusing
            .execute(&format!(
                "create view all_runs as select * from saved_run;
                 create view past_runs as select * from saved_run where {now}"
            ))
            .await;
        let layout = refusing.0.history.layout;
        refusing.0.history.layout = Layout {
            table: "past_runs",
            ..layout
        };
        let query = format!("{COLUMNS} {FROM}");
        let words = ["in the view `past_runs`: ", word];
        refusing.refuses(&query, &words).await;
        refusing.0.history.layout = Layout {
            table: "all_runs",
            ..layout
        };
        refusing.0.query = query;
        refusing.0.backfill(&[]).await;
    }
}
