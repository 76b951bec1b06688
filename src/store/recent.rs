//! The table: the newest use per scope and published run.

use std::collections::HashMap;

use sqlx::Row;

use super::rows::{BindRows, Rows};
use super::statement::{Dialect, Statement, clamped};
use super::tx::Forgetting;
use super::{Conn, Store, StoreError, Tx, dismissal, on_both};
use crate::cache::{Changed, Reason};
use crate::model::{Id, Key, Newest, Time};

/// Keys of one statement at the most: a whole request of 1,000 uses with a user each, so that a
/// request is one transaction. Statements of about this size write the most rows per second.
pub const MAX_KEYS: usize = 2_000;

pub(super) const STATEMENTS: [&Statement; 11] = [
    &RAISE,
    &ROWS_OF_KEYS,
    &ROWS_AFTER,
    &ROWS_OF_WORKSPACE_AFTER,
    &LOWER,
    &REMOVE,
    &ANALYZE,
    &LOCK_ROWS,
    &ROWS_OF_RUNS,
    &COUNT,
    &FURTHEST_AHEAD,
];

// The row is looked at before it is locked: a conflicting insert whose `where` is false still locks
// the row and burns a transaction id. A scalar subquery, because a join could be planned as a scan
// of the whole table. What is hidden for good is not written at all, so that no list fills up with
// it; reads do not rely on that. Sorted, so that two flushes never lock the same rows in opposite orders.
static RAISE: Statement = Statement::new("raise", || {
    format!(
        "insert into {{recents}}recent_workflow as t (workspace, uid, published_run, last_used_at, run)
     select u.workspace, u.uid, u.published_run, u.last_used_at, u.run from {{uses}} as u
     where not coalesce((
         select (r.last_used_at, coalesce(r.run, '')) >= (u.last_used_at, coalesce(u.run, ''))
         from {{recents}}recent_workflow as r
         where r.workspace = u.workspace and r.uid = u.uid and r.published_run = u.published_run
     ), false)
     and {} and {}
     order by 1, 2, 3
     on conflict (workspace, uid, published_run) do update
     set last_used_at = excluded.last_used_at, run = excluded.run
     where (excluded.last_used_at, coalesce(excluded.run, '')) > (t.last_used_at, coalesce(t.run, ''))
     returning workspace, uid, published_run",
        dismissal::after_the_lists("u.last_used_at", "u.workspace", "u.uid"),
        dismissal::after_the_items("u"),
    )
});

// `cross join` is where SQLite keeps the order of a join: it reads the keys and finds the row of each.
static ROWS_OF_KEYS: Statement = Statement::new("rows_of_keys", || {
    "select t.workspace, t.uid, t.published_run, t.last_used_at, t.run from {keys} as k
     cross join {recents}recent_workflow as t
     where t.workspace = k.workspace and t.uid = k.uid and t.published_run = k.published_run"
        .into()
});

static ROWS_AFTER: Statement = Statement::new("rows_after", || {
    "select workspace, uid, published_run, last_used_at, run from {recents}recent_workflow
     where (workspace, uid, published_run) > ($1, $2, $3)
     order by workspace, uid, published_run limit $4"
        .into()
});

static FURTHEST_AHEAD: Statement = Statement::new("furthest_ahead", || {
    "select workspace, uid, published_run, last_used_at, run from {recents}recent_workflow
     where last_used_at > $1 order by last_used_at desc limit 1"
        .into()
});

static ROWS_OF_WORKSPACE_AFTER: Statement = Statement::new("rows_of_workspace_after", || {
    "select workspace, uid, published_run, last_used_at, run from {recents}recent_workflow
     where workspace = $1 and (uid, published_run) > ($2, $3)
     order by workspace, uid, published_run limit $4"
        .into()
});

