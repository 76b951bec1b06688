//! Stretches: what a source sends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::HistoryError;
use crate::model::{NoUse, RawUse, Time, Usage, id};
use crate::record::Fold;

/// Stretches that wait to be taken: about as many as are read while a checkpoint is written.
const AHEAD: usize = 8;
/// Memory of the uses that wait to be taken. With more, nothing further is begun until whoever takes them has heard
/// of all that was read: where every run is of another row, each stretch may have megabytes of them.
pub(super) const MAX_GATHERED_BYTES: usize = 32 * 1024 * 1024;

/// The uses that were read and that nobody took yet. Windows that are read side by side fold into
/// one, so that a key is looked up once a run and held once in all. A use stands for itself: one of a
/// window that fails later does no harm.
#[derive(Debug, Clone, Default)]
pub struct Gathered(Arc<Mutex<Fold>>);

impl Gathered {
    fn lock(&self) -> MutexGuard<'_, Fold> {
        // A fold is whole between any two uses.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns by how many bytes they grew.
    fn add(&self, usage: &Usage<'_>) -> usize {
        let mut fold = self.lock();
        let before = fold.bytes();
        fold.add(usage);
        fold.bytes() - before
    }

    /// About how many bytes they take.
    pub fn bytes(&self) -> usize {
        self.lock().bytes()
    }

    /// Takes them out.
    pub fn take(&self) -> Fold {
        std::mem::take(&mut self.lock())
    }
}

/// Some consecutive runs that were read; their uses are in [`Gathered`] before it is sent.
#[derive(Debug, Default)]
pub struct Stretch {
    /// What was counted.
    pub tally: Tally,
    /// Everything up to here has been sent; `None` where the source cannot resume.
    pub cursor: Option<String>,
    /// About how many runs there are in all, where only the source can tell.
    pub total: Option<u64>,
    /// By about how many bytes its uses made [`Gathered`] grow.
    pub grew: usize,
}

/// Counts of runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tally {
    /// Runs that were read.
    pub scanned: u64,
    /// Runs that are a use.
    pub uses: u64,
    /// Runs that are none, by the order of [`NoUse::ALL`].
    pub skipped: [u64; NoUse::ALL.len()],
    /// Runs that the mapping query gives no row for, or that a file's broken lines are.
    pub unmapped: u64,
    /// Runs that the mapping query fails with: they were passed over.
    pub unmappable: u64,
    /// Uses whose user is not a valid id: they count in the workspace's list only.
    pub invalid_uid: u64,
    /// Uses later than the clock.
    pub future: u64,
}

impl Tally {
    /// Adds the counts of further runs.
    pub fn add(&mut self, other: &Self) {
        self.scanned += other.scanned;
        self.uses += other.uses;
        for (count, more) in self.skipped.iter_mut().zip(other.skipped) {
            *count += more;
        }
        self.unmapped += other.unmapped;
        self.unmappable += other.unmappable;
        self.invalid_uid += other.invalid_uid;
        self.future += other.future;
    }

    /// These counts without those of runs that are among them.
    pub(super) fn without(mut self, others: &Self) -> Self {
        let take = |count: &mut u64, fewer: u64| *count = count.saturating_sub(fewer);
        take(&mut self.scanned, others.scanned);
        take(&mut self.uses, others.uses);
        for (count, fewer) in self.skipped.iter_mut().zip(others.skipped) {
            take(count, fewer);
        }
        take(&mut self.unmapped, others.unmapped);
        take(&mut self.unmappable, others.unmappable);
        take(&mut self.invalid_uid, others.invalid_uid);
        take(&mut self.future, others.future);
        self
    }

    /// Runs that are no use, for whatever reason.
    pub fn skipped_in_all(&self) -> u64 {
        self.skipped.iter().sum::<u64>() + self.unmapped + self.unmappable
    }

    /// The reasons that occurred, with their counts.
    pub fn reasons(&self) -> impl Iterator<Item = (&'static str, u64)> {
        NoUse::ALL
            .iter()
            .map(|reason| reason.reason())
            .zip(self.skipped)
            .chain([
                ("unmapped", self.unmapped),
                ("unmappable", self.unmappable),
                ("invalid_uid", self.invalid_uid),
                ("future_last_used_at", self.future),
            ])
            .filter(|(_, count)| *count > 0)
    }
}

impl Stretch {
    /// Takes one row of the mapping query or of a file; `now` tells future uses.
    pub fn take(&mut self, raw: RawUse<'_>, now: Time, gathered: &Gathered) {
        match raw.check() {
            Ok(usage) => {
                self.tally.uses += 1;
                let given = raw
                    .uid
                    .is_some_and(|uid| !uid.is_empty() && id::check(uid).is_err());
                self.tally.invalid_uid += u64::from(given);
                self.tally.future += u64::from(usage.last_used_at > now);
                self.grew += gathered.add(&usage);
            }
            Err(reason) => {
                if let Some(at) = NoUse::ALL.iter().position(|r| *r == reason) {
                    self.tally.skipped[at] += 1;
                }
            }
        }
    }

