//! What can go without anybody noticing: rows that stay hidden, and watermarks that hide nothing more.
//!
//! Neither brings an item back. A row goes only while it is hidden, asked of the row itself, and whatever
//! it outdid is older and hidden too. A watermark goes only where another one, which stays, hides as much.

use sqlx::Row;

use super::dismissal::{after_the_items, after_the_lists, until};
use super::rows::{BindRows, Rows};
use super::statement::Statement;
use super::{Conn, Store, StoreError, on_both};
use crate::model::Key;

pub(super) const STATEMENTS: [&Statement; 5] =
    [&HIDDEN_AFTER, &SWEEP, &SWEEP_ITEM, &NEEDLESS_AFTER, &PRUNE];

fn is_hidden() -> String {
    format!(
        "not ({} and {})",
        after_the_lists("t.last_used_at", "t.workspace", "t.uid"),
        after_the_items("t"),
    )
}

/// An item's watermark that is not above its list's, or the one for every list.
fn is_needless() -> String {
    format!(
        "coalesce(t.workspace <> '' and t.published_run <> '' and (t.until <= {} or t.until <= {}), false)",
        until("t.workspace", "t.uid", "''"),
        until("''", "''", "t.published_run"),
    )
}

static HIDDEN_AFTER: Statement =
    Statement::new("hidden_after", || part("recent_workflow", &is_hidden()));

static NEEDLESS_AFTER: Statement =
    Statement::new("needless_after", || part("dismissal", &is_needless()));

// Those of the next `$4` rows that are so, and the last of them all, from where to go on.
fn part(table: &str, is_so: &str) -> String {
    format!(
        "select p.workspace, p.uid, p.published_run, p.is_so, p.n = $4 from (
             select t.workspace, t.uid, t.published_run, {is_so} as is_so,
                    row_number() over (order by t.workspace, t.uid, t.published_run) as n
             from (select * from {{recents}}{table} where (workspace, uid, published_run) > ($1, $2, $3)
                   order by workspace, uid, published_run limit $4) as t
         ) as p
         where p.is_so or p.n = $4"
    )
}

static SWEEP: Statement = Statement::new("sweep", || delete_hidden("{keys}"));

static SWEEP_ITEM: Statement = Statement::new("sweep_item", || delete_hidden("{key}"));

// Sorted, as every writer locks rows; one that a writer has is left to the next sweep, and one that
// rises meanwhile is asked again.
fn delete_hidden(keys: &str) -> String {
    format!(
        "delete from {{recents}}recent_workflow as t
         where (t.workspace, t.uid, t.published_run) in (
             select t.workspace, t.uid, t.published_run from {keys} as k
             cross join {{recents}}recent_workflow as t
             where t.workspace = k.workspace and t.uid = k.uid and t.published_run = k.published_run
             order by 1, 2, 3 {{lock_free}})
           and {}",
        is_hidden(),
    )
}

static PRUNE: Statement = Statement::new("prune_dismissals", || {
    format!(
        "delete from {{recents}}dismissal as t
         where (t.workspace, t.uid, t.published_run) in (
             select k.workspace, k.uid, k.published_run from {{keys}} as k)
           and {}",
        is_needless(),
    )
});

/// What was found in a part of a table, in the order of keys.
#[derive(Debug, Default)]
pub(crate) struct Part {
    /// What can go.
    pub(crate) keys: Vec<Key>,
    /// The part's last key; `None` at the end of the table.
    pub(crate) last: Option<Key>,
}

/// Finds the hidden ones among the next `rows` rows behind `after`.
pub(crate) async fn hidden_after(
    store: &Store,
    after: &Key,
    rows: u32,
) -> Result<Part, StoreError> {
    part_after(store, &HIDDEN_AFTER, after, rows).await
}

/// Finds the needless ones among the next `rows` watermarks behind `after`.
pub(crate) async fn needless_after(
    store: &Store,
    after: &Key,
    rows: u32,
) -> Result<Part, StoreError> {
    part_after(store, &NEEDLESS_AFTER, after, rows).await
}

async fn part_after(
    store: &Store,
    statement: &'static Statement,
    after: &Key,
    rows: u32,
) -> Result<Part, StoreError> {
    let (workspace, uid, published_run) = after.parts();
    on_both!(Store, store, |pool, dialect| {
        let query = sqlx::query(statement.run(dialect))
            .bind(workspace)
            .bind(uid)
            .bind(published_run)
            .bind(i64::from(rows));
        let mut part = Part::default();
        for row in query.fetch_all(pool).await? {
            let key = Key::new(row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            if row.try_get(4)? {
                part.last = Some(key.clone());
            }
            if row.try_get(3)? {
                part.keys.push(key);
            }
        }
        Ok(part)
    })
}

/// Deletes those rows of these keys, at most [`super::recent::MAX_KEYS`], that are hidden, without
/// waiting for writers; returns how many.
pub(crate) async fn sweep<'a>(
    conn: Conn<'_>,
    keys: impl Iterator<Item = &'a Key> + Clone,
) -> Result<u64, StoreError> {
    delete(conn, &SWEEP, keys).await
}

/// The same of one key.
pub(crate) async fn sweep_item(store: &Store, key: &Key) -> Result<(), StoreError> {
    let (workspace, uid, published_run) = key.parts();
    let mut tx = store.begin().await?;
    on_both!(Conn, tx.conn(), |conn, dialect| {
        let sweep = sqlx::query(SWEEP_ITEM.run(dialect))
            .bind(workspace)
            .bind(uid)
            .bind(published_run);
        sweep.execute(conn).await?;
    });
    tx.commit().await
}

/// Deletes those watermarks of these keys, at most [`super::recent::MAX_KEYS`], that are needless;
/// returns how many.
pub(crate) async fn prune<'a>(
    conn: Conn<'_>,
    keys: impl Iterator<Item = &'a Key> + Clone,
) -> Result<u64, StoreError> {
    delete(conn, &PRUNE, keys).await
}

async fn delete<'a>(
    conn: Conn<'_>,
    statement: &'static Statement,
    keys: impl Iterator<Item = &'a Key> + Clone,
) -> Result<u64, StoreError> {
    let rows = Rows::keys(keys);
    on_both!(Conn, conn, |conn, dialect| {
        let delete = sqlx::query(statement.run(dialect)).bind_rows(rows);
        Ok(delete.execute(conn).await?.rows_affected())
    })
}