// Not an update from the swaps: SQLite would choose the order of that join. The rows are locked where they
// are read, so that they are as they were seen when they are written.
static LOWER: Statement = Statement::new("lower", || {
    format!(
        "insert into {{recents}}recent_workflow (workspace, uid, published_run, last_used_at, run)
     select s.workspace, s.uid, s.published_run, s.last_used_at, s.run from {{swaps}} as s
     cross join {{recents}}recent_workflow as t
     where t.workspace = s.workspace and t.uid = s.uid and t.published_run = s.published_run
       and {} = s.seen_last_used_at and coalesce(t.run, '') = coalesce(s.seen_run, '')
     order by 1, 2, 3 {{lock}}
     on conflict (workspace, uid, published_run) do update
     set last_used_at = excluded.last_used_at, run = excluded.run",
        clamped("t.last_used_at")
    )
});

static REMOVE: Statement = Statement::new("remove", || {
    format!(
        "delete from {{recents}}recent_workflow
     where (workspace, uid, published_run, {}, coalesce(run, '')) in (
         select u.workspace, u.uid, u.published_run, u.last_used_at, coalesce(u.run, '')
         from {{uses}} as u)",
        clamped("last_used_at")
    )
});

// Sorted, as every writer locks rows.
static LOCK_ROWS: Statement = Statement::new("lock_rows", || {
    "select t.workspace, t.uid, t.published_run, t.last_used_at, t.run from {keys} as k
     cross join {recents}recent_workflow as t
     where t.workspace = k.workspace and t.uid = k.uid and t.published_run = k.published_run
     order by 1, 2, 3 {lock}"
        .into()
});

static ROWS_OF_RUNS: Statement = Statement::new("rows_of_runs", || {
    "select t.workspace, t.uid, t.published_run, t.last_used_at, t.run
     from {recents}recent_workflow as t {by_run} where t.run {is_one_of_runs}"
        .into()
});

// SQLite finds its way without, and statistics of a small table are wrong as soon as it has grown.
static ANALYZE: Statement =
    Statement::new("analyze", || "analyze {recents}recent_workflow".into()).only(Dialect::Postgres);

static COUNT: Statement = Statement::new("count_rows", || {
    "select count(*) from {recents}recent_workflow".into()
});

/// How many rows there are; reads them all.
pub(crate) async fn count(store: &Store) -> Result<u64, StoreError> {
    on_both!(Store, store, |pool, dialect| {
        let row = sqlx::query(COUNT.run(dialect)).fetch_one(pool).await?;
        Ok(row.try_get::<i64, _>(0)?.unsigned_abs())
    })
}

/// Tells PostgreSQL what the table holds now. Without statistics it may sort a whole list to read the
/// newest few of it.
pub(crate) async fn analyze(store: &Store) -> Result<(), StoreError> {
    on_both!(Store, store, |pool, dialect| {
        if ANALYZE.is_for(dialect) {
            sqlx::query(ANALYZE.run(dialect)).execute(pool).await?;
        }
    });
    Ok(())
}

/// The key of a row that begins with `workspace, uid, published_run`, of either database.
macro_rules! key_of {
    ($row:expr) => {
        Ok(Key::new(
            $row.try_get(0)?,
            $row.try_get(1)?,
            $row.try_get(2)?,
        ))
    };
}

/// A row `workspace, uid, published_run, last_used_at, run` of either database.
macro_rules! row_of {
    ($row:expr) => {{
        let run = $row.try_get::<Option<&str>, _>(4)?.map(Box::from);
        let key: Result<Key, sqlx::Error> = key_of!($row);
        Ok((
            key?,
            Newest {
                last_used_at: $row.try_get(3)?,
                run,
            },
        ))
    }};
}

/// Raises rows to these uses, in one statement: inserts what is missing, replaces what is older.
/// Returns the keys whose rows changed. All their lists are forgotten: also a use that is outdone is
/// acknowledged, by a row that this process may not have read yet.
///
/// `uses` are sorted by key, no key twice, at most [`MAX_KEYS`].
pub(crate) async fn raise(tx: &mut Tx, uses: &[(Key, Newest)]) -> Result<Vec<Key>, StoreError> {
    let raised = raise_rows(tx.conn(), uses).await?;
    tx.changes(rows_of(uses), Reason::Write);
    Ok(raised)
}

