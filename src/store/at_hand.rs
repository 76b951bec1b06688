//! The connection of one who reads again and again. Each one that is given back is asked whether it lives, which
//! costs the database as much as some lists do.

use super::{Pooled, Store, StoreError};

/// Reads that a connection is kept for before it is given back all the same: the pool renews those that are old
/// only when it has them.
const READS: u32 = 64;

/// A connection that is kept between two reads, at most; given back when dropped.
#[derive(Default)]
pub(crate) struct AtHand {
    conn: Option<Pooled>,
    reads: u32,
}

impl AtHand {
    /// The one that was kept, or another one.
    ///
    /// # Errors
    /// As [`Store::one_session`].
    pub(crate) async fn take(&mut self, store: &Store) -> Result<Pooled, StoreError> {
        match self.conn.take() {
            Some(conn) => Ok(conn),
            None => {
                self.reads = 0;
                store.one_session().await
            }
        }
    }

    /// Keeps it behind a read, as long as others find one in the pool. Behind a pooler, which ends with each
    /// read, nobody keeps any.
    ///
    /// # Errors
    /// As [`Pooled::done`].
    pub(crate) async fn keep(&mut self, conn: Pooled, store: &Store) -> Result<(), StoreError> {
        self.reads += 1;
        match self.reads < READS && store.has_more() {
            true => self.conn = Some(conn),
            false => conn.done().await?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::PoolSettings;

    /// Whether a connection was given back to a pool of so many after so many reads in a row.
    async fn is_given_back(size: u32, reads: u32) -> bool {
        let dir = tempfile::tempdir().expect("a directory");
        let url = format!("sqlite://{}", dir.path().join("db").display());
        let settings = PoolSettings {
            size,
            statement_timeout: Duration::from_secs(5),
            behind_pooler: false,
        };
        let store = Store::open(&url, settings).expect("a pool");
        let mut at_hand = AtHand::default();
        for _ in 0..reads {
            let conn = at_hand.take(&store).await.expect("a connection");
            at_hand.keep(conn, &store).await.expect("it is kept");
        }
        let given_back = at_hand.conn.is_none();
        drop(at_hand);
        let all_are = async {
            while store.connections().1 > 0 {
                tokio::task::yield_now().await;
            }
        };
        let in_the_end = tokio::time::timeout(Duration::from_secs(10), all_are);
        in_the_end.await.expect("nothing keeps it for ever");
        given_back
    }

    #[tokio::test]
    async fn a_connection_is_kept_as_long_as_others_find_one() {
        assert!(!is_given_back(2, 2).await);
        assert!(is_given_back(1, 2).await, "it is the last one");
        assert!(is_given_back(2, READS).await, "the pool may renew it");
        assert!(!is_given_back(2, READS + 1).await, "and it is kept again");
    }
}
