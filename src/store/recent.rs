//! The table: the newest use per scope and published run.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::Row;

use super::rows::{BindRows, Rows};
use super::statement::Statement;
use super::{Conn, Store, StoreError, dismissal, on_both};
use crate::model::{Id, Key, Newest, Scope, Time};

/// Keys of one statement at the most: a whole request of 1,000 uses with a user each, so that a
/// request is one transaction. Statements of about this size write the most rows per second.
pub const MAX_KEYS: usize = 2_000;
/// Scopes of one read at the most.
pub const MAX_SCOPES: usize = 100;
/// A read is one of so many statements, by the number of its scopes, and filled up with empty ones: few
/// prepared statements, and few wasted branches. The first is the first page of one list, which is nearly
/// every read: looking behind an item, as the others do, would be a twelfth of it.
const READ_SIZES: [usize; 4] = [1, 1, 10, MAX_SCOPES];
const FIRST_PAGE: usize = 0;

pub(super) const STATEMENTS: [&Statement; 17] = [
    &RAISE,
    &READS[0],
    &READS[1],
    &READS[2],
    &READS[3],
    &VISIBLE_READS[0],
    &VISIBLE_READS[1],
    &VISIBLE_READS[2],
    &VISIBLE_READS[3],
    &ROWS_OF_KEYS,
    &ROWS_AFTER,
    &ROWS_OF_WORKSPACE_AFTER,
    &LOWER,
    &REMOVE,
    &ANALYZE,
    &LOCK_ROWS,
    &ROWS_OF_RUNS,
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

// Where nothing was ever dismissed, asking each item whether it was is a quarter of a read. So the first
// statement only asks whether anything is: where nothing is, in the same snapshot, its answer is right.
static READS: [Statement; READ_SIZES.len()] = [
    Statement::new("read_1", || read(0)),
    Statement::new("next_1", || read(1)),
    Statement::new("read_10", || read(2)),
    Statement::new("read_100", || read(3)),
];

static VISIBLE_READS: [Statement; READ_SIZES.len()] = [
    Statement::new("visible_1", || read_visible(0)),
    Statement::new("visible_next_1", || read_visible(1)),
    Statement::new("visible_10", || read_visible(2)),
    Statement::new("visible_100", || read_visible(3)),
];

/// Whether this process saw that something is dismissed, anywhere: only a hint, which saves the first
/// statement of each later read.
static SEEN_DISMISSED: AtomicBool = AtomicBool::new(false);

/// In place of a list's number: something is dismissed.
const DISMISSED: i32 = -1;

/// Has later reads of this process expect that something is dismissed.
pub(super) fn expect_dismissed() {
    SEEN_DISMISSED.store(true, Ordering::Relaxed);
}

// Said in the rows of one list, in a row of its own beside several: each is what costs the least there.
fn read(which: usize) -> String {
    let any = "exists (select 1 from {recents}dismissal)";
    let all = |_: &str, _: &str| "true".into();
    match READ_SIZES[which] {
        1 => ranges(
            which,
            |at| format!("case when {any} then {DISMISSED} else {at} end"),
            all,
        ),
        _ => format!(
            "{} union all select {DISMISSED}, null, null, null where {any}",
            ranges(which, |at| at.to_string(), all)
        ),
    }
}

fn read_visible(which: usize) -> String {
    ranges(
        which,
        |at| at.to_string(),
        |workspace, uid| {
            format!(
                "{} and {}",
                dismissal::after_the_lists("r.last_used_at", workspace, uid),
                dismissal::after_the_items("r"),
            )
        },
    )
}

// One range of the index per scope. UNION ALL instead of LATERAL, which SQLite and Citus lack.
fn ranges(
    which: usize,
    number: impl Fn(usize) -> String,
    visible: impl Fn(&str, &str) -> String,
) -> String {
    let scope = |at: usize| {
        let [workspace, uid, time, published_run] =
            [2, 3, 4, 5].map(|n| format!("${}", at * 4 + n));
        let behind = match which {
            FIRST_PAGE => String::new(),
            _ => format!("and (r.last_used_at, r.published_run) < ({time}, {published_run})"),
        };
        format!(
            "select * from (
                 select {} as list, r.published_run, r.last_used_at, r.run
                 from {{recents}}recent_workflow as r
                 where r.workspace = {workspace} and r.uid = {uid} {behind}
                   and {}
                 order by r.last_used_at desc, r.published_run desc limit $1
             ) as list_{at}",
            number(at),
            visible(&workspace, &uid),
        )
    };
    (0..READ_SIZES[which])
        .map(scope)
        .collect::<Vec<_>>()
        .join(" union all ")
}

