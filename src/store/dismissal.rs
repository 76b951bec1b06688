//! Dismissal: what a user removed. A watermark hides the uses up to it and only grows; it is applied
//! when reading, so that no writer can bring an item back.

use std::collections::HashMap;

use sqlx::Row;

use super::rows::{BindRows, Rows};
use super::statement::Statement;
use super::{Conn, Store, StoreError, on_both};
use crate::model::{Id, Key, Scope, Time};

pub(super) const STATEMENTS: [&Statement; 8] = [
    &DISMISS_ITEM,
    &DISMISS_LIST,
    &DISMISS_EVERYWHERE,
    &OF_KEYS,
    &FREE_ROWS,
    &SWEEP,
    &PRUNE,
    &ANY,
];

/// The watermark of a list, or of an item in it, as an expression that is NULL where there is none.
fn of(workspace: &str, uid: &str, published_run: &str) -> String {
    format!(
        "(select d.until from {{recents}}dismissal as d
          where d.workspace = {workspace} and d.uid = {uid} and d.published_run = {published_run})"
    )
}

/// What the watermark of a whole list leaves, as the lower bound of a range of the list's index.
pub(super) fn after_the_lists(time: &str, workspace: &str, uid: &str) -> String {
    format!(
        "{time} > coalesce({}, {{long_ago}})",
        of(workspace, uid, "''")
    )
}

/// What the watermarks of single items leave.
pub(super) fn after_the_items(alias: &str) -> String {
    let column = |name: &str| format!("{alias}.{name}");
    let item = of(
        &column("workspace"),
        &column("uid"),
        &column("published_run"),
    );
    let everywhere = of("''", "''", &column("published_run"));
    format!(
        "not coalesce({item} >= {alias}.last_used_at, false)
         and not coalesce({everywhere} >= {alias}.last_used_at, false)"
    )
}

const GROW: &str =
    "on conflict (workspace, uid, published_run) do update set until = excluded.until
     where excluded.until > d.until";

static DISMISS_ITEM: Statement = Statement::new("dismiss_item", || {
    format!(
        "insert into {{recents}}dismissal as d (workspace, uid, published_run, until)
         select $1, $2, $3, {{greatest}}($4, coalesce((
             select r.last_used_at from {{recents}}recent_workflow as r
             where r.workspace = $1 and r.uid = $2 and r.published_run = $3), $4))
         where true {GROW}"
    )
});

// What is hidden already, swept or not, is not hidden by this one.
static DISMISS_LIST: Statement = Statement::new("dismiss_list", || {
    format!(
        "insert into {{recents}}dismissal as d (workspace, uid, published_run, until)
         select $1, $2, '', {{greatest}}($3, coalesce((
             select r.last_used_at from {{recents}}recent_workflow as r
             where r.workspace = $1 and r.uid = $2 and {}
             order by r.last_used_at desc limit 1), $3))
         where true {GROW}",
        after_the_items("r"),
    )
});

static DISMISS_EVERYWHERE: Statement = Statement::new("dismiss_everywhere", || {
    format!(
        "insert into {{recents}}dismissal as d (workspace, uid, published_run, until)
         values ('', '', $1, $2) {GROW}"
    )
});

static OF_KEYS: Statement = Statement::new("dismissals_of_keys", || {
    let [item, list, everywhere] = [
        ("k.workspace", "k.uid", "k.published_run"),
        ("k.workspace", "k.uid", "''"),
        ("''", "''", "k.published_run"),
    ]
    .map(|(workspace, uid, published_run)| of(workspace, uid, published_run));
    format!(
        "select k.workspace, k.uid, k.published_run, {item}, {list}, {everywhere} from {{keys}} as k"
    )
});

// Sorted, as every writer locks rows; one that a writer has is left to the next sweep.
static FREE_ROWS: Statement = Statement::new("free_rows", || {
    "select t.workspace, t.uid, t.published_run from {keys} as k
     join {recents}recent_workflow as t
       on t.workspace = k.workspace and t.uid = k.uid and t.published_run = k.published_run
     order by 1, 2, 3 {lock_free}"
        .into()
});

// Whether a row is hidden is asked of the row that is deleted: one that rises meanwhile is asked again.
static SWEEP: Statement = Statement::new("sweep", || {
    format!(
        "delete from {{recents}}recent_workflow as t
         where (t.workspace, t.uid, t.published_run) in (
             select k.workspace, k.uid, k.published_run from {{keys}} as k)
           and not ({} and {})",
        after_the_lists("t.last_used_at", "t.workspace", "t.uid"),
        after_the_items("t"),
    )
});

