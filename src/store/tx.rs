//! Transactions that write, and what is told of them.

use sqlx::{Sqlite, Transaction};

use super::{Conn, Session, Store, StoreError, change};
use crate::cache::{Changed, Reason};

/// A transaction that writes. Dropped without `commit`, it is rolled back. What it changed is forgotten
/// when it is committed.
pub(crate) struct Tx {
    begun: Begun,
    store: Store,
    changed: Vec<(Changed, Reason)>,
}

enum Begun {
    Postgres(Session),
    /// And how many changes were counted before; a migration has nothing to count with.
    Sqlite(Transaction<'static, Sqlite>, Option<i64>),
}

impl Store {
    /// Begins a transaction that writes: in SQLite with the write lock at once, because a
    /// transaction that reads first cannot wait for it later (`SQLITE_BUSY_SNAPSHOT`).
    pub(crate) async fn begin(&self) -> Result<Tx, StoreError> {
        let mut tx = self.begin_migration().await?;
        if let Begun::Sqlite(conn, counted) = &mut tx.begun {
            *counted = Some(change::counted(conn).await?);
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
            Self::Sqlite(pool, _) => Begun::Sqlite(pool.begin_with("begin immediate").await?, None),
        };
        Ok(Tx {
            begun,
            store: self.clone(),
            changed: Vec::new(),
        })
    }
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

    pub(crate) async fn commit(self) -> Result<(), StoreError> {
        match self.begun {
            Begun::Postgres(tx) => tx.commit().await?,
            Begun::Sqlite(mut tx, before) => {
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
        for (changed, reason) in &self.changed {
            self.store.committed(changed, *reason);
        }
        Ok(())
    }
}
