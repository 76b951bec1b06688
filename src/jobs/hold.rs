//! Getting hold of the job.

use std::time::Duration;

use tokio::sync::watch;

use super::{BackfillError, Event, Options, Origin};
use crate::jobs::BACKFILL;
use crate::model::Time;
use crate::store::job::{self, Held, Job, NewJob};
use crate::store::{Store, StoreError};

/// How often a backfill that waits for another's lease looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Takes over an unfinished job or starts a new one; waits for the lease of a worker that may be
/// dead. `None` where it was stopped meanwhile.
pub(super) async fn hold(
    store: &Store,
    origin: &Origin,
    options: Options,
    stop: &mut watch::Receiver<bool>,
    tell: &mut impl FnMut(Event),
) -> Result<Option<Job>, BackfillError> {
    let source = origin.identity()?;
    let mut first_lease: Option<Time> = None;
    loop {
        match job::hold(store, BACKFILL, &source, !options.restart).await? {
            Held::Resumed(job) => {
                // Without a cursor it begins anew.
                if job.cursor.is_some() {
                    tell(Event::Resumed {
                        scanned: job.scanned,
                    });
                }
                return Ok(Some(job));
            }
            Held::Nothing => {
                let range_end = origin.last_key().await?;
                let (range_end, total) = (range_end.as_deref(), origin.total().await?);
                let new = NewJob {
                    kind: BACKFILL,
                    source: &source,
                    range_end,
                    total,
                };
                match job::start(store, new).await {
                    // Another one started at the same moment: look who.
                    Err(StoreError::Refused(_)) => continue,
                    started => return Ok(Some(started?)),
                }
            }
            Held::Busy {
                id,
                lease_until,
                remaining,
            } => match first_lease {
                // It lives: it prolonged its lease.
                Some(lease) if lease != lease_until => return Err(BackfillError::Busy { job: id }),
                Some(_) => {}
                None => {
                    first_lease = Some(lease_until);
                    tell(Event::Waiting { job: id, remaining });
                }
            },
        }
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return Ok(None),
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }
}
