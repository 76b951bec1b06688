//! Where lists are read: the table, in the primary or in a streaming replica that is far enough; or the
//! history.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::history::HistoryLists;
use super::page::{self, RecentWorkflow};
use super::rest::Rest;
use crate::cache::Changes;
use crate::store::lists::ListStart;
use crate::store::{Reached, Store, StoreError};
use crate::telemetry::{Repeated, chain};

/// How long a replica that is behind is waited for; then the primary answers.
const WAIT: Duration = Duration::from_millis(100);
/// How long it may take to say how far it is, also where it has to be connected to first.
const REPLY_WITHIN: Duration = Duration::from_millis(500);
/// How often it is asked meanwhile.
const ASK_EVERY: Duration = Duration::from_millis(5);

/// What a replica must have replayed for a read. The least that any has.
pub(super) const WHATEVER: u64 = 0;
/// More than any replica has: only the primary will do.
pub(super) const PRIMARY: u64 = u64::MAX;

/// Where a loader reads.
#[derive(Debug)]
pub(super) enum Source {
    /// The table.
    Table(Arc<Table>),
    /// The history, which is one database, and always of now.
    History(Arc<HistoryLists>),
}

impl Source {
    /// Whether what failed for some lists may be the fault of one of them.
    pub(super) fn may_be_of_one(&self, error: &StoreError) -> bool {
        match self {
            // A row that somebody else wrote, or a value that the database has no use for.
            Self::Table(_) => matches!(error, StoreError::Corrupt(_) | StoreError::Refused(_)),
            Self::History(_) => matches!(
                error,
                StoreError::Other(_) | StoreError::Unavailable(sqlx::Error::PoolTimedOut)
            ),
        }
    }

    /// The first `rows` items of each list, where it is the table from a database that has replayed a
    /// position at least.
    pub(super) async fn read(
        &self,
        starts: &[ListStart],
        rows: u32,
        least: u64,
    ) -> Result<Read, StoreError> {
        match self {
            Self::Table(table) => table.read(starts, rows, least).await,
            Self::History(history) => Ok(Read {
                lists: history.read(starts, rows).await?,
                replayed: None,
            }),
        }
    }
}

/// The databases of one table.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) primary: Store,
    replica: Option<Replica>,
}

#[derive(Debug)]
struct Replica {
    store: Store,
    rest: Rest,
    /// Why it could not be read: after a failover for minutes, and once a second.
    said: Mutex<Repeated>,
}

/// Lists as one of the databases has them.
pub(super) struct Read {
    pub(super) lists: Vec<Vec<RecentWorkflow>>,
    /// How far the replica was before it was asked; `None` of the primary.
    pub(super) replayed: Option<Reached>,
}

impl Table {
    pub(super) fn new(primary: Store, replica: Option<Store>) -> Self {
        let replica = replica.map(|store| Replica {
            store,
            rest: Rest::new(),
            said: Mutex::default(),
        });
        Self { primary, replica }
    }

    /// The first `rows` items of each list, from a database that has replayed a position at least.
    pub(super) async fn read(
        &self,
        starts: &[ListStart],
        rows: u32,
        least: u64,
    ) -> Result<Read, StoreError> {
        if let Some(replica) = self.replica.as_ref().filter(|_| least < PRIMARY)
            && replica.rest.is_over()
        {
            match replica
                .read(starts, rows, least, self.primary.changes())
                .await
            {
                Ok(Some(read)) => {
                    replica.said().well();
                    return Ok(read);
                }
                Ok(None) => tracing::debug!("the replica is behind; the primary answers"),
                Err(error) => replica.leave_alone(&error),
            }
        }
        let lists = page::read(&self.primary, starts, rows).await?;
        Ok(Read {
            lists,
            replayed: None,
        })
    }
}

/// It was promoted, or the primary was another server before: it may be further than any token, and lack what
/// that names.
fn of_another_history(reached: Reached, primary: u32) -> StoreError {
    let timeline = reached.timeline;
    let error = format!("it is of timeline {timeline}, the primary of {primary}");
    StoreError::Other(sqlx::Error::Protocol(error))
}

impl Replica {
    fn leave_alone(&self, error: &StoreError) {
        self.rest.begin();
        let error = chain(error);
        if self.said().is_news(&error) {
            tracing::warn!(error, "the replica cannot be read; the primary answers");
        }
    }

    fn said(&self) -> MutexGuard<'_, Repeated> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` where it is too far behind: for the reader, or for what is known here of a list's changes.
    async fn read(
        &self,
        starts: &[ListStart],
        rows: u32,
        least: u64,
        changes: &Changes,
    ) -> Result<Option<Read>, StoreError> {
        let ask = async || {
            let reached = tokio::time::timeout(REPLY_WITHIN, self.store.reached()).await;
            let reached =
                reached.unwrap_or(Err(StoreError::Unavailable(sqlx::Error::PoolTimedOut)))?;
            match changes.timeline.load(Ordering::SeqCst) {
                // Nothing is known of the primary yet, and so of no position.
                0 => Ok(reached),
                timeline if timeline == reached.timeline => Ok(reached),
                timeline => Err(of_another_history(reached, timeline)),
            }
        };
        let mut reached = ask().await?;
        let deadline = Instant::now() + WAIT;
        while reached.at < least {
            if Instant::now() >= deadline {
                return Ok(None);
            }
            tokio::time::sleep(ASK_EVERY).await;
            reached = ask().await?;
        }
        let has = |ListStart { scope, .. }: &ListStart| {
            changes.is_replayed(&scope.workspace, scope.uid_column(), reached.at)
        };
        if !starts.iter().all(has) {
            return Ok(None);
        }
        let lists = page::read(&self.store, starts, rows).await?;
        Ok(Some(Read {
            lists,
            replayed: Some(reached),
        }))
    }
}
