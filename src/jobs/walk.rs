//! Reading a source to its end, and handing on what was read at every checkpoint.

use std::time::{Duration, Instant};

use tokio::time::sleep_until;

use super::keep::HEARTBEAT;
use super::{JobError, Outcome};
use crate::history::{Stretch, Stretches};
use crate::record::Fold;

/// How often what was read is written: what a crash costs, against the writes of hot rows.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(2);
/// At least so many times as long as a checkpoint took is read before the next: where every window
/// touches most of the table, writing it all every two seconds would take longer than reading.
const READ_FOR_WRITE: u32 = 4;
/// Memory of the uses that wait to be written.
pub(super) const FOLD_BYTES: usize = 32 * 1024 * 1024;

/// How long is read before the next checkpoint, when one took that long. No longer than a heartbeat, so
/// that progress is seen.
fn rest_after(took: Duration) -> Duration {
    (took * READ_FOR_WRITE).clamp(CHECKPOINT_EVERY, HEARTBEAT)
}

/// Takes what was read.
pub(super) trait Sink {
    /// Hears of what was read and not taken yet, whenever that grew. Reading waits for it.
    async fn hear(&mut self, pending: &Stretch) -> Result<(), JobError>;

    /// Takes the uses, and moves the job's cursor behind the stretch that they are of.
    async fn take(&mut self, stretch: Stretch, uses: Fold) -> Result<(), JobError>;

    /// Writes down what was counted, where nothing can be taken yet.
    async fn save(&mut self) -> Result<(), JobError>;
}

/// Reads from behind `cursor` to the end, or until `stop` ends.
pub(super) async fn walk(
    mut stretches: Stretches,
    cursor: Option<String>,
    stop: impl Future<Output = ()>,
    sink: &mut impl Sink,
) -> Result<Outcome, JobError> {
    let gathered = stretches.gathered.clone();
    let mut stop = std::pin::pin!(stop);
    let mut pending = behind(cursor);
    let mut next_checkpoint = Instant::now() + CHECKPOINT_EVERY;
    loop {
        // What becomes of it when everything up to here is taken.
        let end = tokio::select! {
            biased;
            () = &mut stop => {
                stretches.cut(&mut pending).await;
                Some(Ok(Outcome::Stopped))
            }
            () = sleep_until(next_checkpoint.into()) => {
                let started = Instant::now();
                // Without a cursor, writing now would only mean writing again later.
                if pending.cursor.is_some() {
                    let cursor = pending.cursor.clone();
                    let stretch = std::mem::replace(&mut pending, behind(cursor));
                    sink.take(stretch, gathered.take()).await?;
                } else {
                    sink.save().await?;
                }
                next_checkpoint = Instant::now() + rest_after(started.elapsed());
                continue;
            }
            next = stretches.next() => match next {
                Ok(Some(stretch)) => {
                    pending.append(stretch);
                    sink.hear(&pending).await?;
                    if gathered.bytes() <= FOLD_BYTES {
                        continue;
                    }
                    None
                }
                Ok(None) => Some(Ok(Outcome::Complete)),
                // All before it was read, without a gap: keep it.
                Err(error) => Some(Err(error.into())),
            },
        };
        let cursor = pending.cursor.clone();
        let stretch = std::mem::replace(&mut pending, behind(cursor));
        sink.take(stretch, gathered.take()).await?;
        match end {
            Some(end) => return end,
            None => next_checkpoint = Instant::now() + CHECKPOINT_EVERY,
        }
    }
}

/// Nothing, behind this cursor.
fn behind(cursor: Option<String>) -> Stretch {
    Stretch {
        cursor,
        ..Stretch::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_written_down_at_every_heartbeat_at_the_latest() {
        for (took, rest) in [(0, 2), (1, 4), (2, 8), (3, 10), (60, 10)] {
            assert_eq!(
                rest_after(Duration::from_secs(took)),
                Duration::from_secs(rest)
            );
        }
    }
}