static ROWS_OF_KEYS: Statement = Statement::new("rows_of_keys", || {
    "select t.workspace, t.uid, t.published_run, t.last_used_at, t.run from {keys} as k
     join {recents}recent_workflow as t
       on t.workspace = k.workspace and t.uid = k.uid and t.published_run = k.published_run"
        .into()
});

static ROWS_AFTER: Statement = Statement::new("rows_after", || {
    "select workspace, uid, published_run, last_used_at, run from {recents}recent_workflow
     where (workspace, uid, published_run) > ($1, $2, $3)
     order by workspace, uid, published_run limit $4"
        .into()
});

static ROWS_OF_WORKSPACE_AFTER: Statement = Statement::new("rows_of_workspace_after", || {
    "select workspace, uid, published_run, last_used_at, run from {recents}recent_workflow
     where workspace = $1 and (uid, published_run) > ($2, $3)
     order by workspace, uid, published_run limit $4"
        .into()
});

static LOWER: Statement = Statement::new("lower", || {
    "update {recents}recent_workflow as t set last_used_at = s.last_used_at, run = s.run
     from {swaps} as s
     where t.workspace = s.workspace and t.uid = s.uid and t.published_run = s.published_run
       and t.last_used_at = s.seen_last_used_at and coalesce(t.run, '') = coalesce(s.seen_run, '')"
        .into()
});

static REMOVE: Statement = Statement::new("remove", || {
    "delete from {recents}recent_workflow
     where (workspace, uid, published_run, last_used_at, coalesce(run, '')) in (
         select u.workspace, u.uid, u.published_run, u.last_used_at, coalesce(u.run, '')
         from {uses} as u)"
        .into()
});

// Sorted, as every writer locks rows.
static LOCK_ROWS: Statement = Statement::new("lock_rows", || {
    "select t.workspace, t.uid, t.published_run, t.last_used_at, t.run from {keys} as k
     join {recents}recent_workflow as t
       on t.workspace = k.workspace and t.uid = k.uid and t.published_run = k.published_run
     order by 1, 2, 3 {lock}"
        .into()
});

static ROWS_OF_RUNS: Statement = Statement::new("rows_of_runs", || {
    "select t.workspace, t.uid, t.published_run, t.last_used_at, t.run from {runs} as n
     join {recents}recent_workflow as t on t.run = n.run"
        .into()
});

static ANALYZE: Statement = Statement::new("analyze", || "analyze {recents}recent_workflow".into());

/// Tells the database what the table holds now. Without statistics PostgreSQL may sort a whole list
/// to read the newest few of it.
pub(crate) async fn analyze(store: &Store) -> Result<(), StoreError> {
    on_both!(Store, store, |pool, dialect| {
        sqlx::query(ANALYZE.run(dialect)).execute(pool).await?;
    });
    Ok(())
}

/// A row of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The workflow.
    pub published_run: Box<str>,
    /// Its newest use, and the run of it.
    pub newest: Newest,
}

