//! The drain of a running service: polls often while there is something to do, seldom while not.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::drain::{Drain, Step};
use super::outbox::{self, Notes};
use crate::config::HistoryConfig;
use crate::history::{self, History, HistoryError};
use crate::store::{Pace, Store, note};
use crate::telemetry::{Metrics, Repeated, chain};

/// The next look after work was done, where a step works off all that waits: bounds how long a change stays unseen under load, against what
/// small batches cost. A batch of one run takes a millisecond or two of the processors.
const BUSY: Duration = Duration::from_millis(50);
/// The next look after long silence: bounds how long the first change after it stays unseen, and what
/// an idle service costs, four times two look-ups a second.
const IDLE: Duration = Duration::from_millis(250);
/// After a failure.
const FAILED: Duration = Duration::from_secs(2);
/// How often notes that were set aside are tried again, beside each start: a run that is mended itself is
/// noted, but not one that a joined row or the mapping keeps from being mapped.
const RETRY_EVERY: Duration = Duration::from_secs(600);
/// How often the backlog is counted, and looked whether capture is installed …
const COUNT_EVERY: Duration = Duration::from_secs(5);
/// … and while it is not, whether it is by now, which the first changes behind an installation wait for.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Somebody took capture away; a step finds that out, or a count.
const UNINSTALLED: &str = "capture was uninstalled: what changes in the history is noted no more";

