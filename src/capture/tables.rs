//! The tables that have triggers of capture, and those that should.

use sqlx::{AssertSqlSafe, PgConnection, Row};

use super::change::within_time;
use super::triggers::Table;

/// The history's table and all its partitions and children, parents first.
pub(super) async fn tables(
    conn: &mut PgConnection,
    table: &str,
) -> Result<Vec<Table>, sqlx::Error> {
    let rows = sqlx::query(
        "with recursive tree (oid, depth) as (
             select to_regclass($1)::oid, 0
             union all
             select i.inhrelid, t.depth + 1 from pg_inherits i join tree t on i.inhparent = t.oid
             -- One whose detachment was broken off is read by nobody any more.
             where not i.inhdetachpending
         )
         select c.oid::bigint, format('%I.%I', n.nspname, c.relname),
                c.relkind = 'p' or c.relispartition
         from tree t join pg_class c on c.oid = t.oid join pg_namespace n on n.oid = c.relnamespace
         -- A session's temporary child is seen by that session alone.
         where c.relkind in ('r', 'p') and c.relpersistence <> 't' group by 1, 2, 3 order by min(t.depth), c.oid::bigint",
    );
    let rows = rows.bind(table).fetch_all(conn).await?;
    let table = |row: &sqlx::postgres::PgRow| {
        Ok(Table {
            oid: row.try_get(0)?,
            name: row.try_get(1)?,
            is_partitioned: row.try_get(2)?,
        })
    };
    rows.iter().map(table).collect()
}

/// Triggers `t` of ours, wherever they are and whatever they are called: those that call our functions.
/// `c` and `n` are their tables and the schemas of these.
const OURS: &str = "pg_trigger t
    join pg_proc p on p.oid = t.tgfoid and p.proname like 'capture\\_%'
    join pg_namespace o on o.oid = p.pronamespace and o.nspname = 'recents'
    join pg_class c on c.oid = t.tgrelid join pg_namespace n on n.oid = c.relnamespace";

/// Triggers of ours on tables that are no part of the history, such as detached partitions: the
/// trigger, and its table.
pub(super) async fn strays(
    conn: &mut PgConnection,
    tables: &[Table],
) -> Result<Vec<(String, String)>, sqlx::Error> {
    let known: Vec<i64> = tables.iter().map(|table| table.oid).collect();
    let strays = format!(
        "select quote_ident(t.tgname), format('%I.%I', n.nspname, c.relname)
         from {OURS} where c.oid::bigint <> all($1) order by 2, 1"
    );
    let strays = sqlx::query_as(AssertSqlSafe(strays));
    strays.bind(known).fetch_all(conn).await
}

/// Every trigger of ours, and its table, parents before their partitions.
pub(super) async fn ours(conn: &mut PgConnection) -> Result<Vec<(String, String)>, sqlx::Error> {
    let ours = format!(
        "with recursive up (oid, ancestor, depth) as (
             select c.oid, c.oid, 0 from {OURS}
             union
             select u.oid, i.inhparent, u.depth + 1
             from up u join pg_inherits i on i.inhrelid = u.ancestor
         )
         select quote_ident(t.tgname), format('%I.%I', n.nspname, c.relname)
         from {OURS} order by (select max(u.depth) from up u where u.oid = c.oid), c.oid, 1"
    );
    sqlx::query_as(AssertSqlSafe(ours)).fetch_all(conn).await
}

/// Whether the role may do with every table that has a trigger of ours what its owner may.
pub(super) async fn owns_tables(conn: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let owns =
        format!("select coalesce(bool_and(pg_has_role(c.relowner, 'usage')), true) from {OURS}");
    sqlx::query_scalar(AssertSqlSafe(owns))
        .fetch_one(conn)
        .await
}

/// Statements that drop the triggers on what is no part of the history.
pub(super) async fn drop_strays(
    conn: &mut PgConnection,
    tables: &[Table],
) -> Result<String, sqlx::Error> {
    let strays = strays(conn, tables).await?;
    let drop = |(trigger, table)| within_time(1) + &format!("drop trigger {trigger} on {table};\n");
    Ok(strays.into_iter().map(drop).collect())
}

/// Parts of the history's table that are foreign tables.
pub(super) async fn foreign_parts(
    conn: &mut PgConnection,
    table: &str,
) -> Result<Vec<String>, sqlx::Error> {
    let parts = sqlx::query_scalar(
        "with recursive tree (oid) as (
             select to_regclass($1)::oid
             union select i.inhrelid from pg_inherits i join tree t on i.inhparent = t.oid
             where not i.inhdetachpending
         )
         select format('%I.%I', n.nspname, c.relname)
         from tree t join pg_class c on c.oid = t.oid join pg_namespace n on n.oid = c.relnamespace
         where c.relkind = 'f' order by 1",
    );
    parts.bind(table).fetch_all(conn).await
}

/// Parts of the history's table, itself included, that are parts of something else as well: name, and of what in the
/// end.
pub(super) async fn parts_of_others(
    conn: &mut PgConnection,
    table: &str,
) -> Result<Vec<(String, String)>, sqlx::Error> {
    let parts = sqlx::query_as(
        "with recursive tree (oid) as (
             select to_regclass($1)::oid
             union select i.inhrelid from pg_inherits i join tree t on i.inhparent = t.oid
             where not i.inhdetachpending
         )
         , other (oid, top) as (
             select i.inhrelid, i.inhparent from pg_inherits i
             where i.inhrelid in (select oid from tree) and i.inhparent not in (select oid from tree)
             union select o.oid, i.inhparent from other o join pg_inherits i on i.inhrelid = o.top
         )
         select format('%I.%I', n.nspname, c.relname), o.top::regclass::text
         from other o join pg_class c on c.oid = o.oid join pg_namespace n on n.oid = c.relnamespace
         where not exists (select from pg_inherits i where i.inhrelid = o.top) order by 1, 2",
    );
    parts.bind(table).fetch_all(conn).await
}

/// What is wrong with a part of `other`.
pub(super) fn is_of_another(other: &str) -> String {
    format!(
        "it is a part of {other}, too: what is written through {other} is told to the triggers of that alone; \
         name {other} in [history], with a query that leaves out what is no run, or end that"
    )
}

/// What is wrong with such a part.
pub(super) const IS_FOREIGN: &str = "it is a foreign table: PostgreSQL does not tell triggers what \
    changes in it, and would refuse the application's own statements; detach it";
