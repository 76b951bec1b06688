//! The audit: both checks, over everything in turn, all the time, within a small share of the databases'
//! time. What differs is counted, and noted for the drain to mend.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::verify::note_again;
use super::{CheckError, Difference, Reason, complete, supported};
use crate::config::HistoryConfig;
use crate::history::mapping::From;
use crate::history::{self, History, HistoryError, Range};
use crate::jobs::{BACKFILL, RESYNC};
use crate::model::{Key, RawUse};
use crate::record::Fold;
use crate::store::recent::{self, Outdone, RecentRow};
use crate::store::{Store, StoreError, audit, job, with_retries};
use crate::telemetry::Metrics;

/// The part of the databases' time that it takes: a piece is followed by so much longer a pause.
const SHARE: f64 = 0.01;
/// Pieces follow each other no faster, so that a small table is not looked at all the time.
const LEAST_PAUSE: Duration = Duration::from_secs(2);
/// Rows of a piece, and runs of one: some ten milliseconds each.
const ROWS: u32 = 1_000;
const RUNS: u32 = 20_000;
/// Runs of a piece at the least, however slow the history.
const LEAST_RUNS: u32 = 100;
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
    Runs {
        behind: Option<String>,
        last: String,
    },
}

/// What seems to differ.
enum Seen {
    Rows(Vec<(RecentRow, Reason)>),
    Uses(Vec<Outdone>),
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
    /// Runs of the next piece.
    runs: u32,
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
            runs: RUNS,
        }
    }

    /// Audits until it is dropped.
    pub async fn run(mut self) {
        loop {
            let pause = match self.step().await {
                Ok(pause) => pause,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "the table could not be audited; trying again");
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
        let started = Instant::now();
        let cursor = taken.cursor.as_deref();
        let cursor = cursor.and_then(|text| serde_json::from_str(text).ok());
        let cursor = cursor.unwrap_or(Cursor::Rows(None));
        let looked = self.look(&history, &cursor).await;
        // Without the looks again, which mostly wait.
        let took = started.elapsed();
        let pause = took.mul_f64(1.0 / SHARE - 1.0).max(LEAST_PAUSE);
        let next = match looked {
            Ok((next, seen)) => {
                let differences = match seen {
                    Seen::Rows(seen) => supported::confirm(&self.store, &history, seen).await?,
                    Seen::Uses(seen) => complete::confirm(&self.store, &history, seen).await?,
                };
                self.tell_and_mend(&differences).await?;
                next
            }
            Err(CheckError::History(HistoryError::TimedOut(_))) if self.runs > LEAST_RUNS => {
                self.runs = (self.runs / 2).max(LEAST_RUNS);
                Some(cursor)
            }
            Err(error) => return Err(error),
        };
        let next = next.map(|next| serde_json::to_string(&next).unwrap_or_default());
        audit::save(&self.store, &taken, next.as_deref(), pause).await?;
        Ok(pause)
    }

    /// Whether the table was ever filled from the history: before, all of it is missing.
    async fn is_filled(&self) -> Result<bool, StoreError> {
        for kind in [BACKFILL, RESYNC] {
            if job::last_success(&self.store, kind).await?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Looks at a piece; returns where the next one begins, `None` where the pass is over.
    async fn look(
        &self,
        history: &Arc<History>,
        cursor: &Cursor,
    ) -> Result<(Option<Cursor>, Seen), CheckError> {
        match cursor {
            Cursor::Rows(behind) => {
                let behind = behind.as_ref().map(|[w, u, p]| Key::new(w, u, p));
                let rows =
                    with_retries(|| recent::rows_after(&self.store, None, behind.as_ref(), ROWS));
                let rows = rows.await?;
                let next = match rows.last().filter(|_| rows.len() == ROWS as usize) {
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
                let seen = supported::unsupported(&self.store, history, rows).await?;
                Ok((next, Seen::Rows(seen)))
            }
            Cursor::Runs { behind, last } => {
                let from = behind.clone().map_or(From::First, From::Behind);
                let (end, _) = history.window_end(&from, last, self.runs).await?;
                let mut fold = Fold::default();
                let take = |raw: RawUse<'_>| {
                    if let Ok(usage) = raw.check() {
                        fold.add(&usage);
                    }
                };
                history.scan(Range::Window(&from, &end), take).await?;
                let uses = fold.into_sorted();
                let seen = complete::outdone(&self.store, &uses).await?;
                let next = (end != *last).then(|| Cursor::Runs {
                    behind: Some(end),
                    last: last.clone(),
                });
                Ok((next, Seen::Uses(seen)))
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
