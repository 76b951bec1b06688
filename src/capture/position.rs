//! How far notes were read, so that the dead ones before are not walked at every poll.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Ids are given out before their transactions commit: behind the newest seen so long ago, polls look
/// for those that came late.
const LATE: Duration = Duration::from_secs(2);
/// How often everything is looked at from the start: notes of long transactions, and those that
/// another drain took and did not finish.
const FROM_THE_START: Duration = Duration::from_secs(5);

/// How far notes were read.
#[derive(Debug)]
pub(super) struct Position {
    /// Goes on behind this note, where a look left some.
    more: Option<i64>,
    /// Notes up to here are no longer expected, except from the start.
    late: i64,
    /// The newest note that was seen.
    newest: i64,
    /// What was the newest, and when.
    seen: VecDeque<(Instant, i64)>,
    /// When everything was looked at; `None` asks for it.
    from_the_start: Option<Instant>,
}

impl Position {
    pub(super) fn new() -> Self {
        Self {
            more: None,
            late: 0,
            newest: 0,
            seen: VecDeque::new(),
            from_the_start: None,
        }
    }

    /// Where the next look begins: behind this note; and the newest that was seen.
    pub(super) fn next(&mut self) -> (i64, i64) {
        let recent = |at: Instant| at.elapsed() < FROM_THE_START;
        if self.from_the_start.is_some_and(recent) {
            return (self.more.unwrap_or(self.late), self.newest);
        }
        self.from_the_start = Some(Instant::now());
        (0, self.newest)
    }

    /// Begins anew with the next look.
    pub(super) fn restart(&mut self) {
        self.from_the_start = None;
    }

    /// Notes `taken` were read. `more` is the last of those that were read in order, where there are
    /// more of them behind it.
    pub(super) fn read(&mut self, taken: impl Iterator<Item = i64>, more: Option<i64>) {
        let now = Instant::now();
        self.more = more;
        self.newest = taken.fold(self.newest, i64::max);
        if self
            .seen
            .back()
            .is_none_or(|(_, newest)| *newest < self.newest)
        {
            self.seen.push_back((now, self.newest));
        }
        while let Some((at, newest)) = self.seen.front()
            && now.duration_since(*at) > LATE
        {
            self.late = *newest;
            self.seen.pop_front();
        }
    }
}
