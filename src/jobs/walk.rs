//! Reading a source to its end, and handing on what was read at every checkpoint.

use std::pin::Pin;
use std::time::{Duration, Instant};

use tokio::time::{sleep, sleep_until};

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

/// Whoever stops it waits so long for what is being written, which takes half a minute where every run is of
/// another row; then that is read again next time.
const STOP_WITHIN: Duration = Duration::from_secs(2);

/// How long is read before the next checkpoint, when one took that long. No longer than a heartbeat, so
/// that progress is seen.
fn rest_after(took: Duration) -> Duration {
    (took * READ_FOR_WRITE).clamp(CHECKPOINT_EVERY, HEARTBEAT)
}

/// Takes what was read.
pub(super) trait Sink {
    /// Hears of what was read and not taken yet, whenever that grew. Reading waits for it.
    async fn hear(&mut self, pending: &Stretch) -> Result<(), JobError>;

    /// Takes the uses, and moves the job's cursor behind the stretch that they are of. It may be dropped in
    /// between; then what was taken is taken once more, which changes nothing.
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
    let stop = std::pin::pin!(stop);
    let mut stop = Stop { stop, ended: false };
    let mut pending = behind(cursor);
    let mut next_checkpoint = Instant::now() + CHECKPOINT_EVERY;
    loop {
        // What becomes of it when everything up to here is taken.
        let end = tokio::select! {
            biased;
            () = stop.wait() => {
                stretches.cut(&mut pending).await;
                Some(Ok(Outcome::Stopped))
            }
            () = sleep_until(next_checkpoint.into()) => {
                let started = Instant::now();
                // Without a cursor, writing now would only mean writing again later.
                if pending.cursor.is_some() {
                    let cursor = pending.cursor.clone();
                    let stretch = std::mem::replace(&mut pending, behind(cursor));
                    if !stop.take(sink, stretch, gathered.take()).await? {
                        return Ok(Outcome::Stopped);
                    }
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
        if !stop.take(sink, stretch, gathered.take()).await? {
            return Ok(Outcome::Stopped);
        }
        match end {
            Some(end) => return end,
            None => next_checkpoint = Instant::now() + CHECKPOINT_EVERY,
        }
    }
}

/// When to stop.
struct Stop<'a, F> {
    stop: Pin<&'a mut F>,
    ended: bool,
}

impl<F: Future<Output = ()>> Stop<'_, F> {
    async fn wait(&mut self) {
        if !self.ended {
            self.stop.as_mut().await;
            self.ended = true;
        }
    }

    /// Has it taken; `false` where a stop cut that short.
    async fn take(
        &mut self,
        sink: &mut impl Sink,
        stretch: Stretch,
        uses: Fold,
    ) -> Result<bool, JobError> {
        let cut = async {
            self.wait().await;
            sleep(STOP_WITHIN).await;
        };
        tokio::select! {
            biased;
            taken = sink.take(stretch, uses) => taken.map(|()| true),
            () = cut => Ok(false),
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

    /// Takes nothing.
    struct Stuck;

    impl Sink for Stuck {
        async fn hear(&mut self, _pending: &Stretch) -> Result<(), JobError> {
            Ok(())
        }

        async fn take(&mut self, _stretch: Stretch, _uses: Fold) -> Result<(), JobError> {
            std::future::pending().await
        }

        async fn save(&mut self) -> Result<(), JobError> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn who_stops_it_does_not_wait_for_all_that_is_being_written() {
        for stops_while_writing in [false, true] {
            let (sender, stretches) = Stretches::channel();
            let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
            let sent = if stops_while_writing {
                None
            } else {
                Some(Stretch::default())
            };
            assert!(sender.send(Ok(sent)).await.is_ok());
            let began = Instant::now();
            let stopping = async {
                // The end of what is read is taken at once.
                while stops_while_writing && began.elapsed() < STOP_WITHIN / 10 {
                    tokio::task::yield_now().await;
                }
                drop(stop);
            };
            let stopped = async { drop(stopped.await) };
            let mut sink = Stuck;
            let walked = walk(stretches, None, stopped, &mut sink);
            let both = async { tokio::join!(walked, stopping).0 };
            let walked = tokio::time::timeout(10 * STOP_WITHIN, both).await;
            let walked = walked.expect("it ends");
            assert!(matches!(walked, Ok(Outcome::Stopped)), "{walked:?}");
        }
    }

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
