//! The whole history, or one workspace of it, in a single stream.

use std::sync::Arc;

use super::around::Around;
use super::look_up::{Lookup, Window};
use super::scan::Range;
use super::session::Taker;
use super::stretch::{Sender, Stretch, Stretches, Tally};
use super::unmappable::{Unmappable, words};
use super::{History, HistoryError};
use crate::model::{RawUse, Time};

/// Sends the whole history, or one workspace of it, as one query reads it: one snapshot, no cursor. A
/// workspace is read around its runs that cannot be mapped.
pub fn one_pass(
    history: Arc<History>,
    workspace: Option<String>,
    unmappable: Unmappable,
) -> Stretches {
    let (sender, stretches) = Stretches::channel();
    tokio::spawn(async move {
        let sent = tokio::select! {
            sent = send(&history, workspace.as_deref(), &sender, &unmappable) => sent,
            () = sender.closed() => return,
        };
        // Nobody may be waiting any more; then nobody needs to know.
        let _ = sender.send(sent.map(|()| None)).await;
    });
    stretches
}

/// The single stream is told of in stretches of so many runs, so that progress is seen.
const ONE_PASS_RUNS: u64 = 100_000;

/// Takes the single stream, stretch by stretch.
struct OnePass<'a> {
    stretch: Stretch,
    /// What was sent.
    told: Tally,
    now: Time,
    sender: &'a Sender,
}

impl OnePass<'_> {
    async fn send(&mut self) {
        let sent = std::mem::take(&mut self.stretch);
        self.told.add(&sent.tally);
        // Where nobody receives any more, the reading is about to be dropped.
        let _ = self.sender.send(Ok(Some(sent))).await;
    }
}

impl Taker for &mut OnePass<'_> {
    fn take(&mut self, raw: RawUse<'_>) -> bool {
        self.stretch.tally.scanned += 1;
        self.stretch.take(raw, self.now, &self.sender.gathered);
        self.stretch.tally.scanned >= ONE_PASS_RUNS
    }

    async fn hand_over(&mut self) {
        self.send().await;
    }

    fn begins_again(&mut self) -> bool {
        let nothing_is_told = self.told == Tally::default();
        if nothing_is_told {
            self.stretch = Stretch::default();
        }
        nothing_is_told
    }
}

async fn send(
    history: &History,
    workspace: Option<&str>,
    sender: &Sender,
    unmappable: &Unmappable,
) -> Result<(), HistoryError> {
    let mut taker = OnePass {
        stretch: Stretch::default(),
        told: Tally::default(),
        now: Time::now(),
        sender,
    };
    let read = match workspace {
        None => history.scan(Range::All, &mut taker).await,
        Some(workspace) => {
            let lookup = Lookup::Workspace(workspace, None);
            history.look_up(lookup, &mut taker).await
        }
    };
    match (read, workspace) {
        (Ok(()), _) => {}
        (Err(error), Some(workspace)) if error.is_of_the_data() => {
            let all = around(history, workspace, &taker, unmappable).await?;
            // What was told of is among them.
            taker.stretch.tally = all.without(&taker.told);
        }
        (Err(error), None) if error.is_of_the_data() => {
            let problem = words(&error);
            return Err(HistoryError::OnePass { problem });
        }
        (Err(error), _) => return Err(error),
    }
    taker.send().await;
    Ok(())
}

/// Reads a workspace from the start, around its runs that cannot be mapped, and counts all of it.
async fn around(
    history: &History,
    workspace: &str,
    taker: &OnePass<'_>,
    unmappable: &Unmappable,
) -> Result<Tally, HistoryError> {
    let mut all = Tally::default();
    let Some(everything) = history.everything().await? else {
        return Ok(all);
    };
    let (now, gathered) = (taker.now, &taker.sender.gathered);
    let mut around = Around::of(history, unmappable, everything);
    while let Some(part) = around.next() {
        let mut taken = Stretch::default();
        let take = |raw: RawUse<'_>| {
            taken.tally.scanned += 1;
            taken.take(raw, now, gathered);
        };
        let window = Some(Window(&part.from, &part.end));
        let looked = history.look_up(Lookup::Workspace(workspace, window), take);
        let looked = looked.await;
        history.look_at_order().await?;
        // A part that fails counts for nothing; its uses do no harm.
        if looked.is_ok() {
            all.add(&taken.tally);
        }
        around.was(part, looked).await?;
    }
    all.unmappable = around.passed_over;
    all.scanned += around.passed_over;
    Ok(all)
}
