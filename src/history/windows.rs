//! Walking a history by windows of keys: read-only, each short, a bounded few at once, and never one
//! left out.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::around::{Around, Part};
use super::mapping::From;
use super::order::Order;
use super::scan::Range;
use super::session::Taker;
use super::stretch::{Gathered, MAX_GATHERED_BYTES, Sender, Stretch, Stretches};
use super::unmappable::Unmappable;
use super::{History, HistoryError};
use crate::model::{RawUse, Time};
use crate::telemetry::chain;

/// Windows that are read at the same time: enough to keep the database busy while one is folded,
/// few enough that its other users hardly notice.
const AT_ONCE: usize = 2;
/// How long a window's query should take. The longest takes about twice as long, which is to be less than half a
/// second.
const TARGET: Duration = Duration::from_millis(200);
/// Runs of the first window; the following ones approach [`TARGET`].
const FIRST_RUNS: u32 = 20_000;
/// Runs of a window at the most that may be asked for …
pub const MAX_RUNS: u32 = 200_000;
/// … and that it has by itself. Of more, as a fast machine reads within [`TARGET`], a backfill of 7.4 million took
/// 105 MiB, of these 95; each window costs the join's hash table anew.
pub const RUNS: u32 = 120_000;
/// Uses of a window take no more memory than this, about: those that are being read come on top of what waits
/// to be taken.
const MAX_WINDOW_BYTES: usize = 8 * 1024 * 1024;
/// Runs of a window at the least, however slow the history: below, the queries' own cost dominates.
const MIN_RUNS: u32 = 100;

/// A window that is being read.
struct Reading {
    from: From,
    end: String,
    runs: u64,
    task: JoinHandle<Result<(Stretch, Duration), HistoryError>>,
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Sends the history's runs from the greatest key down to `last`, in windows of at most `max_runs`, beginning
/// behind the cursor of an earlier walk. Runs that cannot be mapped are counted and passed over.
pub fn walk(
    history: Arc<History>,
    cursor: Option<String>,
    last: String,
    max_runs: u32,
    unmappable: Unmappable,
) -> Stretches {
    let (sender, stretches) = Stretches::channel();
    let max_runs = max_runs.clamp(1, MAX_RUNS);
    let walk = Walk {
        order: history.key_order(),
        history,
        next: cursor.map_or(From::First, From::Behind),
        last,
        runs: FIRST_RUNS.min(max_runs),
        max_runs,
        reading: VecDeque::new(),
        all_begun: false,
        gathered: sender.gathered.clone(),
        unmappable,
    };
    tokio::spawn(walk.run(sender));
    stretches
}

struct Walk {
    history: Arc<History>,
    /// That of its keys.
    order: Order,
    /// Where the next window begins.
    next: From,
    last: String,
    /// Runs of the next window.
    runs: u32,
    max_runs: u32,
    /// In the order of their keys.
    reading: VecDeque<Reading>,
    all_begun: bool,
    gathered: Gathered,
    unmappable: Unmappable,
}

impl Walk {
    async fn run(mut self, sender: Sender) {
        loop {
            let step = self.step().await;
            // Every window is read with the types of its time, in the order of its time, and they are known
            // since.
            let step = match self.history.key_order() == self.order {
                true => step,
                false => Err(HistoryError::Reordered),
            };
            let sent = match step {
                Ok(Some(stretch)) => sender.send(Ok(Some(stretch))).await,
                Ok(None) => {
                    // Nobody may be waiting any more; then nobody needs to know.
                    let _ = sender.send(Ok(None)).await;
                    return;
                }
                Err(error) => {
                    let _ = sender.send(Err(error)).await;
                    return;
                }
            };
            if sent.is_err() {
                return;
            }
        }
    }

