//! Where lists are read: the table, in the primary or in a streaming replica that is far enough; or the
//! history.

use std::sync::Arc;
use std::time::Instant;

use super::away::Away;
use super::history::HistoryLists;
use super::page::{self, RecentWorkflow};
use super::replica::{READ_WITHIN, Replica};
use crate::cache::{ByReplica, CacheSettings};
use crate::store::lists::ListStart;
use crate::store::{AtHand, Store, StoreError};

/// What a replica must have replayed for a read. The least that any has.
pub(super) const WHATEVER: u64 = 0;
/// More than any replica has: only the primary will do.
pub(super) const PRIMARY: u64 = u64::MAX;

/// Where a loader reads.
#[derive(Debug)]
pub(super) enum Source {
    /// The table.
    Table(Arc<Table>),
    /// The table, as the replica has it, for who does not wait for the primary any more.
    Replica(Arc<Table>),
    /// The history, which is one database, and always of now.
    History(Arc<HistoryLists>),
}

impl Source {
    /// Whether what failed for some lists may be the fault of one of them.
    pub(super) fn may_be_of_one(&self, error: &StoreError) -> bool {
        match self {
            // A row that somebody else wrote, or a value that the database has no use for.
            Self::Table(_) | Self::Replica(_) => {
                matches!(error, StoreError::Corrupt(_) | StoreError::Refused(_))
            }
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
        at_hand: &mut AtHand,
    ) -> Result<Read, StoreError> {
        match self {
            Self::Table(table) => table.read(starts, rows, least, at_hand).await,
            Self::Replica(table) => table.read_replica(starts, rows).await,
            Self::History(history) => Ok(Read {
                lists: history.read(starts, rows).await?,
                by_replica: None,
            }),
        }
    }
}

/// The databases of one table.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) primary: Store,
    /// Whether the primary is.
    pub(super) away: Away,
    replica: Option<Replica>,
}

/// Lists as one of the databases has them.
pub(super) struct Read {
    pub(super) lists: Vec<Vec<RecentWorkflow>>,
    /// How the replica was; `None` of the primary.
    pub(super) by_replica: Option<ByReplica>,
}

impl Read {
    /// Whether it may be old, because the primary is out of reach.
    pub(super) fn is_stale(&self) -> bool {
        self.by_replica.is_some_and(|replica| replica.is_stale)
    }
}

impl Table {
    pub(super) fn new(primary: Store, replica: Option<Store>, settings: CacheSettings) -> Self {
        let replica = replica.map(|store| Replica::new(store, settings));
        Self {
            primary,
            away: Away::default(),
            replica,
        }
    }

    /// Whether there is a replica, which may answer while the primary is out of reach.
    pub(super) fn has_replica(&self) -> bool {
        self.replica.is_some()
    }

    /// Sees to it that the replica can be read when the primary is gone. Ends with the service.
    pub(super) async fn watch_replica(&self) {
        match &self.replica {
            Some(replica) => replica.watch(&self.primary).await,
            None => std::future::pending().await,
        }
    }

    /// What the replica has, which may be old.
    pub(super) async fn read_replica(
        &self,
        starts: &[ListStart],
        rows: u32,
    ) -> Result<Read, StoreError> {
        let read = match &self.replica {
            Some(replica) => replica.stale(starts, rows, &self.primary).await,
            None => None,
        };
        read.ok_or(StoreError::Unavailable(sqlx::Error::PoolTimedOut))
    }

    /// The first `rows` items of each list, from a database that has replayed a position at least. While the
    /// primary is out of reach, the replica answers all the same where the position does not matter, and that is
    /// marked.
    pub(super) async fn read(
        &self,
        starts: &[ListStart],
        rows: u32,
        least: u64,
        at_hand: &mut AtHand,
    ) -> Result<Read, StoreError> {
        let (replica, started) = (self.replica.as_ref(), Instant::now());
        // Kept while the replica answers, it would rest, and die, unasked.
        let mut none = AtHand::default();
        let at_hand = match replica {
            Some(_) => &mut none,
            None => at_hand,
        };
        if let Some(replica) = replica.filter(|_| least < PRIMARY)
            && let Some(read) = replica.read(starts, rows, least, &self.primary).await
        {
            return Ok(read);
        }
        // Whoever waited for the replica once does not wait for it again.
        let is_slow = started.elapsed() >= READ_WITHIN;
        let or_stale = replica.filter(|_| least == WHATEVER && !is_slow);
        // Not everybody has to find out by waiting for it.
        if let Some(replica) = or_stale.filter(|_| self.away.is_so(self.primary.changes()))
            && let Some(read) = replica.stale(starts, rows, &self.primary).await
        {
            return Ok(read);
        }
        match (
            page::read(&self.primary, at_hand, starts, rows).await,
            or_stale,
        ) {
            (Ok(lists), _) => Ok(Read {
                lists,
                by_replica: None,
            }),
            (Err(error @ StoreError::Unavailable(_)), Some(replica)) => {
                self.away.gone(&self.primary);
                let stale = replica.stale(starts, rows, &self.primary).await;
                stale.ok_or(error)
            }
            (Err(error), _) => Err(error),
        }
    }
}
