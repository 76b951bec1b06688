//! Vacuum of the table by the service itself, where autovacuum is too late: it looks once a minute, in
//! which a hot key leaves a hundred thousand versions of its row, and the pages of its list's index that
//! held them are walked by every read until they are vacuumed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::statement::{Dialect, Statement};
use super::{Store, StoreError};
use crate::telemetry::chain;

/// So many writes are between two vacuums: ten seconds at full speed, two hours at three a second, when
/// autovacuum was there long before.
const AFTER: u64 = 20_000;
/// A vacuum takes some tens of milliseconds. One that fails, because it takes longer than a statement may
/// or because the role does not own the table, is autovacuum's again for so long.
const LEAVE_ALONE: Duration = Duration::from_secs(3_600);

pub(super) static VACUUM: Statement = Statement::new("vacuum", || {
    "vacuum (truncate off, parallel 0) recents.recent_workflow".into()
})
.only(Dialect::Postgres);

/// Counts writes, and vacuums behind many of them.
#[derive(Debug, Default)]
pub(super) struct Vacuum {
    writes: AtomicU64,
    /// Until when it is left alone; locked while it runs.
    alone_until: Arc<Mutex<Option<Instant>>>,
}

impl Vacuum {
    /// Counts a write; behind many, the table is vacuumed in the background.
    pub(super) fn written(&self, store: &Store) {
        if self.writes.fetch_add(1, Ordering::Relaxed) < AFTER {
            return;
        }
        let Ok(mut alone_until) = Arc::clone(&self.alone_until).try_lock_owned() else {
            return;
        };
        self.writes.store(0, Ordering::Relaxed);
        if alone_until.is_some_and(|until| Instant::now() < until) {
            return;
        }
        let store = store.clone();
        tokio::spawn(async move {
            if let Err(error) = run(&store).await {
                let error = chain(&error);
                tracing::info!(error, "the table is left to autovacuum for an hour");
                *alone_until = Some(Instant::now() + LEAVE_ALONE);
            }
        });
    }
}

async fn run(store: &Store) -> Result<(), StoreError> {
    if let Store::Postgres(pool, _) = store {
        // No transaction may be around it, and no pooler needs one.
        let text = sqlx::raw_sql(VACUUM.run(Dialect::Postgres));
        text.execute(pool.pool()).await?;
    }
    Ok(())
}
