//! Settings that change while the service runs, as text; `crate::settings` knows what they mean.

use std::collections::HashMap;

use sqlx::Row;

use super::statement::Statement;
use super::{Conn, Store, StoreError, job, on_both};
use crate::cache::{Changed, Reason};

pub(super) const STATEMENTS: [&Statement; 3] = [&ALL, &SET, &SET_FIRST];

/// Not the name of a setting: there where a job of the kind asked for ever read all of the history.
const FILLED: &str = "";

static ALL: Statement = Statement::new("settings", || {
    format!(
        "select s.name, s.value from {{recents}}setting as s
         union all select '{FILLED}', '' where {}",
        job::ever_filled()
    )
});

static SET: Statement = Statement::new("setting_set", || {
    "insert into {recents}setting as s (name, value, changed_at) values ($1, $2, {now})
     on conflict (name) do update set value = excluded.value, changed_at = excluded.changed_at
     where s.value <> excluded.value"
        .into()
});

static SET_FIRST: Statement = Statement::new("setting_set_first", || {
    "insert into {recents}setting (name, value, changed_at) values ($1, $2, {now})
     on conflict (name) do nothing"
        .into()
});

/// What is stored.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    pub(crate) values: HashMap<String, String>,
    /// Whether a job of the kind asked for ever read all of the history.
    pub(crate) filled: bool,
}

/// All settings, and whether a job of this kind ever read all of the history, in one statement.
pub(crate) async fn all(store: &Store, kind: &str) -> Result<Stored, StoreError> {
    on_both!(Store, store, |pool, dialect| {
        let mut values = HashMap::new();
        for row in sqlx::query(ALL.run(dialect))
            .bind(kind)
            .fetch_all(pool)
            .await?
        {
            values.insert(row.try_get(0)?, row.try_get(1)?);
        }
        let filled = values.remove(FILLED).is_some();
        Ok(Stored { values, filled })
    })
}

/// Sets these, or none of them.
pub(crate) async fn set(store: &Store, values: &[(&str, &str)]) -> Result<(), StoreError> {
    write(store, &SET, values).await?;
    // What lists are come by may have changed.
    store.committed(&Changed::Everything, Reason::Change);
    Ok(())
}

/// Sets those of these that are not set yet.
pub(crate) async fn set_first(store: &Store, values: &[(&str, &str)]) -> Result<(), StoreError> {
    write(store, &SET_FIRST, values).await
}

/// One by one, in the order given, which must be the same everywhere: two writers would wait for each
/// other otherwise.
async fn write(
    store: &Store,
    statement: &'static Statement,
    values: &[(&str, &str)],
) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    on_both!(Conn, tx.conn(), |conn, dialect| {
        for (name, value) in values {
            let query = sqlx::query(statement.run(dialect)).bind(*name).bind(*value);
            query.execute(&mut *conn).await?;
        }
    });
    tx.commit().await
}
