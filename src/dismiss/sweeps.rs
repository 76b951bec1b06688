//! What a service sweeps by itself: what was dismissed, soon after; everything, from time to time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::sweep;
use crate::model::Key;
use crate::store::dismissal::Dismissed;
use crate::store::{Store, StoreError};
use crate::telemetry::{Repeated, chain};

/// How often everything is swept: what was dismissed is swept soon after, so that little is left.
const SWEEP_EVERY: Duration = Duration::from_secs(3600);
/// How long after it was dismissed: a write that began before did not see the watermark, and is over by
/// then. Often several published runs are deleted together, too.
const SWEEP_AFTER: Duration = Duration::from_secs(1);
/// After a failure.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(10);
/// Published runs that were dismissed everywhere and are not swept yet, at the most: a list may hold a
/// row of each, which a page steps over, two milliseconds for all of them.
const MAX_UNSWEPT: usize = 1_000;
/// Items and lists that are remembered to be swept, some megabytes of ids; with more, everything is.
const MAX_ASKED: usize = 10_000;
/// How long a dismissal waits until there is room; longer than a table of a million rows is swept.
const ROOM_WITHIN: Duration = Duration::from_secs(10);

/// Asks the service to sweep.
#[derive(Debug)]
pub struct Sweeps {
    asked: Mutex<Asked>,
    wake: Notify,
    room: Arc<Semaphore>,
}

/// The right to dismiss one published run everywhere; given back when it is swept.
#[derive(Debug)]
pub struct Room {
    _held: Option<OwnedSemaphorePermit>,
}

#[derive(Debug, Default)]
struct Asked {
    what: Vec<Dismissed>,
    rooms: Vec<Room>,
    everything: bool,
}

impl Default for Sweeps {
    fn default() -> Self {
        Self {
            asked: Mutex::default(),
            wake: Notify::new(),
            room: Arc::new(Semaphore::new(MAX_UNSWEPT)),
        }
    }
}

impl Sweeps {
    /// Waits until what is to be dismissed may be; `None` where too much waits to be swept for too long.
    pub async fn room(&self, what: &Dismissed) -> Option<Room> {
        let Dismissed::Everywhere(_) = what else {
            return Some(Room { _held: None });
        };
        let permit = Arc::clone(&self.room).acquire_owned();
        let permit = tokio::time::timeout(ROOM_WITHIN, permit).await.ok()?;
        Some(Room {
            _held: Some(permit.ok()?),
        })
    }

    /// Has the rows of what was dismissed swept.
    pub fn ask(&self, what: Dismissed, room: Room) {
        let mut asked = self.lock();
        match what {
            Dismissed::Everywhere(_) => asked.rooms.push(room),
            _ => asked.add(Asked {
                what: vec![what],
                ..Asked::default()
            }),
        }
        self.wake.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Asked> {
        // It is whole between any two changes.
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sweeps what is asked for, and everything at the start and from time to time. Ends with the
    /// service.
    pub async fn run(&self, store: Store) {
        // At the start, what an earlier one did not come to.
        let mut said = Repeated::default();
        let (mut asked, mut everything_at) = (Asked::default(), Instant::now());
        loop {
            asked.add(std::mem::take(&mut self.lock()));
            asked.everything |= everything_at <= Instant::now();
            tokio::time::sleep(SWEEP_AFTER).await;
            let next = match asked.sweep(&store).await {
                Ok(rows) => {
                    said.well();
                    tracing::debug!(rows, "swept what stays hidden");
                    if asked.everything {
                        everything_at = Instant::now() + SWEEP_EVERY;
                    }
                    asked = Asked::default();
                    everything_at
                }
                Err(error) => {
                    let error = chain(&error);
                    if said.is_news(&error) {
                        tracing::warn!(error, "what stays hidden cannot be swept; trying again");
                    }
                    Instant::now() + TRY_AGAIN_AFTER
                }
            };
            // Whoever asks wakes it before.
            let _ = tokio::time::timeout_at(next, self.wake.notified()).await;
        }
    }
}

impl Asked {
    fn add(&mut self, more: Self) {
        self.what.extend(more.what);
        self.rooms.extend(more.rooms);
        self.everything |= more.everything;
        if self.what.len() > MAX_ASKED {
            self.what.clear();
            self.everything = true;
        }
    }

    async fn sweep(&self, store: &Store) -> Result<u64, StoreError> {
        let mut swept = 0;
        let mut items: Vec<Key> = Vec::new();
        for what in &self.what {
            match what {
                Dismissed::Item(scope, item) => items.push(Key::of_item(scope, item)),
                Dismissed::List(scope) => swept += sweep::list(store, scope).await?,
                Dismissed::Everywhere(_) => {}
            }
        }
        items.sort_unstable();
        items.dedup();
        swept += sweep::keys(store, &items).await?;
        if self.everything || !self.rooms.is_empty() {
            swept += sweep::everything(store).await?;
        }
        if self.everything {
            sweep::watermarks(store).await?;
        }
        Ok(swept)
    }
}
