//! Estimates from statistics and bounded samples: what a history's question costs today.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, PgPool};

use super::look_up::raw_use;
use super::mapping::wrap;
use super::session::{begin, timed_out, was_ended};
use super::{Database, History, HistoryError};
use crate::model::Usage;
use crate::store::Dialect;

/// Runs of the sample: enough to rank workspaces that matter, read in well under a second.
const SAMPLE_RUNS: u64 = 50_000;
/// Runs of one workspace that its question is timed with.
const TIMED_RUNS: u64 = 20_000;
/// No query of an estimate may take longer.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Busiest workspaces that are shown.
const SHOWN: usize = 5;
/// A value that was seen more often in a sample is one of those that would not be missed.
const RARE: u64 = 3;
/// What a row of the table takes in PostgreSQL with its three indexes, beside its ids: 177 bytes were measured
/// behind a backfill of 120,000 rows, and less where ids are short.
const ROW_BYTES: u64 = 160;

/// What it takes to write such a row and, behind it, to look at it once more: measured, 0.04 to 0.24 ms.
const ROW_TIME: Duration = Duration::from_micros(100);

/// What a history costs, and what the table would.
#[derive(Debug, Clone)]
pub struct Estimate {
    /// About how many runs there are.
    pub runs: u64,
    /// How many were sampled.
    pub sampled: u64,
    /// The busiest workspaces.
    pub busiest: Vec<Workspace>,
    /// A round trip to the database: the most of what the table's read costs.
    pub round_trip: Duration,
    /// About how many rows the table would have, workspaces' and users' lists together.
    pub rows: u64,
    /// About how large it would be, indexes included.
    pub table_bytes: u64,
    /// About how long a backfill by windows would take.
    pub backfill: Duration,
}

/// What one workspace's question costs today.
#[derive(Debug, Clone)]
pub struct Workspace {
    /// Which one.
    pub workspace: String,
    /// About how many runs it has.
    pub runs: u64,
    /// About how many published runs.
    pub published_runs: u64,
    /// How long its newest published runs take from history; `None` where even a sample of its runs
    /// took longer than two seconds.
    pub today: Option<Duration>,
    /// Runs with which that was measured.
    pub timed_runs: u64,
}

/// Estimates, reading only, each query within two seconds.
///
/// # Errors
/// [`HistoryError::Misfit`] for a history that is not in PostgreSQL, [`HistoryError::Database`] where
/// it does not answer.
pub async fn estimate(history: &History) -> Result<Estimate, HistoryError> {
    let Database::Postgres(pool) = &history.database else {
        return Err(HistoryError::misfit(
            "history.url",
            "is SQLite; estimate works on PostgreSQL, whose statistics it reads",
        ));
    };
    let mapping = history.mapping();
    let table = &mapping.table;
    if !can_be_sampled(pool, table).await? {
        return Err(HistoryError::misfit(
            "history.table",
            format_args!(
                "{table} is a view or lives on another server: PostgreSQL has no statistics of it and \
                 takes no sample; estimate with the table that has its runs, and a query that maps them"
            ),
        ));
    }
    let Some(all) = history.about_how_many().await? else {
        return Err(HistoryError::misfit(
            "history.table",
            format_args!(
                "the statistics know no runs of {table}; unless it is empty, run `analyze {table}` first"
            ),
        ));
    };
    let started = Instant::now();
    let sample = sample(history, pool, all).await?;
    let sampling = started.elapsed();
    let scale = |part: usize| scaled(part as u64, all, sample.runs);

    let mut by_runs: Vec<_> = sample.workspaces.iter().collect();
    by_runs.sort_by(|a, b| b.1.runs.cmp(&a.1.runs).then(a.0.cmp(b.0)));
    let mut busiest = Vec::new();
    for (name, seen) in by_runs.into_iter().take(SHOWN) {
        let runs = scale(seen.runs);
        let (today, timed_runs) = question(history, pool, name, runs).await?;
        let published_runs = seen.published_runs.values();
        busiest.push(Workspace {
            workspace: name.clone(),
            runs,
            published_runs: distinct(published_runs.copied(), sample.runs, all),
            today,
            timed_runs,
        });
    }
    // Apart: users' lists are many and short, and as one population with the workspaces' they would seem
    // as few as these.
    let [of_workspaces, of_users] = [true, false].map(|of_workspace| {
        let keys = sample.keys.iter();
        let of = keys.filter(|((_, uid, _), _)| uid.is_empty() == of_workspace);
        distinct(of.map(|(_, count)| *count), sample.runs, all)
    });
    let rows = of_workspaces + of_users;
    let row_bytes = ROW_BYTES + sample.key_bytes / (sample.keys.len() as u64).max(1) * 3;
    // A sample reads blocks here and there and maps their runs, as a window does with its range.
    let per_run = sampling.as_secs_f64() / sample.runs.max(1) as f64;
    Ok(Estimate {
        runs: all,
        sampled: sample.runs,
        busiest,
        round_trip: round_trip(pool).await?,
        rows,
        table_bytes: rows * row_bytes,
        backfill: Duration::from_secs_f64(
            per_run * all as f64 + ROW_TIME.as_secs_f64() * rows as f64,
        ),
    })
}

