//! Sessions with a history. Nothing here depends on session state, so that a transaction pooler may
//! stand between.

use std::time::Duration;

use sqlx::{AssertSqlSafe, PgPool, Postgres, Transaction};

use super::conflict::set_lock_timeout;
use super::{History, HistoryError};
use crate::history::Database;
use crate::model::RawUse;
use crate::store::sqlstate::{self, LOCK_NOT_AVAILABLE, QUERY_CANCELED};
use crate::store::{PG_BEGIN, on_both, planned_once};

/// How long a command that was stopped waits for a query of the history to end.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// Takes the rows of a part, one by one.
pub trait Taker: Send {
    /// Takes a row; `true` asks for [`Taker::hand_over`] before the next one.
    fn take(&mut self, raw: RawUse<'_>) -> bool;

    /// Passes on what was taken so far, so that it need not stay in memory.
    fn hand_over(&mut self) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// Begins anew, where it can: the same is read once more, from the start.
    fn begins_again(&mut self) -> bool {
        false
    }
}

impl<F: FnMut(RawUse<'_>) + Send> Taker for F {
    fn take(&mut self, raw: RawUse<'_>) -> bool {
        self(raw);
        false
    }
}

/// A taker to which it makes no difference how often it is given a row.
pub(crate) struct Again<F>(pub(crate) F);

impl<F: FnMut(RawUse<'_>) + Send> Taker for Again<F> {
    fn take(&mut self, raw: RawUse<'_>) -> bool {
        self.0(raw);
        false
    }

    fn begins_again(&mut self) -> bool {
        true
    }
}

/// The settings of a transaction that reads a history: whatever the role or the database have set, the
/// mapping means the same. Where rows are hidden from the role, PostgreSQL refuses the query: a part of the
/// history would pass for all of it.
pub(super) fn settings(timeout: Duration) -> String {
    format!(
        "set local statement_timeout = {}; {}; set local timezone = 'UTC'; \
         set local datestyle = 'ISO'; set local search_path = public; \
         set local standard_conforming_strings = on; set local row_security = off",
        timeout.as_millis(),
        set_lock_timeout()
    )
}

/// Begins a read-only transaction with the settings that the mapping relies on, in one round trip.
pub(super) async fn begin(
    pool: &PgPool,
    timeout: Duration,
) -> Result<Transaction<'static, Postgres>, HistoryError> {
    begin_with(pool, settings(timeout)).await
}

/// The same for a look-up by key, planned as the store's statements are: once, and by index. Planned
/// for its values, a thousand look-ups in a history of some ten thousand runs would be a scan of it, and
/// planning them would take as long as finding them.
pub(super) async fn begin_look_up(
    pool: &PgPool,
    timeout: Duration,
) -> Result<Transaction<'static, Postgres>, HistoryError> {
    begin_with(pool, settings(timeout) + &planned_once()).await
}

async fn begin_with(
    pool: &PgPool,
    settings: String,
) -> Result<Transaction<'static, Postgres>, HistoryError> {
    let begin = AssertSqlSafe(format!("{PG_BEGIN} read only; {settings}"));
    pool.begin_with(begin).await.map_err(HistoryError::Database)
}

/// Codes of a statement that was ended, or that waited for a lock for as long as it may: PostgreSQL's, and
/// SQLite's `SQLITE_INTERRUPT`.
const ENDED: [&str; 3] = [QUERY_CANCELED, LOCK_NOT_AVAILABLE, "9"];

/// Tells a statement that was ended because of its time-out from other failures.
pub(super) fn timed_out<T>(
    read: Result<T, HistoryError>,
    timeout: Duration,
) -> Result<T, HistoryError> {
    match read {
        // Where there is no time-out, it was for a lock.
        Err(HistoryError::Database(error)) if was_ended(&error) && !timeout.is_zero() => {
            Err(HistoryError::TimedOut(timeout))
        }
        read => read,
    }
}

/// Whether a statement was ended before it was done.
pub(crate) fn was_ended(error: &sqlx::Error) -> bool {
    sqlstate::code(error).is_some_and(|code| ENDED.contains(&code.as_ref()))
}

impl History {
    /// Closes the connections. A query that was given up is not waited for long: its server may go
    /// on with it until it looks for its client.
    pub async fn close(&self) {
        let close = async {
            on_both!(Database, &self.database, |pool, _dialect| pool
                .close()
                .await);
        };
        let _ = tokio::time::timeout(CLOSE_WITHIN, close).await;
    }
}
