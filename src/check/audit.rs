//! The audit: both checks, over everything in turn, all the time, within a small share of the databases'
//! time. What differs is counted, and noted for the drain to mend.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::verify::note_again;
use super::{CheckError, Difference, complete, supported};
use crate::config::HistoryConfig;
use crate::history::mapping::From;
use crate::history::{self, Again, History, HistoryError, Range, Unmappable};
use crate::jobs::BACKFILL;
use crate::model::{Key, RawUse};
use crate::record::Fold;
use crate::store::recent::{self, RecentRow};
use crate::store::{Store, StoreError, audit, job, with_retries};
use crate::telemetry::{Metrics, Repeated, chain};

/// The part of the databases' time that it takes: a piece is followed by so much longer a pause.
const SHARE: f64 = 0.01;
/// Pieces follow each other no faster, so that a small table is not looked at all the time.
const LEAST_PAUSE: Duration = Duration::from_secs(2);
/// However long one took. A window of the history is given five seconds, which the share would have followed
/// by eight minutes: whatever takes longer waited, for a lock or for a database that is busy with others.
const MOST_PAUSE: Duration = Duration::from_secs(600);
/// Rows of a piece at the most, and runs of one: some ten milliseconds each. A piece that takes too long, or
/// has a run that cannot be mapped, is halved, down to that run, which is stepped over; then it grows again.
const ROWS: u32 = 1_000;
const RUNS: u32 = 20_000;
/// How often it is looked for a piece that may be taken.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// After a failure, and while there is nothing to audit.
const WAIT: Duration = Duration::from_secs(30);

/// Where a piece begins: first the rows of the table, then the runs of the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Cursor {
    /// Behind this row.
    Rows(Option<[String; 3]>),
    /// Behind this run, up to the last one of the pass.
    // Not of an audit that went up.
    #[serde(rename = "down")]
    Runs {
        behind: Option<String>,
        last: String,
    },
}

/// A part of the table, or of the history.
enum Part {
    Rows(Vec<RecentRow>),
    Runs(From, String),
}

/// A part, how many rows or runs it has, and where the next one begins.
struct Piece {
    next: Option<Cursor>,
    part: Part,
    of: u32,
}

/// Why a piece was not checked; where the next one would begin, as far as that is known; and how many rows
/// or runs it has.
struct Stopped {
    error: CheckError,
    next: Option<Option<Cursor>>,
    of: u32,
}

/// What the audit of a service needs.
#[derive(Debug)]
pub struct Audit {
    store: Store,
    config: HistoryConfig,
    metrics: Arc<Metrics>,
    /// A query that says true while the history's database is unwell.
    pause_while: Option<String>,
    history: Option<Arc<History>>,
    /// Runs or rows of the next piece at the most.
    size: u32,
    /// Whether the last one failed, and not because of what it holds.
    failed: bool,
}

impl Audit {
    /// Of a table and its history.
    pub fn new(
        store: Store,
        config: HistoryConfig,
        metrics: Arc<Metrics>,
        pause_while: Option<String>,
    ) -> Self {
        Self {
            store,
            config,
            metrics,
            pause_while,
            history: None,
            size: RUNS,
            failed: false,
        }
    }

