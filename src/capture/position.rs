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

    /// Where the next look, now, begins: behind this note.
    pub(super) fn next(&mut self, now: Instant) -> i64 {
        if self.is_from_the_start(now) {
            self.from_the_start = Some(now);
            return 0;
        }
        self.more.unwrap_or(self.late)
    }

    /// The same where what is read stays for long: it goes on with what a look left before it begins from the start,
    /// so that it comes to an end. `None` where nothing was left, and it is too early for that.
    pub(super) fn next_left(&mut self, now: Instant) -> Option<i64> {
        if self.more.is_none() && self.is_from_the_start(now) {
            return Some(self.next(now));
        }
        self.more
    }

    fn is_from_the_start(&self, now: Instant) -> bool {
        let is_old = |at: Instant| now.duration_since(at) >= FROM_THE_START;
        self.from_the_start.is_none_or(is_old)
    }

    /// Whether the last look left some.
    pub(super) fn is_behind(&self) -> bool {
        self.more.is_some()
    }

    /// Behind this note, a look finds what nobody saw yet, and nothing else.
    pub(super) fn newest(&self) -> i64 {
        self.newest
    }

    /// Of those, `taken` were seen; and whether they were all. The others are left for the next look in order.
    pub(super) fn saw(&mut self, taken: impl Iterator<Item = i64>, all: bool) {
        if !all && self.more.is_none() {
            self.more = Some(self.newest);
        }
        self.newest = taken.fold(self.newest, i64::max);
    }

    /// Begins anew with the next look.
    pub(super) fn restart(&mut self) {
        self.more = None;
        self.from_the_start = None;
    }

    /// Notes `taken` were read now. `more` is the last of those that were read in order, where there
    /// are more of them behind it.
    pub(super) fn read(
        &mut self,
        taken: impl Iterator<Item = i64>,
        more: Option<i64>,
        now: Instant,
    ) {
        self.more = more;
        self.saw(taken, true);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A millisecond before and behind a moment.
    const BIT: Duration = Duration::from_millis(1);

    /// A position at which a look from the start, at that moment, saw nothing.
    fn at(start: Instant) -> Position {
        let mut position = Position::new();
        assert_eq!(position.next(start), 0, "the first look reads all");
        position.read([].into_iter(), None, start);
        position
    }

    fn read(position: &mut Position, taken: &[i64], more: Option<i64>, now: Instant) {
        position.read(taken.iter().copied(), more, now);
    }

    #[test]
    fn notes_that_commit_late_are_looked_for_behind_the_newest() {
        let start = Instant::now();
        let mut position = at(start);
        read(&mut position, &[10], None, start);
        let later = start + LATE / 2;
        read(&mut position, &[20], None, later);
        assert_eq!(position.next(later), 0, "one of 1 to 19 may come");
        read(&mut position, &[7], None, start + LATE);
        assert_eq!(position.next(start + LATE), 0, "it was one");
        read(&mut position, &[], None, start + LATE + BIT);
        let late = position.next(start + LATE + BIT);
        assert_eq!(
            (late, position.newest()),
            (10, 20),
            "one of 11 to 19 may come"
        );
    }

    #[test]
    fn what_was_seen_longer_ago_is_not_read_again() {
        let start = Instant::now();
        let mut position = at(start);
        read(&mut position, &[10], None, start);
        read(&mut position, &[20], None, start + BIT);
        // Older ones that come late make the newest no newer.
        read(&mut position, &[15], None, start + LATE);
        read(&mut position, &[], None, start + LATE + 2 * BIT);
        assert_eq!(position.next(start + LATE + 2 * BIT), 20);
    }

    #[test]
    fn however_late_a_note_is_a_look_from_the_start_finds_it() {
        let start = Instant::now();
        let mut position = at(start);
        read(&mut position, &[10], None, start);
        read(&mut position, &[], None, start + LATE + BIT);
        let again = start + FROM_THE_START;
        assert_eq!(position.next(again - BIT), 10);
        assert_eq!(position.next(again), 0);
        read(&mut position, &[3], None, again);
        assert_eq!(position.next(again + BIT), 10, "once is enough");
        assert_eq!(position.next(again + FROM_THE_START), 0, "for a time");
    }

    #[test]
    fn a_restart_reads_everything_again_once() {
        let start = Instant::now();
        let mut position = at(start);
        read(&mut position, &[10], None, start);
        let now = start + LATE + BIT;
        read(&mut position, &[], None, now);
        assert_eq!(position.next(now), 10);
        position.restart();
        assert_eq!(position.next(now), 0);
        assert_eq!(position.next(now), 10);
        // Also what another look left.
        read(&mut position, &[11], Some(7), now);
        position.restart();
        assert_eq!(position.next(now), 0);
    }

    #[test]
    fn what_a_look_left_is_gone_through_in_order_and_then_what_may_come_late() {
        let start = Instant::now();
        let mut position = at(start);
        read(&mut position, &[1, 2, 90], Some(2), start);
        assert_eq!(position.next(start), 2);
        // Though all of them were seen so long ago that none is expected any more.
        let now = start + LATE + BIT;
        read(&mut position, &[3, 4, 91], Some(4), now);
        assert_eq!(position.next(now), 4);
        read(&mut position, &[5], None, now);
        assert_eq!(position.next(now), 90);
    }

    #[test]
    fn a_look_for_what_nobody_saw_yet_passes_over_nothing_for_the_next_one_in_order() {
        let start = Instant::now();
        let mut position = at(start);
        read(&mut position, &[10], None, start);
        assert_eq!(position.newest(), 10);
        position.saw([20, 30].into_iter(), true);
        assert_eq!(position.newest(), 30);
        let later = start + LATE - BIT;
        assert_eq!(position.next(later), 0, "one of 11 to 29 may be left");
        read(&mut position, &[], None, later);
        assert_eq!(position.next(start + LATE + BIT), 0);
    }

    #[test]
    fn what_a_look_left_is_gone_through_to_its_end_where_it_stays() {
        let start = Instant::now();
        let mut position = at(start);
        assert_eq!(position.next_left(start), None, "nothing was left");
        position.saw([20, 30].into_iter(), false);
        assert_eq!(position.next_left(start), Some(0));
        read(&mut position, &[8, 9], Some(9), start);
        position.saw([60, 70].into_iter(), false);
        let late = start + FROM_THE_START;
        assert_eq!(position.next_left(late), Some(9), "to its end");
        read(&mut position, &[61], None, late);
        assert_eq!(position.next_left(late), Some(0), "from the start");
        read(&mut position, &[], None, late);
        assert_eq!(position.next_left(late), None);
        position.restart();
        assert_eq!(position.next_left(late), Some(0));
    }
}