    /// Takes in the stretch behind this one.
    pub fn append(&mut self, next: Self) {
        self.tally.add(&next.tally);
        self.cursor = next.cursor;
        self.total = next.total;
    }
}

type Sent = Result<Option<Stretch>, HistoryError>;

/// The stretches of a source, in order.
#[derive(Debug)]
pub struct Stretches {
    receiver: mpsc::Receiver<Sent>,
    /// Their uses.
    pub gathered: Gathered,
    cut: Option<Cut>,
}

/// Whether a source shall end where it is.
type Cut = Arc<AtomicBool>;

/// How long is waited for a source that shall end. It asks at each run, and may itself wait for one, as at a
/// pipe.
const CUT_WITHIN: Duration = Duration::from_secs(1);

/// Where a source sends its stretches and, at the end, `None`. It may stop when the receiver is gone.
#[derive(Debug)]
pub struct Sender {
    channel: mpsc::Sender<Sent>,
    /// Where the uses go, before the stretch that they belong to is sent.
    pub gathered: Gathered,
    cut: Option<Cut>,
}

/// Nobody receives any more.
#[derive(Debug)]
pub(crate) struct Gone;

impl Sender {
    /// Sends, when there is room; where much is gathered, until it was received.
    pub(crate) async fn send(&self, sent: Sent) -> Result<(), Gone> {
        self.channel.send(sent).await.map_err(|_| Gone)?;
        if self.gathered.bytes() > MAX_GATHERED_BYTES {
            let all_received = self.channel.reserve_many(AHEAD).await;
            all_received.map(drop).map_err(|_| Gone)?;
        }
        Ok(())
    }

    /// The same, from a thread that may block.
    pub(super) fn blocking_send(&self, sent: Sent) -> Result<(), Gone> {
        Handle::current().block_on(self.send(sent))
    }

    /// Whether to end here.
    pub(super) fn is_cut(&self) -> bool {
        let cut = self.cut.as_ref();
        cut.is_some_and(|cut| cut.load(Ordering::Relaxed))
    }

    /// Ends when nobody receives any more.
    pub(super) async fn closed(&self) {
        self.channel.closed().await;
    }
}

impl Stretches {
    pub(crate) fn channel() -> (Sender, Self) {
        let (channel, receiver) = mpsc::channel(AHEAD);
        let gathered = Gathered::default();
        let sender = Sender {
            channel,
            gathered: gathered.clone(),
            cut: None,
        };
        let stretches = Self {
            receiver,
            gathered,
            cut: None,
        };
        (sender, stretches)
    }

    /// The same for a source that asks at each run whether to end there.
    pub(super) fn cuttable() -> (Sender, Self) {
        let (mut sender, mut stretches) = Self::channel();
        let cut = Cut::default();
        sender.cut = Some(Arc::clone(&cut));
        stretches.cut = Some(cut);
        (sender, stretches)
    }

    /// Has the source end where it is, if it can, and adds what it has read to `pending`: the uses are
    /// gathered already.
    pub async fn cut(&mut self, pending: &mut Stretch) {
        let Some(cut) = &self.cut else { return };
        cut.store(true, Ordering::Relaxed);
        let rest = async {
            // What fails here fails again when it is gone on with.
            while let Ok(Some(stretch)) = self.next().await {
                pending.append(stretch);
            }
        };
        // Where it takes longer, what is not counted is read again.
        let _ = tokio::time::timeout(CUT_WITHIN, rest).await;
    }

    /// The next stretch; `None` at the end.
    ///
    /// # Errors
    /// Whatever kept the source from reading; [`HistoryError::BrokenOff`] where it went silent.
    pub async fn next(&mut self) -> Result<Option<Stretch>, HistoryError> {
        self.receiver
            .recv()
            .await
            .unwrap_or(Err(HistoryError::BrokenOff))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn where_much_is_gathered_a_source_waits_until_that_was_heard_of() {
        let (sender, mut stretches) = Stretches::channel();
        let send = || sender.send(Ok(Some(Stretch::default())));
        assert!(send().await.is_ok(), "little is gathered");
        let (mut stretch, mut runs) = (Stretch::default(), 0);
        while sender.gathered.bytes() <= MAX_GATHERED_BYTES {
            let published_run = runs.to_string();
            let raw = RawUse {
                workspace: Some("w"),
                uid: None,
                published_run: Some(&published_run),
                last_used_at: Some(Ok(Time::now())),
                run: None,
            };
            stretch.take(raw, Time::now(), &sender.gathered);
            runs += 1;
        }
        assert_eq!(stretch.grew, sender.gathered.bytes());
        let mut sending = std::pin::pin!(send());
        for _ in 0..2 {
            tokio::select! {
                biased;
                _ = &mut sending => panic!("one is not received yet"),
                () = std::future::ready(()) => {}
            }
            stretches.next().await.expect("a stretch");
        }
        assert!(sending.await.is_ok(), "both were received");
    }
}
