//! What the keys of a history are ordered by. A walk ends its windows with keys: where another order comes
//! upon it, it passes over what lies before its place in the one and behind it in the other.

use std::sync::Arc;

use sqlx::{AssertSqlSafe, PgConnection, SqliteConnection, query_scalar};

use super::HistoryError;
use super::id_type::IdType;

/// The name of an order, other than that of any other.
pub(crate) type Order = Arc<str>;

/// That of a column of PostgreSQL, as this transaction finds it: it has the table locked. Texts are ordered by
/// a collation, and that by the version of its library.
pub(super) async fn postgres(
    conn: &mut PgConnection,
    table: &str,
    key: &str,
    of: IdType,
) -> Result<Order, HistoryError> {
    match of {
        IdType::Int2 | IdType::Int4 | IdType::Int8 => return Ok("numbers".into()),
        IdType::Uuid => return Ok("uuids".into()),
        IdType::Text | IdType::Other => {}
    }
    // PostgreSQL 14 does not tell the version of a database's own collation.
    let of_database = match conn.server_version_num() {
        Some(150_000..) => "pg_catalog.pg_database_collation_actual_version(d.oid)",
        _ => "null",
    };
    let order = AssertSqlSafe(format!(
        "select concat_ws(' ', 'texts by', a.attcollation,
                          coalesce(pg_catalog.pg_collation_actual_version(a.attcollation), {of_database}))
         from pg_catalog.pg_attribute a, pg_catalog.pg_database d
         where a.attrelid = to_regclass($1) and a.attname = (parse_ident($2))[1]
           and d.datname = current_database()"
    ));
    let order = query_scalar(order).bind(table).bind(key);
    let order: String = order
        .persistent(false)
        .fetch_one(conn)
        .await
        .map_err(HistoryError::Database)?;
    Ok(order.into())
}

/// That of a column of SQLite, which is asked how it compares, because nothing says what collation it has: a
/// union compares as the first of its parts does.
pub(super) async fn sqlite(
    conn: &mut SqliteConnection,
    table: &str,
    key: &str,
) -> Result<Order, HistoryError> {
    // As a number, without case, without the blanks at its end.
    let order = AssertSqlSafe(format!(
        "select 'compares as ' || group_concat(('10' > k) || (k = 'A') || (k = 'a '), ' ')
         from (select h.{key} as k from {table} as h where 0 union all values (9), ('a'))"
    ));
    let order = query_scalar(order).fetch_one(conn).await;
    let order: String = order.map_err(HistoryError::Database)?;
    Ok(order.into())
}