/// Whether it is a table, a partitioned one, or a materialized view.
async fn can_be_sampled(pool: &PgPool, table: &str) -> Result<bool, HistoryError> {
    let kind =
        "select relkind in ('r', 'p', 'm') from pg_catalog.pg_class where oid = to_regclass($1)";
    let kind = sqlx::query_scalar(kind).bind(table).fetch_one(pool).await;
    kind.map_err(HistoryError::Database)
}

#[derive(Default)]
struct Sample {
    runs: u64,
    workspaces: HashMap<String, Seen>,
    /// How often each key of the table was seen.
    keys: HashMap<(String, String, String), u64>,
    key_bytes: u64,
}

#[derive(Default)]
struct Seen {
    runs: usize,
    published_runs: HashMap<String, u64>,
}

impl Sample {
    fn take(&mut self, usage: &Usage<'_>) {
        let seen = self.workspaces.entry(usage.workspace.into()).or_default();
        seen.runs += 1;
        *seen
            .published_runs
            .entry(usage.published_run.into())
            .or_default() += 1;
        for uid in HashSet::from(["", usage.uid.unwrap_or("")]) {
            let key = (
                usage.workspace.into(),
                uid.to_owned(),
                usage.published_run.into(),
            );
            let bytes = usage.workspace.len() + uid.len() + usage.published_run.len();
            let count = self.keys.entry(key).or_insert_with(|| {
                self.key_bytes += bytes as u64;
                0
            });
            *count += 1;
        }
    }
}

async fn sample(history: &History, pool: &PgPool, runs: u64) -> Result<Sample, HistoryError> {
    let mapping = &history.mapping();
    let percent = (SAMPLE_RUNS as f64 * 100.0 / runs as f64).min(100.0);
    let part = format!(
        "select * from {} tablesample system ({percent:.6}) limit {SAMPLE_RUNS}",
        mapping.table
    );
    let text = wrap(&mapping.query, &part, Dialect::Postgres, None, "");
    let mut tx = begin(pool, TIMEOUT).await?;
    let rows = sqlx::query(AssertSqlSafe(text)).fetch_all(&mut *tx).await;
    let mut sample = Sample::default();
    for row in timed_out(rows.map_err(HistoryError::Database), TIMEOUT)? {
        sample.runs += 1;
        if let Ok(usage) = raw_use(&row).map_err(HistoryError::Database)?.check() {
            sample.take(&usage);
        }
    }
    Ok(sample)
}

/// How long one workspace's newest published runs take, from a bounded number of its runs: sorting
/// them makes it grow a little faster than they do.
async fn question(
    history: &History,
    pool: &PgPool,
    workspace: &str,
    runs: u64,
) -> Result<(Option<Duration>, u64), HistoryError> {
    let timed = runs.clamp(1, TIMED_RUNS);
    let uses = history.mapping().workspace();
    let text = format!(
        "select count(*) from (select distinct on (published_run) * from \
         (select * from ({uses}) as w (run, workspace, uid, published_run, last_used_at) \
          limit {timed}) as u order by published_run, last_used_at desc) as newest"
    );
    let mut tx = begin(pool, TIMEOUT).await?;
    // Once for the cache, once for the clock.
    for warm in [false, true] {
        let started = Instant::now();
        let query = sqlx::query(AssertSqlSafe(text.clone())).bind(workspace);
        match query.fetch_one(&mut *tx).await {
            Ok(_) if warm => {
                let more = runs as f64 / timed as f64;
                let sorting = (runs.max(2) as f64).ln() / (timed.max(2) as f64).ln();
                let today = started.elapsed().mul_f64(more * sorting.max(1.0));
                return Ok((Some(today), timed));
            }
            Ok(_) => {}
            Err(error) if was_ended(&error) => break,
            Err(error) => return Err(HistoryError::Database(error)),
        }
    }
    Ok((None, timed))
}