/// The same, in a transaction of its own.
pub(crate) async fn raise_alone(
    store: &Store,
    uses: &[(Key, Newest)],
) -> Result<Vec<Key>, StoreError> {
    match store {
        Store::Postgres(pool, _) if !pool.behind_pooler => {
            let mut session = store.acquire().await?;
            let _behind = Forgetting {
                store,
                changed: vec![(rows_of(uses), Reason::Write)],
            };
            raise_rows(session.conn(), uses).await
        }
        _ => {
            let mut tx = store.begin().await?;
            let raised = raise(&mut tx, uses).await?;
            tx.commit().await?;
            Ok(raised)
        }
    }
}

fn rows_of(uses: &[(Key, Newest)]) -> Changed {
    Changed::Rows(uses.iter().map(|(key, _)| key.clone()).collect())
}

async fn raise_rows(conn: Conn<'_>, uses: &[(Key, Newest)]) -> Result<Vec<Key>, StoreError> {
    let rows = Rows::keys(uses.iter().map(|(key, _)| key)).newest(uses.iter().map(|(_, n)| n));
    on_both!(Conn, conn, |conn, dialect| {
        let rows = sqlx::query(RAISE.run(dialect))
            .bind_rows(rows)
            .fetch_all(conn)
            .await?;
        rows.iter().map(|row| key_of!(row)).collect()
    })
}

/// A row of the table.
pub(crate) type RecentRow = (Key, Newest);

/// The rows of these keys, in no order; keys without a row have none.
pub(crate) async fn rows_of_keys<'a>(
    store: &Store,
    keys: impl Iterator<Item = &'a Key> + Clone,
) -> Result<Vec<RecentRow>, StoreError> {
    let rows = Rows::keys(keys);
    on_both!(Store, store, |pool, dialect| {
        let rows = sqlx::query(ROWS_OF_KEYS.run(dialect))
            .bind_rows(rows)
            .fetch_all(pool)
            .await?;
        rows.iter().map(|row| row_of!(row)).collect()
    })
}

/// The rows of these keys, locked until the transaction ends.
pub(crate) async fn lock_rows(
    conn: Conn<'_>,
    keys: impl Iterator<Item = &Key> + Clone,
) -> Result<Vec<RecentRow>, StoreError> {
    let rows = Rows::keys(keys);
    on_both!(Conn, conn, |conn, dialect| {
        let rows = sqlx::query(LOCK_ROWS.run(dialect)).bind_rows(rows);
        let rows = rows.fetch_all(conn).await?;
        rows.iter().map(|row| row_of!(row)).collect()
    })
}

/// The rows that name one of these runs.
pub(crate) async fn rows_of_runs(
    conn: Conn<'_>,
    runs: impl Iterator<Item = &str>,
) -> Result<Vec<RecentRow>, StoreError> {
    let rows = Rows::runs(runs);
    on_both!(Conn, conn, |conn, dialect| {
        let rows = sqlx::query(ROWS_OF_RUNS.run(dialect)).bind_rows(rows);
        let rows = rows.fetch_all(conn).await?;
        rows.iter().map(|row| row_of!(row)).collect()
    })
}

/// The next `limit` rows behind `after` in the order of keys, of all workspaces or of one.
pub(crate) async fn rows_after(
    store: &Store,
    workspace: Option<&Id>,
    after: Option<&Key>,
    limit: u32,
) -> Result<Vec<RecentRow>, StoreError> {
    let (after_workspace, uid, published_run) = after.map_or(("", "", ""), Key::parts);
    on_both!(Store, store, |pool, dialect| {
        let query = match workspace {
            None => sqlx::query(ROWS_AFTER.run(dialect)).bind(after_workspace),
            Some(workspace) => {
                sqlx::query(ROWS_OF_WORKSPACE_AFTER.run(dialect)).bind(workspace.as_str())
            }
        };
        let query = query.bind(uid).bind(published_run).bind(i64::from(limit));
        let rows = query.fetch_all(pool).await?;
        rows.iter().map(|row| row_of!(row)).collect()
    })
}

