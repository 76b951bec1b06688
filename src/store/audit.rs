//! How far the audit is; one for all replicas.

use std::time::Duration;

use sqlx::Row;

use super::statement::Statement;
use super::{Store, StoreError, on_both};
use crate::model::Time;

pub(super) const STATEMENTS: [&Statement; 5] = [&TAKE, &SAVE, &PASSED, &PASSED_AT, &BEGIN_ANEW];

/// Who took a piece and died is waited for this long. A piece takes a second or two; where it finds
/// differences, and no index serves, it may read the whole history.
const LEASE: Duration = Duration::from_secs(600);

static TAKE: Statement = Statement::new("audit_take", || {
    format!(
        "update {{recents}}audit set fence = fence + 1, next_at = {{now}} + {} * {{second}}
         where next_at <= {{now}} returning fence, cursor",
        LEASE.as_secs()
    )
});

static SAVE: Statement = Statement::new("audit_save", || {
    "update {recents}audit set cursor = $2, next_at = {now} + $3 * {instant},
            passed_at = case when cast($4 as integer) = 1 then {now} else passed_at end
     where fence = $1"
        .into()
});

static PASSED: Statement = Statement::new("audit_passed", || {
    "update {recents}audit set passed_at = {now}".into()
});

static PASSED_AT: Statement = Statement::new("audit_passed_at", || {
    "select passed_at from {recents}audit".into()
});

static BEGIN_ANEW: Statement = Statement::new("audit_begin_anew", || {
    "update {recents}audit set fence = fence + 1, cursor = null, next_at = {now}, passed_at = null"
        .into()
});

/// The next piece, taken.
#[derive(Debug)]
pub(crate) struct Taken {
    fence: i64,
    /// Where it begins; `None`: with a new pass.
    pub(crate) cursor: Option<String>,
}

/// Takes the next piece; `None` where it is too early, or another one has it.
pub(crate) async fn take(store: &Store) -> Result<Option<Taken>, StoreError> {
    on_both!(Store, store, |pool, dialect| {
        let row = sqlx::query(TAKE.run(dialect)).fetch_optional(pool).await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(Taken {
            fence: row.try_get(0)?,
            cursor: row.try_get(1)?,
        }))
    })
}

/// Says where the next piece begins, and that it must not be before a pause; and whether with this one
/// everything `passed`. Nothing happens where another one has taken a piece since.
pub(crate) async fn save(
    store: &Store,
    taken: &Taken,
    cursor: Option<&str>,
    pause: Duration,
    passed: bool,
) -> Result<(), StoreError> {
    let pause = i64::try_from(pause.as_micros()).unwrap_or(i64::MAX);
    on_both!(Store, store, |pool, dialect| {
        let query = sqlx::query(SAVE.run(dialect))
            .bind(taken.fence)
            .bind(cursor);
        let query = query.bind(pause).bind(i32::from(passed));
        query.execute(pool).await?;
    });
    Ok(())
}

/// Says that everything was looked at now.
pub(crate) async fn passed(store: &Store) -> Result<(), StoreError> {
    on_both!(Store, store, |pool, dialect| {
        sqlx::query(PASSED.run(dialect)).execute(pool).await?;
    });
    Ok(())
}

/// Begins a pass anew, and says that nothing was looked at yet: of what has changed since, nobody was told.
pub(crate) async fn begin_anew(store: &Store) -> Result<(), StoreError> {
    on_both!(Store, store, |pool, dialect| {
        sqlx::query(BEGIN_ANEW.run(dialect)).execute(pool).await?;
    });
    Ok(())
}

/// When everything was last looked at.
pub(crate) async fn passed_at(store: &Store) -> Result<Option<Time>, StoreError> {
    on_both!(Store, store, |pool, dialect| {
        let row = sqlx::query(PASSED_AT.run(dialect)).fetch_one(pool).await?;
        Ok(row.try_get(0)?)
    })
}
