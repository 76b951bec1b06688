//! What is known of the primary, which its replicas are held against.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::writes::lock;
use crate::store::Position;

/// What was last heard of it.
#[derive(Debug, Default)]
pub(crate) struct Primary(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Which database it is, and which history of it.
    place: Option<(u64, u32)>,
    was: Option<Was>,
    /// Whether it is being listened to.
    is_heard: bool,
    connections: u64,
}

/// Where it was.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Was {
    /// All that was committed when it was asked lies before this.
    pub(crate) position: Position,
    /// When it was asked.
    pub(crate) asked: Instant,
    /// The number of the connection that listened then: as long as that lives, it is the same server.
    pub(crate) connection: u64,
}

impl Primary {
    /// The database and the history of it, as far as is known.
    pub(crate) fn place(&self) -> Option<(u64, u32)> {
        lock(&self.0).place
    }

    /// It told where it is.
    pub(crate) fn is_at(&self, position: &Position) {
        let mut known = lock(&self.0);
        known.place = Some(position.place());
        // Whoever is listened to is another one.
        if known.was.is_some_and(|was| !was.position.is_of(position)) {
            known.was = None;
        }
    }

    /// A connection that listens to it began.
    pub(crate) fn begin(&self) {
        let mut known = lock(&self.0);
        (known.is_heard, known.was) = (true, None);
        known.connections += 1;
    }

    /// That connection told where it is.
    pub(crate) fn told(&self, position: Position, asked: Instant) {
        let mut known = lock(&self.0);
        known.was = Some(Was {
            position,
            asked,
            connection: known.connections,
        });
    }

    /// It is listened to no longer.
    pub(crate) fn end(&self) {
        lock(&self.0).is_heard = false;
    }

    /// Where it was not longer ago than so, while it is listened to.
    pub(crate) fn was(&self, within: Duration) -> Option<Was> {
        let known = lock(&self.0);
        let was = known.was.filter(|_| known.is_heard);
        was.filter(|was| was.asked.elapsed() < within)
    }

    /// The same, also when it is listened to no longer.
    pub(crate) fn last_was(&self, within: Duration) -> Option<Was> {
        let was = lock(&self.0).was;
        was.filter(|was| was.asked.elapsed() < within)
    }
}