async fn round_trip(pool: &PgPool) -> Result<Duration, HistoryError> {
    let mut best = TIMEOUT;
    for _ in 0..10 {
        let started = Instant::now();
        sqlx::query("select 1")
            .execute(pool)
            .await
            .map_err(HistoryError::Database)?;
        best = best.min(started.elapsed());
    }
    Ok(best)
}

fn scaled(part: u64, runs: u64, sampled: u64) -> u64 {
    (part as f64 * runs as f64 / sampled.max(1) as f64).round() as u64
}

/// How many distinct values a whole has of which a sample saw each value so often: the estimator of
/// Haas and Stokes (1998) that PostgreSQL's own `n_distinct` uses, n·d / (n − f1 + f1·n/N), of the values
/// that were seen rarely, and the others as they are. Without that, few values that occur often would hide
/// that most of them occur once.
///
/// What is drawn are occurrences of values, n of N, which are fewer or more than the runs that they come
/// from: a run counts for no list, for one or for two. So f1 ≤ n, and the estimate is between the d values
/// that were seen and N.
fn distinct(seen: impl Iterator<Item = u64> + Clone, sampled: u64, whole: u64) -> u64 {
    let often = seen.clone().filter(|n| *n > RARE).count() as u64;
    let rare = seen.filter(|n| *n <= RARE);
    let drawn = rare.clone().sum::<u64>() as f64;
    if drawn == 0.0 {
        return often;
    }
    let values = rare.clone().count() as f64;
    let once = rare.filter(|n| *n == 1).count() as f64;
    // Statistics may know fewer runs than were sampled.
    let part = sampled.max(1) as f64 / whole.max(sampled).max(1) as f64;
    often + (drawn * values / (drawn - once + once * part)).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(seen: &[u64], sampled: u64, whole: u64) -> u64 {
        distinct(seen.iter().copied(), sampled, whole)
    }

    #[test]
    fn what_was_seen_of_everything_is_all_there_is() {
        for seen in [&[][..], &[1], &[1, 1, 1], &[5, 1, 2]] {
            let values = seen.len() as u64;
            let drawn: u64 = seen.iter().sum();
            assert_eq!(about(seen, drawn, drawn), values, "{seen:?}");
            // Of fewer runs than they are occurrences, and of statistics that are behind.
            assert_eq!(about(seen, 3, 3), values, "{seen:?}");
            assert_eq!(about(seen, 3, 1), values, "{seen:?}");
        }
    }

    #[test]
    fn values_seen_once_each_are_as_many_as_occurrences() {
        let once = vec![1; 1_000];
        assert_eq!(about(&once, 1_000, 50_000), 50_000);
        // Two occurrences of each run.
        assert_eq!(about(&once, 500, 25_000), 50_000);
        // One of every second run.
        assert_eq!(about(&once, 2_000, 100_000), 50_000);
    }

    #[test]
    fn values_seen_often_are_those_that_were_seen() {
        assert_eq!(about(&[100; 240], 24_000, 7_000_000), 240);
    }

    #[test]
    fn an_estimate_is_between_what_was_seen_and_all_occurrences() {
        for seen in [&[1, 1, 9][..], &[2, 2], &[1], &[1, 1_000_000]] {
            let drawn: u64 = seen.iter().sum();
            for sampled in [0, 1, drawn / 2, drawn, 3 * drawn] {
                for times in [1, 2, 1_000] {
                    let told = about(seen, sampled, sampled * times);
                    let values = seen.len() as u64;
                    assert!(
                        (values..=drawn * times).contains(&told),
                        "{seen:?} of {sampled} × {times}: {told}"
                    );
                }
            }
        }
    }
}
