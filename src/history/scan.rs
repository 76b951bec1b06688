//! Scanning a history: windows, or all of it.

use std::time::Duration;

use sqlx::AssertSqlSafe;

use super::mapping::From;
use super::session::Taker;
use super::{Database, History, HistoryError, bulk, session, sqlite};

/// A window may take this long before it is halved: far more than its target.
const WINDOW_TIMEOUT: Duration = Duration::from_secs(5);
/// The single stream of `--one-pass` takes as long as it takes; zero is no limit.
const NO_TIMEOUT: Duration = Duration::ZERO;

/// Consecutive runs.
#[derive(Debug, Clone, Copy)]
pub enum Range<'a> {
    /// Every run, in one query.
    All,
    /// The runs behind one key up to another.
    Window(&'a From, &'a str),
}

impl History {
    /// Maps the runs of `range` and hands each row to `take`, one by one, in no order.
    ///
    /// # Errors
    /// [`HistoryError::TimedOut`] where a window takes too long, [`HistoryError::Database`]
    /// otherwise; rows may have been taken before.
    pub async fn scan(&self, range: Range<'_>, mut take: impl Taker) -> Result<(), HistoryError> {
        let (window, timeout) = match range {
            Range::All => (None, NO_TIMEOUT),
            Range::Window(from, last) => (Some((from, last)), WINDOW_TIMEOUT),
        };
        let read = match &self.database {
            Database::Postgres(pool) => bulk::read(self, pool, window, timeout, &mut take).await,
            Database::Sqlite(pool) => {
                let query = match window {
                    None => sqlx::query(AssertSqlSafe(self.mapping().all())),
                    Some((from, last)) => sqlx::query(AssertSqlSafe(self.mapping().window(from)))
                        .bind(from.key())
                        .bind(last),
                };
                match sqlite::take_rows(pool, timeout, query, &mut take).await {
                    Ok(()) if window.is_some() => self.order_in_sqlite(pool).await,
                    read => read,
                }
            }
        };
        session::timed_out(read, timeout)
    }
}
