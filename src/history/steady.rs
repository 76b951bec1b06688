//! Whether what a mapping query calls and reads says the same each time: what only the catalogue of its
//! database knows.

use std::collections::{BTreeSet, HashMap};

use sqlx::{PgConnection, Row, SqliteConnection};

use super::HistoryError;
use super::refuse::{Judged, Refusal, judge_view};
use crate::store::Dialect;

/// Refuses functions that are volatile or take or return many rows.
pub(super) async fn functions(
    conn: &mut PgConnection,
    names: &[String],
) -> Result<(), HistoryError> {
    refuse_functions(conn, names, None).await
}

/// With a view, only volatile ones are refused.
async fn refuse_functions(
    conn: &mut PgConnection,
    names: &[String],
    view: Option<&str>,
) -> Result<(), HistoryError> {
    let found = sqlx::query(
        "select p.proname, case when p.prokind in ('a', 'w') then 'an aggregate'
                                when p.proretset then 'set-returning' else 'volatile' end
         from pg_catalog.pg_proc p where p.proname = any($1)
           and (p.provolatile = 'v' or not $2 and (p.prokind in ('a', 'w') or p.proretset)) limit 1",
    );
    let found = found.bind(names).bind(view.is_some());
    let found = found.fetch_optional(conn).await;
    let Some(row) = found.map_err(HistoryError::Database)? else {
        return Ok(());
    };
    let name: String = row.try_get(0).map_err(HistoryError::Database)?;
    let kind: String = row.try_get(1).map_err(HistoryError::Database)?;
    let place = view.map_or(String::new(), |view| format!("in the view {view}: "));
    Err(HistoryError::misfit(
        "history.query",
        format_args!(
            "{place}{name}() is {kind}; each row must depend on one run alone, the same each time: \
             leave it out"
        ),
    ))
}

// A view depends, by its rule, on what it reads, whatever its text looks like. The history is its table
// with the partitions of it and the tables that it is a partition of.
const BEHIND: &str = "
with recursive below as (
    select ($1::text)::regclass::oid as oid
    union select i.inhrelid from below join pg_catalog.pg_inherits i on i.inhparent = below.oid
), above as (
    select ($1::text)::regclass::oid as oid
    union select i.inhparent from above join pg_catalog.pg_inherits i on i.inhrelid = above.oid
), history as (
    select oid from below union select oid from above
), reads as (
    select r.ev_class as view, d.refobjid as oid
    from pg_catalog.pg_rewrite r join pg_catalog.pg_depend d
      on d.classid = 'pg_catalog.pg_rewrite'::regclass and d.objid = r.oid
     and d.refclassid = 'pg_catalog.pg_class'::regclass and d.refobjid <> r.ev_class
    where r.ev_type = '1'
), behind as (
    select to_regclass(name)::oid as oid, to_regclass(name)::oid as named
    from unnest($2::text[]) as name
    union select reads.oid, behind.named from behind join reads on reads.view = behind.oid
)
select b.named::regclass::text, b.oid::regclass::text,
       b.oid = b.named and b.oid in (select oid from history),
       exists (select from reads join history using (oid) where reads.view = b.oid),
       case when c.relkind in ('v', 'm') then pg_catalog.pg_get_viewdef(c.oid) end
from behind b join pg_catalog.pg_class c on c.oid = b.oid
union all
select c.oid::regclass::text, c.oid::regclass::text, false, false, pg_catalog.pg_get_viewdef(c.oid)
from pg_catalog.pg_class c where c.oid = ($1::text)::regclass and c.relkind in ('v', 'm')
order by 1, 2";

/// Refuses a partition of the history beside `runs`, and views that read the history again, or say
/// something else each time.
pub(super) async fn postgres(
    conn: &mut PgConnection,
    table: &str,
    judged: &Judged,
) -> Result<(), HistoryError> {
    let names: Vec<_> = judged.relation_names().collect();
    let rows = sqlx::query(BEHIND).bind(table).bind(names);
    let rows = rows.fetch_all(&mut *conn).await;
    for row in rows.map_err(HistoryError::Database)? {
        let (named, relation, is_history, reads_history, text) = (|| {
            Ok((
                row.try_get::<String, _>(0)?,
                row.try_get::<String, _>(1)?,
                row.try_get::<bool, _>(2)?,
                row.try_get::<bool, _>(3)?,
                row.try_get::<Option<String>, _>(4)?,
            ))
        })()
        .map_err(HistoryError::Database)?;
        if is_history {
            return Err(Refusal::HistoryTable(relation).into());
        }
        let view = name_of(&relation, &named);
        if reads_history {
            return Err(Refusal::ViewOfHistory(view).into());
        }
        if let Some(text) = text {
            let in_view = |refusal| Refusal::InView(view.clone(), Box::new(refusal));
            let used = judge_view(&text, Dialect::Postgres).map_err(in_view)?;
            refuse_functions(conn, &used.functions, Some(&view)).await?;
        }
    }
    Ok(())
}

/// Refuses views that read the history again, or say something else each time.
pub(super) async fn sqlite(
    conn: &mut SqliteConnection,
    table: &str,
    judged: &Judged,
) -> Result<(), HistoryError> {
    let views = sqlx::query_as("select lower(name), sql from sqlite_schema where type = 'view'");
    let views: Vec<(String, String)> = views
        .fetch_all(conn)
        .await
        .map_err(HistoryError::Database)?;
    let views: HashMap<_, _> = views.into_iter().collect();
    let table = table.to_lowercase();
    let last = |parts: &Vec<String>| parts.last().map(|name| name.to_lowercase());
    let mut open: Vec<_> = judged.relations.iter().filter_map(last).collect();
    open.push(table.clone());
    let mut open: Vec<_> = open.into_iter().map(|name| (name.clone(), name)).collect();
    let mut seen = BTreeSet::new();
    while let Some((relation, named)) = open.pop() {
        let Some(text) = views.get(&relation) else {
            continue;
        };
        let view = name_of(&relation, &named);
        let in_view = |refusal| Refusal::InView(view.clone(), Box::new(refusal));
        let used = judge_view(text, Dialect::Sqlite).map_err(in_view)?;
        for behind in used.relations.iter().filter_map(last) {
            if behind == table {
                return Err(Refusal::ViewOfHistory(view).into());
            }
            if seen.insert(behind.clone()) {
                open.push((behind, named.clone()));
            }
        }
    }
    Ok(())
}

/// A view as it is named in a message, with the one by which the query comes to it.
fn name_of(view: &str, named: &str) -> String {
    match view == named {
        true => format!("`{view}`"),
        false => format!("`{view}` behind `{named}`"),
    }
}
