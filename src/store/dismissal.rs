//! Dismissal: what a user removed. A watermark hides the uses up to it and only grows; it is applied
//! when reading, so that no writer can bring an item back.

use std::collections::HashMap;

use sqlx::Row;

use super::rows::{BindRows, Rows};
use super::statement::Statement;
use super::{Conn, Store, StoreError, lists, on_both};
use crate::cache::{Changed, Reason};
use crate::model::{Id, Key, Scope, Time};

pub(super) const STATEMENTS: [&Statement; 5] = [
    &DISMISS_ITEM,
    &DISMISS_LIST,
    &DISMISS_EVERYWHERE,
    &OF_KEYS,
    &ANY,
];

/// The watermark of a list, or of an item in it, as an expression that is NULL where there is none.
pub(super) fn until(workspace: &str, uid: &str, published_run: &str) -> String {
    format!(
        "(select d.until from {{recents}}dismissal as d
          where d.workspace = {workspace} and d.uid = {uid} and d.published_run = {published_run})"
    )
}

/// What the watermark of a whole list leaves, as the lower bound of a range of the list's index; without
/// one that is everything.
pub(super) fn after_the_lists(time: &str, workspace: &str, uid: &str) -> String {
    format!(
        "{time} >= coalesce({} + {{instant}}, {{long_ago}})",
        until(workspace, uid, "''")
    )
}

/// What the watermarks of single items leave.
pub(super) fn after_the_items(alias: &str) -> String {
    let column = |name: &str| format!("{alias}.{name}");
    let item = until(
        &column("workspace"),
        &column("uid"),
        &column("published_run"),
    );
    let everywhere = until("''", "''", &column("published_run"));
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
    .map(|(workspace, uid, published_run)| until(workspace, uid, published_run));
    format!(
        "select k.workspace, k.uid, k.published_run, {item}, {list}, {everywhere} from {{keys}} as k"
    )
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

/// Hides what was used up to `until`, and what the list holds now, also where its time is later.
///
/// # Errors
/// [`StoreError`]; nothing is dismissed then, or all of it where the answer was lost.
pub async fn dismiss(store: &Store, what: &Dismissed, until: Time) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    on_both!(Conn, tx.conn(), |conn, dialect| {
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
        query.bind(until).execute(conn).await?;
    });
    lists::expect_dismissed();
    let changed = match what {
        Dismissed::List(scope) | Dismissed::Item(scope, _) => {
            Changed::List(scope.workspace.clone(), scope.uid.clone())
        }
        Dismissed::Everywhere(published_run) => Changed::PublishedRun(published_run.clone()),
    };
    tx.changes(changed, Reason::Dismissal);
    tx.commit().await
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

/// Whether anything is dismissed.
pub(crate) async fn any(store: &Store) -> Result<bool, StoreError> {
    on_both!(Store, store, |pool, dialect| {
        let query = sqlx::query(ANY.run(dialect));
        Ok(query.fetch_optional(pool).await?.is_some())
    })
}