    /// Audits until it is dropped.
    pub async fn run(mut self) {
        let mut said = Repeated::default();
        loop {
            let pause = match self.step().await {
                Ok(pause) => {
                    said.well();
                    pause
                }
                Err(error) => {
                    let error = chain(&error);
                    if said.is_news(&error) {
                        tracing::warn!(error, "the table cannot be audited; trying again");
                    }
                    WAIT
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Looks at the next piece, if it is time; returns how long to wait.
    async fn step(&mut self) -> Result<Duration, CheckError> {
        if !self.is_filled().await? {
            return Ok(WAIT);
        }
        let history = match &self.history {
            Some(history) => Arc::clone(history),
            None => {
                let history = Arc::new(history::connect(&self.config).await?);
                Arc::clone(self.history.insert(history))
            }
        };
        if let Some(query) = &self.pause_while
            && history.says(query).await?
        {
            return Ok(LOOK_EVERY);
        }
        let Some(taken) = audit::take(&self.store).await? else {
            return Ok(LOOK_EVERY);
        };
        let cursor = taken.cursor.as_deref();
        let cursor = cursor.and_then(|text| serde_json::from_str(text).ok());
        let cursor = cursor.unwrap_or(Cursor::Rows(None));
        let mut spent = Duration::ZERO;
        let looked = self.look(&history, &cursor, &mut spent).await;
        let mut pause = pause_behind(spent);
        let (next, passed) = match looked {
            Ok(next) => {
                pause = pause.max(LEAST_PAUSE);
                self.size = self.size.saturating_mul(2).min(RUNS);
                let passed = next.is_none();
                (next, passed)
            }
            Err(stopped) => (self.step_back(cursor, stopped), false),
        };
        if std::mem::take(&mut self.failed) {
            pause = pause.max(WAIT);
        }
        let next = next.map(|next| serde_json::to_string(&next).unwrap_or_default());
        audit::save(&self.store, &taken, next.as_deref(), pause, passed).await?;
        Ok(pause)
    }

    /// Where it goes on behind a piece that failed: with a smaller one, behind the one run that fails, or with
    /// a new pass where not even the next piece can be found.
    fn step_back(&mut self, cursor: Cursor, stopped: Stopped) -> Option<Cursor> {
        let error = chain(&stopped.error);
        let is_of_it = match &stopped.error {
            CheckError::History(HistoryError::TimedOut(_)) => true,
            CheckError::History(error) => error.is_of_the_data(),
            _ => false,
        };
        match (is_of_it, stopped.next) {
            (true, Some(_)) if self.size > 1 => {
                self.size = (self.size.min(stopped.of) / 2).max(1);
                tracing::debug!(error, size = self.size, "a smaller piece is audited");
                Some(cursor)
            }
            (true, Some(next)) => {
                tracing::warn!(error, "what cannot be mapped is left out of the audit");
                next
            }
            (true, None) => {
                tracing::warn!(error, "the audit begins anew");
                None
            }
            (false, _) => {
                self.failed = true;
                tracing::warn!(error, "the table could not be audited; trying again");
                Some(cursor)
            }
        }
    }

    /// Whether the table was ever filled from the history: before, all of it is missing.
    async fn is_filled(&self) -> Result<bool, StoreError> {
        let filled = job::last_filled(&self.store, BACKFILL).await?;
        Ok(filled.is_some())
    }

    /// Checks a piece, and mends what differs; returns where the next one begins, `None` where the pass is
    /// over. `spent` is what it costs the databases, without what it only waits.
    async fn look(
        &self,
        history: &Arc<History>,
        cursor: &Cursor,
        spent: &mut Duration,
    ) -> Result<Option<Cursor>, Stopped> {
        let started = Instant::now();
        let piece = self.piece(history, cursor).await;
        *spent += started.elapsed();
        let Piece { next, part, of } = piece.map_err(|error| Stopped {
            error,
            next: None,
            of: 0,
        })?;
        let stopped = |error| Stopped {
            error,
            next: Some(next.clone()),
            of,
        };
        let checked = self.check(history, part, spent).await;
        let differences = checked.map_err(stopped)?;
        let mended = self.tell_and_mend(&differences).await;
        mended.map_err(|error| stopped(error.into()))?;
        Ok(next)
    }

    /// What the next piece is.
    async fn piece(&self, history: &History, cursor: &Cursor) -> Result<Piece, CheckError> {
        match cursor {
            Cursor::Rows(behind) => {
                let behind = behind.as_ref().map(|[w, u, p]| Key::new(w, u, p));
                let most = self.size.min(ROWS);
                let rows =
                    with_retries(|| recent::rows_after(&self.store, None, behind.as_ref(), most));
                let rows = rows.await?;
                let next = match rows.last().filter(|_| rows.len() == most as usize) {
                    Some((last, _)) => {
                        let (workspace, uid, published_run) = last.parts();
                        let behind = [workspace, uid, published_run].map(Into::into);
                        Some(Cursor::Rows(Some(behind)))
                    }
                    None => {
                        let last = history.last_key().await?;
                        last.map(|last| Cursor::Runs { behind: None, last })
                    }
                };
                Ok(Piece {
                    next,
                    of: u32::try_from(rows.len()).unwrap_or(most),
                    part: Part::Rows(rows),
                })
            }
            Cursor::Runs { behind, last } => {
                let from = behind.clone().map_or(From::First, From::Behind);
                let most = self.size.min(RUNS);
                let (end, of) = history.window_end(&from, last, most).await?;
                let next = (end != *last).then(|| Cursor::Runs {
                    behind: Some(end.clone()),
                    last: last.clone(),
                });
                Ok(Piece {
                    next,
                    of: u32::try_from(of).unwrap_or(most),
                    part: Part::Runs(from, end),
                })
            }
        }
    }

    async fn check(
        &self,
        history: &Arc<History>,
        part: Part,
        spent: &mut Duration,
    ) -> Result<Vec<Difference>, CheckError> {
        let (started, unmappable) = (Instant::now(), Unmappable::default());
        match part {
            Part::Rows(rows) => {
                let seen = supported::unsupported(&self.store, history, rows, &unmappable).await;
                *spent += started.elapsed();
                let (persist, _) =
                    supported::persistent(&self.store, history, seen?, &unmappable).await?;
                let started = Instant::now();
                let named = supported::named(history, persist, &unmappable).await;
                *spent += started.elapsed();
                named
            }
            Part::Runs(from, end) => {
                let mut fold = Fold::default();
                let take = |raw: RawUse<'_>| {
                    if let Ok(usage) = raw.check() {
                        fold.add(&usage);
                    }
                };
                let scanned = history.scan(Range::Window(&from, &end), Again(take)).await;
                let uses = fold.into_sorted();
                let seen = match scanned {
                    Ok(()) => complete::outdone(&self.store, &uses).await,
                    Err(error) => Err(error.into()),
                };
                *spent += started.elapsed();
                let found = complete::confirm(&self.store, history, seen?, &unmappable).await?;
                Ok(found.differences)
            }
        }
    }

    async fn tell_and_mend(&self, differences: &[Difference]) -> Result<(), StoreError> {
        let Some(first) = differences.first() else {
            return Ok(());
        };
        for difference in differences {
            self.metrics.count_drift(difference.kind, 1);
        }
        let (rows, first) = (differences.len(), first.to_json());
        tracing::warn!(rows, %first, "rows differed from the history; they are computed again");
        let keys: Vec<Key> = differences
            .iter()
            .map(|differs| differs.key.clone())
            .collect();
        note_again(&self.store, &keys).await
    }
}

/// How long nothing is asked for behind a piece.
fn pause_behind(spent: Duration) -> Duration {
    let pause = spent.mul_f64(1.0 / SHARE - 1.0);
    if pause > MOST_PAUSE {
        tracing::info!(
            ?spent,
            "the audit waited for the databases; it goes on later"
        );
    }
    pause.min(MOST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_a_hundred_pieces_long_and_a_lock_that_was_waited_for_stops_no_audit() {
        let pause = pause_behind(Duration::from_millis(10));
        assert_eq!(pause, Duration::from_millis(990));
        assert_eq!(pause_behind(Duration::from_secs(45)), MOST_PAUSE);
    }
}