    /// The first window that is not sent yet, when it is read; `None` behind the last.
    async fn step(&mut self) -> Result<Option<Stretch>, HistoryError> {
        loop {
            while self.has_room() && !self.all_begun {
                self.begin().await?;
            }
            let Some(mut first) = self.reading.pop_front() else {
                return Ok(None);
            };
            match (&mut first.task).await {
                Ok(Ok((mut stretch, took))) => {
                    self.adapt(first.runs, took, stretch.grew);
                    stretch.tally.scanned = first.runs;
                    let mapped = stretch.tally.uses + stretch.tally.skipped_in_all();
                    stretch.tally.unmapped = first.runs.saturating_sub(mapped);
                    stretch.cursor = Some(first.end.clone());
                    return Ok(Some(stretch));
                }
                Ok(Err(HistoryError::TimedOut(_))) if first.runs > u64::from(MIN_RUNS) => {
                    // Begin again here with half of it; what was begun behind it is too large too.
                    self.runs = u32::try_from(first.runs / 2)
                        .unwrap_or(MIN_RUNS)
                        .max(MIN_RUNS);
                    self.max_runs = self.runs;
                    self.next = first.from.clone();
                    self.all_begun = false;
                    self.reading.clear();
                    tracing::warn!(runs = self.runs, "a window took too long; it is halved");
                }
                // It is not for this window alone.
                Ok(Err(error @ HistoryError::Unmappable { .. })) => return Err(error),
                Ok(Err(error)) => return Err(lost(&first, chain(&error), error.outward())),
                Err(error) => return Err(lost(&first, error.to_string(), BROKE_OFF.into())),
            }
        }
    }

    /// Whether another window may begin: one always, so that whoever takes the uses hears of it.
    fn has_room(&self) -> bool {
        let most = match self.gathered.bytes() {
            ..MAX_GATHERED_BYTES => AT_ONCE,
            _ => 1,
        };
        self.reading.len() < most
    }

    async fn begin(&mut self) -> Result<(), HistoryError> {
        let (end, runs) = self
            .history
            .window_end(&self.next, &self.last, self.runs)
            .await?;
        self.all_begun = end == self.last;
        let from = std::mem::replace(&mut self.next, From::Behind(end.clone()));
        let window = Part {
            from: from.clone(),
            end: end.clone(),
            runs,
        };
        let task = tokio::spawn(read(
            Arc::clone(&self.history),
            window,
            self.gathered.clone(),
            self.unmappable.clone(),
        ));
        self.reading.push_back(Reading {
            from,
            end,
            runs,
            task,
        });
        Ok(())
    }

    /// Lets the next windows take about [`TARGET`], and no more than [`MAX_WINDOW_BYTES`], changing at most
    /// twofold at once.
    fn adapt(&mut self, runs: u64, took: Duration, grew: usize) {
        let in_time = runs as f64 * TARGET.as_secs_f64() / took.as_secs_f64().max(0.001);
        let in_memory = runs as f64 * MAX_WINDOW_BYTES as f64 / grew.max(1) as f64;
        let fitting = in_time.min(in_memory);
        let fitting = fitting.clamp(f64::from(self.runs) / 2.0, f64::from(self.runs) * 2.0);
        // In range: between the two bounds of a u32.
        self.runs = (fitting as u32).clamp(MIN_RUNS.min(self.max_runs), self.max_runs);
    }
}

async fn read(
    history: Arc<History>,
    window: Part,
    gathered: Gathered,
    unmappable: Unmappable,
) -> Result<(Stretch, Duration), HistoryError> {
    let (mut stretch, started, now) = (Stretch::default(), Instant::now(), Time::now());
    let mut around = Around::of(&history, &unmappable, window);
    while let Some(part) = around.next() {
        let mut taker = Taking {
            taken: Stretch::default(),
            now,
            gathered: &gathered,
        };
        let scanned = history.scan(Range::Window(&part.from, &part.end), &mut taker);
        let scanned = scanned.await;
        // A part that fails counts for nothing; its uses do no harm.
        if scanned.is_ok() {
            stretch.tally.add(&taker.taken.tally);
            stretch.grew += taker.taken.grew;
        }
        around.was(part, scanned).await?;
    }
    stretch.tally.unmappable = around.passed_over;
    Ok((stretch, started.elapsed()))
}

/// Takes a part of a window.
struct Taking<'a> {
    taken: Stretch,
    now: Time,
    gathered: &'a Gathered,
}

impl Taker for &mut Taking<'_> {
    fn take(&mut self, raw: RawUse<'_>) -> bool {
        self.taken.take(raw, self.now, self.gathered);
        false
    }

    fn begins_again(&mut self) -> bool {
        self.taken = Stretch::default();
        true
    }
}

/// What is said outward of a window whose task ended by itself.
const BROKE_OFF: &str = "reading it broke off";

fn lost(window: &Reading, problem: String, outward: String) -> HistoryError {
    let from = match &window.from {
        From::First => "the newest".into(),
        From::Behind(key) => format!("before {key}"),
    };
    HistoryError::Window {
        from,
        to: window.end.clone(),
        problem,
        outward,
    }
}
