//! The one way in: a bounded queue, folded and written by one task, acknowledged after the commit.

mod flush;
pub mod fold;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::model::{Key, Newest, Usage};
use crate::store::recent::MAX_KEYS;
use crate::store::{Pace, Store, StoreError};
use crate::telemetry::{Metrics, Outage};
use flush::Table;

pub use fold::Fold;

/// Uses that wait for the database at the most. At the slowest measured rate (1,000/s, one hot key
/// and a slow disk) that is ten seconds of waiting; more would only be told later.
pub const MAX_QUEUED_USES: usize = 10_000;

/// How long uses are gathered for a flush while more come in: as long as a fast disk's commit takes.
const GATHER_WITHIN: Duration = Duration::from_millis(1);
/// So many turns of the runtime without a further use end that: one more than one, because the clients are
/// slower than the runtime; they take microseconds where nothing else runs.
const QUIET_TURNS: u32 = 3;

/// What became of the uses of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Uses that changed the workspace's list.
    pub applied: u64,
    /// Uses that an equal or a newer use outdid.
    pub superseded: u64,
    /// Names them all, for reads that must not be older: a [`Token`](crate::store::Token) as text, one for all requests of a
    /// flush.
    pub token: Arc<str>,
}

/// Why uses were not recorded. Nothing of the request is in the table then, unless the database
/// went away before it could confirm.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RecordError {
    /// [`MAX_QUEUED_USES`] are waiting already.
    #[error("{MAX_QUEUED_USES} uses are waiting for the database; send these again later")]
    QueueFull,
    /// The service is shutting down.
    #[error("the service is shutting down; send these again to another one")]
    Closed,
    /// The database did not take them.
    #[error(transparent)]
    Store(#[from] Arc<StoreError>),
}

/// A use on its way: what it says about the workspace's list and, with a user, about theirs.
#[derive(Debug)]
struct Entry {
    workspace_list: Key,
    user_list: Option<Key>,
    newest: Newest,
}

/// One request's uses, in the queue.
#[derive(Debug)]
struct Pending {
    entries: Vec<Entry>,
    done: oneshot::Sender<Result<Recorded, RecordError>>,
    /// The request's place in the queue, given back when it is done.
    _place: OwnedSemaphorePermit,
}

/// How uses are recorded.
#[derive(Debug, Clone, Default)]
pub struct Recording {
    /// Where a history is configured, every row that changes is noted: the history is authoritative,
    /// and the drain asks it.
    pub noting: bool,
    /// How far apart flushes are kept.
    pub pace: Pace,
}

/// Records uses. Clones share one queue and one writer.
#[derive(Debug, Clone)]
pub struct Recorder {
    queue: mpsc::UnboundedSender<Pending>,
    places: Arc<Semaphore>,
    metrics: Arc<Metrics>,
    store: Store,
}

impl Recorder {
    /// Starts the writer. It ends, after writing what is queued, when every clone of the recorder
    /// is gone.
    pub fn start(store: Store, metrics: Arc<Metrics>, how: Recording) -> (Self, JoinHandle<()>) {
        // Bounded by the places, which count uses; the channel counts requests.
        let (queue, pending) = mpsc::unbounded_channel();
        let recorder = Self {
            queue,
            places: Arc::new(Semaphore::new(MAX_QUEUED_USES)),
            metrics,
            store: store.clone(),
        };
        let places = Arc::clone(&recorder.places);
        let metrics = Arc::clone(&recorder.metrics);
        let table = Table {
            store,
            how,
            outage: Outage::default(),
        };
        (
            recorder,
            tokio::spawn(write_all(table, metrics, places, pending)),
        )
    }

    /// Records `uses` and waits until they are durable. They are written even if the caller stops
    /// waiting. All or nothing, for up to [`MAX_KEYS`] rows.
    ///
    /// # Errors
    /// [`RecordError`]; the same uses may be sent again, doing so changes nothing twice.
    pub async fn record(&self, uses: &[Usage<'_>]) -> Result<Recorded, RecordError> {
        if uses.is_empty() {
            self.store.changes().pass();
            return Ok(Recorded {
                applied: 0,
                superseded: 0,
                token: self.store.token().await.encode().into(),
            });
        }
        let places = u32::try_from(uses.len()).map_err(|_| RecordError::QueueFull)?;
        let place = Arc::clone(&self.places)
            .try_acquire_many_owned(places)
            .map_err(|_| RecordError::QueueFull)?;
        let (done, answer) = oneshot::channel();
        let entries = uses.iter().map(Entry::from).collect();
        self.queue
            .send(Pending {
                entries,
                done,
                _place: place,
            })
            .map_err(|_| RecordError::Closed)?;
        self.metrics.record_queue_depth.set(queued(&self.places));
        answer.await.unwrap_or(Err(RecordError::Closed))
    }
}

/// Uses in the queue, counted by the places that they take.
fn queued(places: &Semaphore) -> i64 {
    i64::try_from(MAX_QUEUED_USES - places.available_permits()).unwrap_or(i64::MAX)
}

impl From<&Usage<'_>> for Entry {
    fn from(usage: &Usage<'_>) -> Self {
        let list = |uid| Key::new(usage.workspace, uid, usage.published_run);
        Self {
            workspace_list: list(""),
            user_list: usage.uid.map(list),
            newest: Newest {
                last_used_at: usage.last_used_at,
                run: usage.run.map(Into::into),
            },
        }
    }
}

/// Writes flush after flush: the next begins when the last one ends, with all that came meanwhile.
async fn write_all(
    table: Table,
    metrics: Arc<Metrics>,
    places: Arc<Semaphore>,
    mut queue: mpsc::UnboundedReceiver<Pending>,
) {
    let mut next = queue.recv().await;
    while let Some(first) = next.take() {
        gather(&queue).await;
        let mut batch = flush::Batch::new(first);
        while let Ok(pending) = queue.try_recv() {
            if let Err(pending) = batch.add(pending) {
                next = Some(pending);
                break;
            }
        }
        let started = Instant::now();
        batch.write(&table, &metrics).await;
        metrics.record_queue_depth.set(queued(&places));
        if next.is_none() {
            next = queue.recv().await;
        }
        table.how.pace.written(&table.store);
        let apart = table.how.pace.least();
        if !apart.is_zero() {
            tokio::time::sleep_until(started + apart).await;
        }
    }
}

/// Lets what is on its way in come in first: as long as turns of the runtime, each of which reads off the
/// sockets whatever has come, find more uses, those go with the flush. No timer: a use that comes alone is
/// written at once, and under load a flush, which costs about the same for one use and for many, is shared
/// by more.
async fn gather(queue: &mpsc::UnboundedReceiver<Pending>) {
    let from = Instant::now();
    let (mut known, mut quiet) = (0, 0);
    while quiet < QUIET_TURNS && from.elapsed() < GATHER_WITHIN {
        tokio::task::yield_now().await;
        quiet = match queue.len() == known {
            true => quiet + 1,
            false => 0,
        };
        known = queue.len();
    }
}

const _: () = assert!(
    MAX_KEYS >= 2_000,
    "a request of 1,000 uses with users must fit in a flush"
);
