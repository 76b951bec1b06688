//! Removing capture. It asks the catalogue for everything that is of ours, and the configuration for
//! nothing but the database: the mapping may no longer fit, the table may be gone or have another name.

use sqlx::{AssertSqlSafe, PgConnection, PgPool};

use super::change::{self, CHANGE_WITHIN, patiently};
use super::error::{CaptureError, by_hand};
use super::tables::{ours, owns_tables};
use super::triggers::owner_in_sql;

/// Whether the schema is there and nothing is in it.
const SCHEMA_IS_EMPTY: &str = "select exists (select from pg_namespace where nspname = 'recents')
    and not exists (
        select from pg_depend d join pg_namespace n
          on d.refclassid = 'pg_namespace'::regclass and d.refobjid = n.oid
        where n.nspname = 'recents')";

/// Removes every trace, in one transaction; returns whether there was any.
///
/// # Errors
/// [`CaptureError`]; nothing is changed then.
pub async fn uninstall(pool: &PgPool) -> Result<bool, CaptureError> {
    let once = async || {
        let mut tx = change::begin(pool).await?;
        let sql = statements(&mut tx).await?;
        let there = !sql.is_empty();
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *tx).await?;
        // Ours as long as something else of ours is in it.
        let is_empty = sqlx::query_scalar(SCHEMA_IS_EMPTY);
        if there && is_empty.fetch_one(&mut *tx).await? {
            sqlx::raw_sql("drop schema recents")
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await?;
        Ok(there)
    };
    let tables = tables(pool).await.map_err(CaptureError::Database)?;
    let done = patiently(pool, &tables, once).await;
    done.map_err(|error| CaptureError::of(error, &tables.join(", "), by_hand("uninstall")))
}

/// The identity of the store that takes the notes, where one is recorded.
///
/// # Errors
/// [`CaptureError::Database`].
pub async fn owner(pool: &PgPool) -> Result<Option<String>, CaptureError> {
    let owner = AssertSqlSafe(format!("select {}", owner_in_sql()));
    let owner = sqlx::query_scalar(owner).fetch_one(pool).await;
    owner.map_err(CaptureError::Database)
}

/// The statements that remove it.
///
/// # Errors
/// [`CaptureError::Database`].
pub async fn uninstall_sql(pool: &PgPool) -> Result<String, CaptureError> {
    let done = async { statements(&mut *pool.acquire().await?).await };
    let sql = done.await.map_err(CaptureError::Database)?;
    let timeout = CHANGE_WITHIN.as_millis();
    Ok(format!(
        "begin;\nset local lock_timeout = '{timeout}ms';\n{sql}do $recents$ begin
  if ({SCHEMA_IS_EMPTY}) then
    drop schema recents;
  end if;
end $recents$;
commit;\n"
    ))
}

/// The tables that have triggers of ours.
async fn tables(pool: &PgPool) -> Result<Vec<String>, sqlx::Error> {
    let ours = ours(&mut *pool.acquire().await?).await?;
    let mut tables: Vec<_> = ours.into_iter().map(|(_, table)| table).collect();
    tables.dedup();
    Ok(tables)
}

/// Statements that drop what is there; empty where nothing is. The tables are locked first, parents
/// before their partitions, as by everybody who writes them, and the outbox behind them. A role that may
/// not do that, but owns the functions, drops the triggers with them.
async fn statements(conn: &mut PgConnection) -> Result<String, sqlx::Error> {
    let triggers = ours(conn).await?;
    let mut tables: Vec<&String> = triggers.iter().map(|(_, table)| table).collect();
    tables.dedup();
    let mut before = String::new();
    let cascade = match owns_tables(conn).await? {
        true => {
            for table in tables {
                before += &change::within_time(1);
                before += &format!("lock table only {table} in access exclusive mode;\n");
            }
            for (trigger, table) in &triggers {
                before += &format!("drop trigger {trigger} on {table};\n");
            }
            ""
        }
        // The first function that goes takes every table's lock.
        false => {
            before += &change::within_time(tables.len().max(1));
            " cascade"
        }
    };
    // Of the catalogue, which every role may read.
    let rest: Vec<String> = sqlx::query_scalar(
        "select format('drop function recents.%I()%s;', p.proname, $1) || E'\\n'
         from pg_proc p join pg_namespace n on n.oid = p.pronamespace
         where n.nspname = 'recents' and p.proname like 'capture\\_%'
         union all
         select E'drop table recents.outbox;\\n'
         from pg_class c join pg_namespace n on n.oid = c.relnamespace
         where n.nspname = 'recents' and c.relname = 'outbox'",
    )
    .bind(cascade)
    .fetch_all(conn)
    .await?;
    Ok(before + &rest.concat())
}