// An item's watermark that is not above its list's, or the one for every list, hides nothing more.
static PRUNE: Statement = Statement::new("prune_dismissals", || {
    "delete from {recents}dismissal
     where published_run <> '' and workspace <> ''
       and (until <= (select l.until from {recents}dismissal as l
                      where l.workspace = dismissal.workspace and l.uid = dismissal.uid
                        and l.published_run = '')
            or until <= (select e.until from {recents}dismissal as e
                         where e.workspace = '' and e.uid = ''
                           and e.published_run = dismissal.published_run))"
        .into()
});

static ANY: Statement = Statement::new("any_dismissal", || {
    "select 1 from {recents}dismissal limit 1".into()
});

/// What is dismissed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dismissed {
    /// Everything that a list holds now.
    List(Scope),
    /// One item of a list.
    Item(Scope, Id),
    /// A published run, in every list.
    Everywhere(Id),
}

/// Hides what was used up to `until`, and what is there now, also where its time is later.
///
/// # Errors
/// [`StoreError`]; nothing is dismissed then.
pub async fn dismiss(store: &Store, what: &Dismissed, until: Time) -> Result<(), StoreError> {
    on_both!(Store, store, |pool, dialect| {
        let query = match what {
            Dismissed::List(scope) => sqlx::query(DISMISS_LIST.run(dialect))
                .bind(scope.workspace.as_str())
                .bind(scope.uid_column()),
            Dismissed::Item(scope, published_run) => sqlx::query(DISMISS_ITEM.run(dialect))
                .bind(scope.workspace.as_str())
                .bind(scope.uid_column())
                .bind(published_run.as_str()),
            Dismissed::Everywhere(published_run) => {
                sqlx::query(DISMISS_EVERYWHERE.run(dialect)).bind(published_run.as_str())
            }
        };
        query.bind(until).execute(pool).await?;
    });
    Ok(())
}

/// The greatest watermark of each of these keys; keys without one have none.
pub(crate) async fn of_keys<'a>(
    store: &Store,
    keys: impl Iterator<Item = &'a Key> + Clone,
) -> Result<HashMap<Key, Time>, StoreError> {
    let rows = Rows::keys(keys);
    on_both!(Store, store, |pool, dialect| {
        let query = sqlx::query(OF_KEYS.run(dialect)).bind_rows(rows);
        let mut until = HashMap::new();
        for row in query.fetch_all(pool).await? {
            let mut greatest = None;
            for at in 3..6 {
                greatest = greatest.max(row.try_get::<Option<Time>, _>(at)?);
            }
            if let Some(greatest) = greatest {
                let key = Key::new(row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
                until.insert(key, greatest);
            }
        }
        Ok(until)
    })
}

/// Deletes those rows of these keys that are hidden, without waiting for writers; returns how many. No
/// use that such a row outdoes is newer than the watermark, so that nothing is lost with it.
pub(crate) async fn sweep<'a>(
    store: &Store,
    keys: impl Iterator<Item = &'a Key> + Clone,
) -> Result<u64, StoreError> {
    let mut tx = store.begin().await?;
    let deleted: Result<u64, StoreError> = on_both!(Conn, tx.conn(), |conn, dialect| {
        let free = sqlx::query(FREE_ROWS.run(dialect)).bind_rows(Rows::keys(keys));
        let free = free.fetch_all(&mut *conn).await?;
        let free: Result<Vec<Key>, sqlx::Error> = free
            .iter()
            .map(|row| Ok(Key::new(row.try_get(0)?, row.try_get(1)?, row.try_get(2)?)))
            .collect();
        let free = free?;
        let delete = sqlx::query(SWEEP.run(dialect)).bind_rows(Rows::keys(free.iter()));
        Ok(delete.execute(conn).await?.rows_affected())
    });
    let deleted = deleted?;
    tx.commit().await?;
    Ok(deleted)
}

/// Deletes watermarks that hide nothing that another one does not; returns how many.
pub(crate) async fn prune(store: &Store) -> Result<u64, StoreError> {
    on_both!(Store, store, |pool, dialect| {
        Ok(sqlx::query(PRUNE.run(dialect))
            .execute(pool)
            .await?
            .rows_affected())
    })
}

/// Whether anything is dismissed.
pub(crate) async fn any(store: &Store) -> Result<bool, StoreError> {
    on_both!(Store, store, |pool, dialect| {
        let query = sqlx::query(ANY.run(dialect));
        Ok(query.fetch_optional(pool).await?.is_some())
    })
}
