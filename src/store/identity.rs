//! Which store this is: made once, and kept when the database is restored or copied.

use sqlx::Row;

use super::statement::Statement;
use super::{Store, StoreError, on_both};

pub(super) static IDENTITY: Statement =
    Statement::new("identity", || "select id from {recents}identity".into());

/// The store's identity, a uuid.
///
/// # Errors
/// [`StoreError`].
pub(crate) async fn of(store: &Store) -> Result<String, StoreError> {
    on_both!(Store, store, |pool, dialect| {
        let row = sqlx::query(IDENTITY.run(dialect)).fetch_one(pool).await?;
        Ok(row.try_get(0)?)
    })
}
