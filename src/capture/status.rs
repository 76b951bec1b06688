//! What capture has, what waits, and what would make it faster.

use std::time::Duration;

use sqlx::PgPool;

use super::coverage::{self, Coverage};
use super::error::CaptureError;
use super::outbox;
use super::rights;
use crate::check::CheckError;
use crate::history::{History, Mapping};
use crate::store::{Store, aside, identity, note};

/// Rows of the outbox that wait for longer are not drained.
const OLD: Duration = Duration::from_secs(60);
/// Examples of notes that were set aside.
const EXAMPLES: u32 = 5;

/// How capture stands.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// Whether every change is noted.
    pub coverage: Coverage,
    /// The store that takes the notes, where that is another one.
    pub another_store: Option<String>,
    /// Rows of the outbox that wait.
    pub backlog_rows: u64,
    /// Whether so many runs wait that nobody can be draining.
    pub is_overfull: bool,
    /// How long the oldest has waited.
    pub lag: Duration,
    /// Notes of the table that wait.
    pub notes: u64,
    /// Notes whose mapping fails.
    pub set_aside: u64,
    /// Some of them, each with its error.
    pub examples: Vec<(String, String)>,
    /// The indexes on the history that looking at a run or computing a row again would use: statements, one a line.
    pub index: Option<String>,
}

impl Status {
    /// Whether so much waits, or for so long, that nobody can be draining.
    pub fn nobody_drains(&self) -> bool {
        self.is_overfull || self.lag > OLD
    }
}

/// Looks at the history's side alone: whether `table` and its partitions have the triggers.
///
/// # Errors
/// [`CaptureError`] where the history does not answer.
pub(crate) async fn coverage(
    pool: &PgPool,
    table: &str,
    mapping: Option<&Mapping>,
) -> Result<Coverage, CaptureError> {
    coverage::of(pool, table, mapping).await
}

/// The statements that let the role take what the triggers noted, as far as it may not.
///
/// # Errors
/// [`CaptureError`] where the history does not answer.
pub(crate) async fn missing_grants(pool: &PgPool) -> Result<Vec<String>, CaptureError> {
    rights::missing(pool).await.map_err(CaptureError::Database)
}

/// Looks how capture of `table` stands, in the database `pool`. Where the mapping does not fit, there is
/// no `history`, and what it would tell is not known.
///
/// # Errors
/// [`CaptureError`] where the history does not answer; what the table's database does not tell is
/// a [`CheckError`] in it.
pub async fn of(
    store: &Store,
    pool: &PgPool,
    table: &str,
    history: Option<&History>,
) -> Result<Status, StatusError> {
    let mapping = history.map(History::mapping);
    let coverage = coverage::of(pool, table, mapping.as_deref()).await?;
    let identity = identity::of(store).await.map_err(CheckError::Store)?;
    let another_store = coverage.store.clone().filter(|owner| *owner != identity);
    if coverage.installed && another_store.is_none() {
        rights::check(pool).await.map_err(CaptureError::History)?;
    }
    let backlog = match coverage.installed {
        true => outbox::backlog_in(pool).await,
        false => Ok(outbox::Backlog::default()),
    };
    let backlog = backlog.map_err(CaptureError::History)?;
    let standing = note::standing(store).await.map_err(CheckError::Store)?;
    let examples = aside::examples(store, EXAMPLES)
        .await
        .map_err(CheckError::Store)?;
    let index = match history {
        Some(history) => history.advice().await,
        None => Ok(None),
    };
    Ok(Status {
        coverage,
        another_store,
        backlog_rows: backlog.rows.unsigned_abs(),
        is_overfull: backlog.runs > outbox::MAX_RUNS || backlog.rows >= outbox::COUNTED,
        lag: backlog.lag,
        notes: standing.notes.saturating_sub(standing.set_aside),
        set_aside: standing.set_aside,
        examples,
        index: index.map_err(CaptureError::History)?,
    })
}

/// Why the status is not known.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// The history's side.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The table's side.
    #[error(transparent)]
    Table(#[from] CheckError),
}
