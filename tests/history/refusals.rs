//! Mapping queries whose rows depend on more than one run: refused by their text alone, with what to
//! write instead.

use super::refusing::{COLUMNS, FROM, Refusing};
use crate::support::{Backend, TestDb, both};

both!(a_query_that_depends_on_more_than_one_run_is_refused,);

async fn a_query_that_depends_on_more_than_one_run_is_refused(db: TestDb) {
    let mut refusing = Refusing::of(db).await;
    let distinct_on = COLUMNS.replacen(
        "select",
        "select distinct on (r.workspace_id, v.published_run_id)",
        1,
    );
    if refusing.0.store.backend == Backend::Postgres {
        // The query that the table is to replace.
        let query = format!(
            "{distinct_on} {FROM} order by r.workspace_id, v.published_run_id, r.updated_at desc"
        );
        refusing
            .refuses_text(
                &query,
                &[
                    "DISTINCT ON",
                    "Write the same select without DISTINCT ON and ORDER BY, one row for each run",
                ],
            )
            .await;
    }
    let columns = COLUMNS;
    for (query, words) in [
        (
            COLUMNS.replacen("select", "select distinct", 1) + " " + FROM,
            ["DISTINCT", "Leave it out"],
        ),
        (
            columns.replace("r.updated_at as", "max(r.updated_at) as")
                + " "
                + FROM
                + " group by 1, 2, 3, 4",
            ["GROUP BY", "one row for each run"],
        ),
        (
            columns.replace("r.updated_at as", "max(r.updated_at) as") + " " + FROM,
            ["`max`", "one row for each run"],
        ),
        (
            format!("{columns} {FROM} limit 100"),
            ["LIMIT", "Leave it out"],
        ),
        (
            format!("{columns} {FROM} order by r.updated_at desc"),
            ["ORDER BY", "sorts itself"],
        ),
        (
            columns.replace(
                "r.updated_at as",
                "max(r.updated_at) over (partition by r.uid) as",
            ) + " "
                + FROM,
            ["window function `max`", "Leave it out"],
        ),
        (
            format!("{columns} {FROM} where r.id in (select id from saved_run where uid is null)"),
            ["`saved_run`", "Write `runs` in its place"],
        ),
        (
            format!("{columns} {FROM} join saved_run s on s.id = r.id"),
            ["`saved_run`", "Write `runs` in its place"],
        ),
        (
            columns.to_owned()
                + " from saved_run r join saved_run_version v on v.id = r.parent_version_id",
            ["`saved_run`", "Write `runs` in its place"],
        ),
        (
            format!("{columns} {FROM} join runs s on s.id = r.id"),
            ["reads `runs` more than once", "Read it once"],
        ),
        (
            format!("{columns} {FROM} union all {columns} {FROM}"),
            ["`UNION`", "Write one SELECT"],
        ),
        (
            format!("{columns} {FROM}; {columns} {FROM}"),
            ["2 statements", "Write one SELECT"],
        ),
        (
            format!("{columns} {FROM}; delete from saved_run"),
            ["2 statements", "Write one SELECT"],
        ),
        (
            "delete from saved_run".into(),
            ["not a SELECT", "Write one plain SELECT"],
        ),
    ] {
        refusing.refuses_text(&query, &words).await;
    }
}
