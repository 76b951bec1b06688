//! Transactions that write, and what is told of them.

use std::sync::Arc;

use sqlx::{Sqlite, Transaction};
use tokio::sync::OwnedMutexGuard;
use tokio::time::timeout;

use super::open::SQLITE_BUSY_TIMEOUT;
use super::{Conn, Session, Store, StoreError, change};
use crate::cache::{Changed, Changes, Reason};

/// A transaction that writes. Dropped without `commit`, it is rolled back. What it changed is forgotten
/// when it is committed.
pub(crate) struct Tx {
    begun: Begun,
    store: Store,
    changed: Vec<(Changed, Reason)>,
}

enum Begun {
    Postgres(Session),
    Sqlite(Transaction<'static, Sqlite>, Option<Written>),
}

/// What a transaction that writes to SQLite has besides.
struct Written {
    /// How many changes were counted before; a migration has nothing to count with.
    before: Option<i64>,
    _turn: OwnedMutexGuard<()>,
}

impl Store {
    /// Begins a transaction that writes: in SQLite with the write lock at once, because a
    /// transaction that reads first cannot wait for it later (`SQLITE_BUSY_SNAPSHOT`).
    pub(crate) async fn begin(&self) -> Result<Tx, StoreError> {
        let mut tx = self.begin_migration().await?;
        if let Begun::Sqlite(conn, Some(written)) = &mut tx.begun {
            written.before = Some(change::counted(conn).await?);
        }
        Ok(tx)
    }

    /// A transaction that only reads, in which there may be no tables yet.
    pub(super) async fn begin_reading(&self) -> Result<Tx, StoreError> {
        let begun = match self {
            Self::Postgres(pool, _) => Begun::Postgres(pool.begin().await?),
            Self::Sqlite(pool, _) => Begun::Sqlite(pool.begin().await?, None),
        };
        Ok(Tx {
            begun,
            store: self.clone(),
            changed: Vec::new(),
        })
    }

    /// The same, while there may be no tables yet.
    pub(super) async fn begin_migration(&self) -> Result<Tx, StoreError> {
        let begun = match self {
            Self::Postgres(pool, _) => Begun::Postgres(pool.begin().await?),
            Self::Sqlite(pool, changes) => {
                let turn = turn(changes).await?;
                let tx = pool.begin_with("begin immediate").await?;
                Begun::Sqlite(
                    tx,
                    Some(Written {
                        before: None,
                        _turn: turn,
                    }),
                )
            }
        };
        Ok(Tx {
            begun,
            store: self.clone(),
            changed: Vec::new(),
        })
    }
}

/// SQLite has one write lock, and no queue for it: each writer asks again after a while, and one of many may
/// ask in vain for long. Here they queue, so that every writer of this process has its turn, and those of
/// others meet only one of it.
async fn turn(changes: &Changes) -> Result<OwnedMutexGuard<()>, StoreError> {
    let writing = Arc::clone(&changes.writing);
    let turn = timeout(SQLITE_BUSY_TIMEOUT, writing.lock_owned()).await;
    turn.map_err(|_| StoreError::Conflict(sqlx::Error::PoolTimedOut))
}

impl Tx {
    pub(crate) fn conn(&mut self) -> Conn<'_> {
        match &mut self.begun {
            Begun::Postgres(tx) => Conn::Postgres(tx),
            Begun::Sqlite(tx, _) => Conn::Sqlite(tx),
        }
    }

    /// Has something forgotten when the transaction is committed.
    pub(crate) fn changes(&mut self, changed: Changed, reason: Reason) {
        self.changed.push((changed, reason));
    }

    /// Whatever its answer, and also where nobody waits for that any more: it may be committed, and is
    /// forgotten.
    pub(crate) async fn commit(self) -> Result<(), StoreError> {
        let _behind = Forgetting {
            store: &self.store,
            changed: self.changed,
        };
        match self.begun {
            Begun::Postgres(tx) => tx.commit().await?,
            Begun::Sqlite(mut tx, written) => {
                let before = written.as_ref().and_then(|written| written.before);
                let after = match before {
                    Some(_) => Some(change::counted(&mut tx).await?),
                    None => None,
                };
                tx.commit().await?;
                if let Some((before, after)) = before.zip(after) {
                    self.store.changes().own(after - before);
                }
            }
        }
        Ok(())
    }
}

/// What is forgotten when it is dropped: behind a commit, however that ended.
pub(super) struct Forgetting<'a> {
    pub(super) store: &'a Store,
    pub(super) changed: Vec<(Changed, Reason)>,
}

impl Drop for Forgetting<'_> {
    fn drop(&mut self) {
        for (changed, reason) in &self.changed {
            self.store.committed(changed, *reason);
        }
    }
}
