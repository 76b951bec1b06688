//! Dismissal: what a user removed. A watermark hides the uses up to it and only grows; it is applied
//! when reading, so that no writer can bring an item back.

use std::collections::HashMap;

use sqlx::Row;

use super::rows::{BindRows, Rows};
use super::statement::{Statement, clamped};
use super::{Conn, Store, StoreError, lists, on_both};
use crate::cache::{Changed, Reason};
use crate::model::{Id, Key, Newest, Scope, Time};

pub(super) const STATEMENTS: [&Statement; 8] = [
    &DISMISS_ITEM,
    &DISMISS_LIST,
    &DISMISS_LIST_AHEAD,
    &DISMISS_EVERYWHERE,
    &DISMISS_EVERYWHERE_AHEAD,
    &DISMISS_USES,
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

static DISMISS_LIST: Statement = Statement::new("dismiss_list", || {
    format!(
        "insert into {{recents}}dismissal as d (workspace, uid, published_run, until)
         values ($1, $2, '', $3) {GROW}"
    )
});

// What is dated later is dismissed item by item: one wrong time must not hide what is used in that list
// until then.
static DISMISS_LIST_AHEAD: Statement = Statement::new("dismiss_list_ahead", || {
    rows_ahead(
        "r.workspace = $1 and r.uid = $2 and r.last_used_at > $3
         order by r.last_used_at desc, r.published_run desc",
    )
});

static DISMISS_EVERYWHERE: Statement = Statement::new("dismiss_everywhere", || {
    format!(
        "insert into {{recents}}dismissal as d (workspace, uid, published_run, until)
         values ('', '', $1, $2) {GROW}"
    )
});

// Looks through the table, as the sweep that follows does: it has no index by published run, which every
// write would have to keep.
static DISMISS_EVERYWHERE_AHEAD: Statement = Statement::new("dismiss_everywhere_ahead", || {
    rows_ahead("r.published_run = $1 and r.last_used_at > $2 order by 1, 2, 3")
});

fn rows_ahead(which: &str) -> String {
    format!(
        "insert into {{recents}}dismissal as d (workspace, uid, published_run, until)
         select r.workspace, r.uid, r.published_run, {} from {{recents}}recent_workflow as r
         where {which} {GROW}",
        clamped("r.last_used_at")
    )
}

static DISMISS_USES: Statement = Statement::new("dismiss_uses", || {
    format!(
        "insert into {{recents}}dismissal as d (workspace, uid, published_run, until)
         select u.workspace, u.uid, u.published_run, u.last_used_at from {{uses}} as u
         where true order by 1, 2, 3 {GROW}"
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

/// Hides what was used up to `until`, and what the table holds of it now, also where its time is later; and
/// uses that only a history has, sorted, where lists are read from that.
///
/// # Errors
/// [`StoreError`]; nothing is dismissed then, or all of it where the answer was lost.
pub async fn dismiss(
    store: &Store,
    what: &Dismissed,
    until: Time,
    uses: &[(Key, Newest)],
) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    on_both!(Conn, tx.conn(), |conn, dialect| {
        let statements: &[&Statement] = match what {
            Dismissed::List(_) => &[&DISMISS_LIST, &DISMISS_LIST_AHEAD],
            Dismissed::Item(..) => &[&DISMISS_ITEM],
            Dismissed::Everywhere(_) => &[&DISMISS_EVERYWHERE, &DISMISS_EVERYWHERE_AHEAD],
        };
        for statement in statements {
            let query = sqlx::query(statement.run(dialect));
            let query = match what {
                Dismissed::List(scope) => query
                    .bind(scope.workspace.as_str())
                    .bind(scope.uid_column()),
                Dismissed::Item(scope, published_run) => query
                    .bind(scope.workspace.as_str())
                    .bind(scope.uid_column())
                    .bind(published_run.as_str()),
                Dismissed::Everywhere(published_run) => query.bind(published_run.as_str()),
            };
            query.bind(until).execute(&mut *conn).await?;
        }
        if !uses.is_empty() {
            let rows = Rows::keys(uses.iter().map(|(key, _)| key))
                .newest(uses.iter().map(|(_, newest)| newest));
            let query = sqlx::query(DISMISS_USES.run(dialect)).bind_rows(rows);
            query.execute(&mut *conn).await?;
        }
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