/// A list from its start, or from behind the last item of a page.
#[derive(Debug, Clone)]
pub struct ListStart {
    /// Whose list.
    pub scope: Scope,
    /// Only items after this one, in the order of lists.
    pub after: Option<(Time, Id)>,
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

/// Reads the first `limit` visible items of each list, newest first, in one statement; in two when this
/// process meets a dismissal for the first time.
///
/// At most [`MAX_SCOPES`] lists; more are not read.
pub(crate) async fn lists(
    store: &Store,
    lists: &[ListStart],
    limit: u32,
) -> Result<Vec<Vec<Item>>, StoreError> {
    let fits = |which: &usize| {
        lists.len() <= READ_SIZES[*which]
            && (*which != FIRST_PAGE || lists.iter().all(|list| list.after.is_none()))
    };
    let which = (0..READ_SIZES.len())
        .find(fits)
        .unwrap_or(READ_SIZES.len() - 1);
    let known = SEEN_DISMISSED.load(Ordering::Relaxed);
    let (mut items, any_dismissed) = match known {
        true => read_lists(store, &VISIBLE_READS[which], which, lists, limit).await?,
        false => read_lists(store, &READS[which], which, lists, limit).await?,
    };
    if !known && any_dismissed {
        expect_dismissed();
        (items, _) = read_lists(store, &VISIBLE_READS[which], which, lists, limit).await?;
    }
    // UNION ALL promises no order, though both databases keep it.
    for items in &mut items {
        items.sort_by(|a, b| {
            (b.newest.last_used_at, &b.published_run)
                .cmp(&(a.newest.last_used_at, &a.published_run))
        });
    }
    Ok(items)
}

/// The lists by one of the statements; and whether it says that anything is dismissed.
async fn read_lists(
    store: &Store,
    statement: &'static Statement,
    which: usize,
    lists: &[ListStart],
    limit: u32,
) -> Result<(Vec<Vec<Item>>, bool), StoreError> {
    let mut items = vec![Vec::new(); lists.len()];
    let mut any_dismissed = false;
    on_both!(Store, store, |pool, dialect| {
        let mut query = sqlx::query(statement.run(dialect)).bind(i64::from(limit));
        for at in 0..READ_SIZES[which] {
            let list = lists.get(at);
            query = query
                .bind(list.map(|list| list.scope.workspace.as_str()))
                .bind(list.map(|list| list.scope.uid_column()));
            if which != FIRST_PAGE {
                let after = list.and_then(|list| list.after.as_ref());
                query = query
                    .bind(after.map_or(Time::AFTER_ALL, |(time, _)| *time))
                    .bind(after.map_or("", |(_, published_run)| published_run.as_str()));
            }
        }
        for row in query.fetch_all(pool).await? {
            let list = row.try_get::<i32, _>(0)?;
            any_dismissed |= list == DISMISSED;
            let list = usize::try_from(list).ok();
            if let Some(items) = list.and_then(|list| items.get_mut(list)) {
                let newest = Newest {
                    last_used_at: row.try_get(2)?,
                    run: row.try_get::<Option<&str>, _>(3)?.map(Box::from),
                };
                items.push(Item {
                    published_run: row.try_get::<&str, _>(1)?.into(),
                    newest,
                });
            }
        }
    });
    Ok((items, any_dismissed))
}

/// Raises rows to these uses, in one statement: inserts what is missing, replaces what is older.
/// Returns the keys whose rows changed.
///
/// `uses` are sorted by key, no key twice, at most [`MAX_KEYS`].
pub(crate) async fn raise(conn: Conn<'_>, uses: &[(Key, Newest)]) -> Result<Vec<Key>, StoreError> {
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
pub(crate) async fn lower(conn: Conn<'_>, swaps: &[Swap]) -> Result<(), StoreError> {
    let rows = Rows::keys(swaps.iter().map(|s| &s.key))
        .newest(swaps.iter().map(|s| &s.becomes))
        .newest(swaps.iter().map(|s| &s.seen));
    on_both!(Conn, conn, |conn, dialect| {
        sqlx::query(LOWER.run(dialect))
            .bind_rows(rows)
            .execute(conn)
            .await?;
    });
    Ok(())
}

/// Removes rows that still are as they were seen; others are left alone.
pub(crate) async fn remove(conn: Conn<'_>, seen: &[RecentRow]) -> Result<(), StoreError> {
    let rows = Rows::keys(seen.iter().map(|(key, _)| key)).newest(seen.iter().map(|(_, n)| n));
    on_both!(Conn, conn, |conn, dialect| {
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
