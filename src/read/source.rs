//! Where lists are read: the table, in the primary or in a streaming replica that is far enough; or the
//! history.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::history::HistoryLists;
use super::page::{self, RecentWorkflow};
use super::rest::Rest;
use crate::cache::Changes;
use crate::store::lists::ListStart;
use crate::store::{Store, StoreError};
use crate::telemetry::chain;

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
            // A row that somebody else wrote.
            Self::Table(_) => matches!(error, StoreError::Corrupt(_)),
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
}

/// Lists as one of the databases has them.
pub(super) struct Read {
    pub(super) lists: Vec<Vec<RecentWorkflow>>,
    /// What the replica had replayed before it was asked; `None` of the primary.
    pub(super) replayed: Option<u64>,
}

impl Table {
    pub(super) fn new(primary: Store, replica: Option<Store>) -> Self {
        let replica = replica.map(|store| Replica {
            store,
            rest: Rest::new(),
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
                Ok(Some(read)) => return Ok(read),
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

impl Replica {
    fn leave_alone(&self, error: &StoreError) {
        self.rest.begin();
        let error = chain(error);
        tracing::warn!(error, "the replica cannot be read; the primary answers");
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
            let replayed = tokio::time::timeout(REPLY_WITHIN, self.store.replayed()).await;
            replayed.unwrap_or(Err(StoreError::Unavailable(sqlx::Error::PoolTimedOut)))
        };
        let mut replayed = ask().await?;
        let deadline = Instant::now() + WAIT;
        while replayed < least {
            if Instant::now() >= deadline {
                return Ok(None);
            }
            tokio::time::sleep(ASK_EVERY).await;
            replayed = ask().await?;
        }
        let has = |ListStart { scope, .. }: &ListStart| {
            changes.is_replayed(&scope.workspace, scope.uid_column(), replayed)
        };
        if !starts.iter().all(has) {
            return Ok(None);
        }
        let lists = page::read(&self.store, starts, rows).await?;
        Ok(Some(Read {
            lists,
            replayed: Some(replayed),
        }))
    }
}
