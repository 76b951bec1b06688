//! Whether the database is out of reach, so that not every reader has to find out by waiting for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::cache::Changes;
use crate::store::Store;

/// Between two questions whether it is back.
const ASK_AGAIN: Duration = Duration::from_millis(250);
/// A database that does not answer within this is away: who need not have what it says does not wait for longer.
/// Reads take milliseconds.
pub(super) const ANSWERS_WITHIN: Duration = Duration::from_secs(3);
/// Who waited for so long has it asked whether it is there at all: that is known when they are told that they
/// waited for too long.
const DOUBTED_AFTER: Duration = Duration::from_secs(1);

/// What the last read of the database came to.
#[derive(Debug, Clone, Default)]
pub(super) struct Away(Arc<State>);

#[derive(Debug, Default)]
struct State {
    is_away: AtomicBool,
    /// The number of this process's newest write then.
    written: AtomicU64,
    is_asked: AtomicBool,
    is_doubted: AtomicBool,
}

impl Away {
    /// Whether it was out of reach, and nothing was heard of it since: neither an answer nor that this process
    /// wrote something.
    pub(super) fn is_so(&self, changes: &Changes) -> bool {
        self.0.is_away.load(Ordering::Relaxed)
            && self.0.written.load(Ordering::Relaxed) == changes.sequence()
    }

    /// A read found it out of reach. From now on it is asked whether it is back, whether anybody reads or not:
    /// who reads next may do so long after it is.
    pub(super) fn gone(&self, store: &Store) {
        self.mark(store.changes());
        self.ask(store);
    }

    fn mark(&self, changes: &Changes) {
        self.0.written.store(changes.sequence(), Ordering::Relaxed);
        self.0.is_away.store(true, Ordering::SeqCst);
    }

    /// It answered.
    pub(super) fn back(&self) {
        // Mostly it did before, and a line that all cores share stays as it is.
        if self.0.is_away.load(Ordering::Relaxed) {
            self.0.is_away.store(false, Ordering::SeqCst);
        }
    }

    /// Ends when an answer has been waited for too long. Where it does not say either that it is there, nobody
    /// waits any more; where it does, it is only slow with this.
    pub(super) async fn waited_too_long(&self, store: &Store) {
        sleep(DOUBTED_AFTER).await;
        self.doubt(store);
        sleep(ANSWERS_WITHIN.saturating_sub(DOUBTED_AFTER)).await;
    }

    /// Asks it whether it is there; one at a time.
    fn doubt(&self, store: &Store) {
        let is_away = self.0.is_away.load(Ordering::SeqCst);
        if is_away || self.0.is_doubted.swap(true, Ordering::SeqCst) {
            return;
        }
        let (away, store) = (self.clone(), store.clone());
        tokio::spawn(async move {
            let within = ANSWERS_WITHIN.saturating_sub(DOUBTED_AFTER);
            if !matches!(timeout(within, store.ping()).await, Ok(Ok(()))) {
                away.gone(&store);
            }
            away.0.is_doubted.store(false, Ordering::SeqCst);
        });
    }

    /// Has somebody ask until it is back; one at a time.
    fn ask(&self, store: &Store) {
        let begins = |state: &State| !state.is_asked.swap(true, Ordering::SeqCst);
        if !begins(&self.0) {
            return;
        }
        let (away, store) = (self.clone(), store.clone());
        tokio::spawn(async move {
            loop {
                while away.0.is_away.load(Ordering::SeqCst) {
                    match timeout(ANSWERS_WITHIN, store.ping()).await {
                        Ok(Ok(())) => away.back(),
                        Ok(Err(_)) | Err(_) => sleep(ASK_AGAIN).await,
                    }
                }
                away.0.is_asked.store(false, Ordering::SeqCst);
                // It may have gone again, and nobody else began to ask.
                if !away.0.is_away.load(Ordering::SeqCst) || !begins(&away.0) {
                    return;
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{Changed, Reason};

    #[test]
    fn a_write_of_this_process_says_that_it_is_back() {
        let (away, changes) = (Away::default(), Changes::default());
        assert!(!away.is_so(&changes));
        away.mark(&changes);
        assert!(away.is_so(&changes));
        changes.commit(&Changed::Everything, Reason::Write);
        assert!(!away.is_so(&changes));
        away.mark(&changes);
        assert!(away.is_so(&changes));
        away.back();
        assert!(!away.is_so(&changes));
    }

    fn store(url: &str) -> Store {
        let settings = crate::store::PoolSettings {
            size: 1,
            statement_timeout: ANSWERS_WITHIN,
            behind_pooler: false,
        };
        Store::open(url, settings).expect("a pool")
    }

    #[tokio::test]
    async fn who_waited_for_long_finds_out_whether_it_is_away_or_only_slow() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let silent = silent.expect("a port");
        let at = silent.local_addr().expect("its address");
        let there = store("sqlite::memory:");
        let gone = store(&format!("postgres://postgres@{at}/postgres"));
        let wait = async |store: &Store| {
            let (away, started) = (Away::default(), tokio::time::Instant::now());
            let waited = away.waited_too_long(store);
            let mut was_away = false;
            let asked = async {
                while started.elapsed() < ANSWERS_WITHIN || away.0.is_doubted.load(Ordering::SeqCst)
                {
                    was_away |= away.is_so(store.changes());
                    tokio::task::yield_now().await;
                }
            };
            let both = async { tokio::join!(waited, asked) };
            let both = timeout(2 * ANSWERS_WITHIN, both).await;
            both.expect("that takes no longer");
            was_away || away.is_so(store.changes())
        };
        let [is_gone, is_there] = [wait(&gone), wait(&there)];
        assert_eq!(tokio::join!(is_gone, is_there), (true, false));
    }

    #[tokio::test]
    async fn that_it_is_back_is_seen_though_nobody_reads() {
        let store = store("sqlite::memory:");
        let away = Away::default();
        for _ in 0..2 {
            away.gone(&store);
            assert!(away.is_so(store.changes()));
            let seen = async {
                while away.is_so(store.changes()) {
                    tokio::task::yield_now().await;
                }
            };
            timeout(10 * ANSWERS_WITHIN, seen)
                .await
                .expect("it is asked");
        }
    }
}