/// Drains until it is dropped. Connects to the history as soon as it answers.
///
/// # Errors
/// Where the configuration does not fit the history: [`HistoryError::Misfit`] and
/// [`HistoryError::Refused`].
pub async fn run(
    store: Store,
    config: HistoryConfig,
    metrics: Arc<Metrics>,
    pace: Pace,
) -> Result<Infallible, HistoryError> {
    let mut misfit = false;
    let history = loop {
        match history::connect(&config).await {
            Ok(history) => break Arc::new(history),
            Err(error @ (HistoryError::Misfit { .. } | HistoryError::Refused(_))) if misfit => {
                return Err(error);
            }
            Err(error) => {
                // Once may be a run that changed while the mapping was tried with it.
                misfit = matches!(
                    error,
                    HistoryError::Misfit { .. } | HistoryError::Refused(_)
                );
                let error = chain(&error);
                tracing::warn!(error, "the history cannot be followed yet; trying again");
                tokio::time::sleep(FAILED).await;
            }
        }
    };
    let mut drain = Drain::new(
        store.clone(),
        Arc::clone(&history),
        Some(Arc::clone(&metrics)),
    );
    let (mut looked, mut pause) = (None::<Instant>, BUSY);
    let mut said = Repeated::default();
    let (mut installed, mut retried, mut told) = (false, None::<Instant>, Repeated::default());
    let mut looked_for = Instant::now();
    let mut oldest = Oldest::default();
    let mut counted = Instant::now();
    loop {
        if retried.is_none_or(|at| at.elapsed() > RETRY_EVERY) {
            retried = Some(Instant::now());
            drain.retry_all();
        }
        if !installed && looked_for.elapsed() > LOOK_EVERY {
            looked_for = Instant::now();
            // What fails is told below.
            if matches!(whose(&history, &mut drain).await, Ok(Notes::Ours)) {
                looked = None;
            }
        }
        if looked.is_none_or(|at| at.elapsed() > COUNT_EVERY) {
            looked = Some(Instant::now());
            let says = match count(&store, &history, &metrics, &mut drain, &mut oldest).await {
                Ok(notes) => {
                    counted = Instant::now();
                    match notes {
                        Notes::None if installed => tracing::info!("{UNINSTALLED}"),
                        Notes::Ours if !installed => {
                            tracing::info!(
                                "capture is installed: what changes in the history is noted"
                            );
                        }
                        _ => {}
                    }
                    installed = notes == Notes::Ours;
                    match notes {
                        Notes::Anothers(store) => Some(format!(
                            "its notes are those of another store, {store}; `recents capture install \
                             --take-over` has this one take them"
                        )),
                        Notes::None | Notes::Ours => None,
                    }
                }
                Err(error) => {
                    // Nobody knows what waits: whatever came since may.
                    let lag = counted.elapsed().as_secs_f64();
                    metrics.capture_lag.set(lag.max(metrics.capture_lag.get()));
                    Some(error)
                }
            };
            match says {
                Some(error) if told.is_news(&error) => {
                    tracing::warn!(error, "the outbox is not drained");
                }
                Some(_) => {}
                None => told.well(),
            }
        }
        let least = BUSY.max(pace.least());
        pause = match drain.step(installed).await {
            Ok(Step::Worked) => {
                said.well();
                match drain.is_behind() {
                    true => pace.least(),
                    false => least,
                }
            }
            Ok(Step::Idle) => {
                said.well();
                behind_silence(pause, least)
            }
            // Somebody took capture away meanwhile.
            Err(_) if installed && matches!(whose(&history, &mut drain).await, Ok(Notes::None)) => {
                tracing::info!("{UNINSTALLED}");
                installed = false;
                BUSY
            }
            Err(error) => {
                let error = chain(&error);
                if said.is_news(&error) {
                    tracing::warn!(error, "notes cannot be worked off; trying again");
                }
                looked = None;
                FAILED
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// The next pause where there was nothing to do, [`IDLE`] at the most, or as long as writes are kept apart.
fn behind_silence(pause: Duration, least: Duration) -> Duration {
    (pause * 2).min(IDLE).max(least)
}

/// Whose the notes of the outbox are.
async fn whose(history: &History, drain: &mut Drain) -> Result<Notes, String> {
    let notes = drain.whose_notes(history).await;
    match notes.map_err(said)? {
        // The tables may have been made anew, and be another store since.
        Notes::Anothers(_) => {
            drain.forget_identity();
            drain.whose_notes(history).await.map_err(said)
        }
        notes => Ok(notes),
    }
}

fn said(error: impl std::error::Error + 'static) -> String {
    chain(&error)
}

/// Tells the metrics what waits; returns whose the notes of the outbox are.
async fn count(
    store: &Store,
    history: &History,
    metrics: &Metrics,
    drain: &mut Drain,
    oldest: &mut Oldest,
) -> Result<Notes, String> {
    let notes = whose(history, drain).await?;
    let backlog = match notes {
        Notes::Ours => outbox::backlog(history).await.map_err(said)?,
        Notes::None | Notes::Anothers(_) => outbox::Backlog::default(),
    };
    let standing = note::standing(store).await.map_err(said)?;
    drain.saw_set_aside(standing.set_aside);
    let waiting = standing.notes.saturating_sub(standing.set_aside);
    metrics
        .capture_backlog_rows
        .set(backlog.rows + i64::try_from(waiting).unwrap_or(i64::MAX));
    let ends = note::ends(store, 0).await.map_err(said)?;
    let lag = backlog.lag.max(oldest.have_waited(ends));
    metrics.capture_lag.set(lag.as_secs_f64());
    Ok(notes)
}

/// The oldest notes of the table. They carry no time, and so they are those that stood when it was last looked
/// with none of the ones before them left.
#[derive(Debug, Default)]
struct Oldest(Option<(i64, Instant)>);

impl Oldest {
    /// How long the oldest note has waited at least, of the ids of the oldest and the newest.
    fn have_waited(&mut self, ends: Option<(i64, i64)>) -> Duration {
        self.0 = match (ends, self.0) {
            (None, _) => None,
            (Some((oldest, _)), Some(seen)) if oldest <= seen.0 => Some(seen),
            (Some((_, newest)), _) => Some((newest, Instant::now())),
        };
        self.0.map_or(Duration::ZERO, |(_, since)| since.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_while_nothing_is_to_do_and_are_no_shorter_than_writes_are_kept_apart() {
        assert_eq!(behind_silence(BUSY, BUSY), BUSY * 2);
        assert_eq!(behind_silence(IDLE, BUSY), IDLE);
        assert_eq!(behind_silence(BUSY, IDLE * 2), IDLE * 2);
    }

    #[test]
    fn the_oldest_notes_wait_until_none_of_those_that_stood_is_left() {
        let mut oldest = Oldest::default();
        assert_eq!(oldest.have_waited(None), Duration::ZERO);
        oldest.have_waited(Some((3, 10)));
        let since = oldest.0.map(|(_, since)| since);
        oldest.have_waited(Some((7, 90)));
        assert_eq!(oldest.0.map(|(_, since)| since), since, "7 stood before");
        oldest.have_waited(Some((11, 90)));
        assert!(oldest.0.map(|(_, since)| since) > since, "11 came since");
        assert_eq!(oldest.have_waited(None), Duration::ZERO);
    }
}