/// The row with the latest time, where one is behind `time`. Reads the whole table.
pub(crate) async fn furthest_ahead(
    store: &Store,
    time: Time,
) -> Result<Option<RecentRow>, StoreError> {
    on_both!(Store, store, |pool, dialect| {
        let query = sqlx::query(FURTHEST_AHEAD.run(dialect)).bind(time);
        let row = query.fetch_optional(pool).await?;
        row.map(|row| row_of!(row)).transpose()
    })
}

/// A row as it was seen, and what it should be instead.
pub(crate) struct Swap {
    /// The row's key.
    pub(crate) key: Key,
    /// What it said when it was looked at.
    pub(crate) seen: Newest,
    /// What it should say.
    pub(crate) becomes: Newest,
}

/// Replaces rows that still are as they were seen; others are left alone.
pub(crate) async fn lower(tx: &mut Tx, swaps: &[Swap]) -> Result<(), StoreError> {
    let keys = swaps.iter().map(|swap| swap.key.clone()).collect();
    tx.changes(Changed::Rows(keys), Reason::Write);
    let rows = Rows::keys(swaps.iter().map(|s| &s.key))
        .newest(swaps.iter().map(|s| &s.becomes))
        .newest(swaps.iter().map(|s| &s.seen));
    on_both!(Conn, tx.conn(), |conn, dialect| {
        sqlx::query(LOWER.run(dialect))
            .bind_rows(rows)
            .execute(conn)
            .await?;
    });
    Ok(())
}

/// Removes rows that still are as they were seen; others are left alone.
pub(crate) async fn remove(tx: &mut Tx, seen: &[RecentRow]) -> Result<(), StoreError> {
    tx.changes(rows_of(seen), Reason::Write);
    let rows = Rows::keys(seen.iter().map(|(key, _)| key)).newest(seen.iter().map(|(_, n)| n));
    on_both!(Conn, tx.conn(), |conn, dialect| {
        sqlx::query(REMOVE.run(dialect))
            .bind_rows(rows)
            .execute(conn)
            .await?;
    });
    Ok(())
}

/// A use that its row does not know yet, and what the row says instead.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Outdone {
    /// The key of both.
    pub(crate) key: Key,
    /// The use.
    pub(crate) newest: Newest,
    /// The row; `None` where there is none.
    pub(crate) row: Option<Newest>,
}

/// Of these uses, at most [`MAX_KEYS`], those that [`raise`] would write: the complete-check. What was
/// dismissed is missed nowhere.
pub(crate) async fn outdone(
    store: &Store,
    uses: &[(Key, Newest)],
) -> Result<Vec<Outdone>, StoreError> {
    let rows = rows_of_keys(store, uses.iter().map(|(key, _)| key)).await?;
    let mut rows: HashMap<Key, Newest> = rows.into_iter().collect();
    let outdone = uses.iter().filter_map(|(key, newest)| {
        let row = rows.remove(key);
        let known = row.as_ref().is_some_and(|row| row >= newest);
        (!known).then(|| Outdone {
            key: key.clone(),
            newest: newest.clone(),
            row,
        })
    });
    let mut outdone: Vec<Outdone> = outdone.collect();
    if !outdone.is_empty() {
        let until = dismissal::of_keys(store, outdone.iter().map(|o| &o.key)).await?;
        let is_hidden = |o: &Outdone| until.get(&o.key) >= Some(&o.newest.last_used_at);
        outdone.retain(|o| !is_hidden(o));
    }
    Ok(outdone)
}
