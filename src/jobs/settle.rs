//! Working off the notes that a job left: each row that it wrote is looked at once more, because its run
//! may have changed meanwhile. A service's drain does that beside its jobs; a command's job is done when
//! it did.

use std::sync::Arc;

use super::JobError;
use crate::capture::drain::Drain;
use crate::history::History;
use crate::store::Store;

/// Works off the notes that stand now, and those that they lead to.
pub(super) async fn settle(store: &Store, history: &Arc<History>) -> Result<(), JobError> {
    let mut drain = Drain::new(store.clone(), Arc::clone(history), None);
    Ok(drain.settle_all().await?)
}
