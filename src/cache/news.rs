//! How processes tell each other what they changed: texts of PostgreSQL's notifications.
//!
//! `1 <origin> <position> <sequence> <what>`, numbers in decimal; what is `*` for everything, or
//! `s<slot>,<slot>…`, `d<slot>,<slot>…` where something was dismissed, `w<workspace>` or `p<published
//! run>`. Every message of one telling has its sequence; the last one only counts when all came, which
//! PostgreSQL promises of one transaction.

use std::collections::HashSet;

use super::generation::scope_slot;
use super::invalidation::{Changed, Reason};
use crate::model::Id;

/// Lists that are told one by one; beyond, everything is forgotten. Four messages of PostgreSQL's, which
/// have 8,000 bytes each.
pub(super) const MAX_TOLD: usize = 4_000;

/// What waits to be told to the other processes.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct News {
    /// Slots of lists.
    pub slots: HashSet<u32>,
    /// Slots of lists of which something was dismissed.
    pub dismissed: HashSet<u32>,
    /// Workspaces.
    pub workspaces: HashSet<Id>,
    /// Published runs.
    pub published_runs: HashSet<Id>,
    /// Everything, which makes the rest needless.
    pub everything: bool,
    /// The newest of this process's writes that is among them.
    pub sequence: u64,
}

impl News {
    pub(super) fn is_empty(&self) -> bool {
        !self.everything
            && self.slots.is_empty()
            && self.dismissed.is_empty()
            && self.workspaces.is_empty()
            && self.published_runs.is_empty()
    }

    /// Slots of lists, of whichever kind.
    pub(super) fn every_slot(&self) -> impl Iterator<Item = &u32> {
        self.slots.iter().chain(&self.dismissed)
    }

    pub(super) fn add(&mut self, changed: &Changed, reason: Reason) {
        match changed {
            Changed::Rows(keys) => self.slots.extend(keys.iter().map(|key| {
                let (workspace, uid, _) = key.parts();
                scope_slot(workspace, uid)
            })),
            Changed::List(workspace, uid) => {
                let slots = match reason {
                    Reason::Dismissal => &mut self.dismissed,
                    _ => &mut self.slots,
                };
                slots.insert(scope_slot(workspace, uid.as_deref().unwrap_or("")));
            }
            Changed::Workspace(workspace) => drop(self.workspaces.insert(workspace.clone())),
            Changed::PublishedRun(run) => drop(self.published_runs.insert(run.clone())),
            Changed::Everything => self.everything = true,
        }
        self.bound();
    }

    /// Adds what could not be told before.
    pub(super) fn join(&mut self, untold: Self) {
        self.slots.extend(untold.slots);
        self.dismissed.extend(untold.dismissed);
        self.workspaces.extend(untold.workspaces);
        self.published_runs.extend(untold.published_runs);
        self.everything |= untold.everything;
        self.bound();
    }

    /// Too much becomes everything.
    fn bound(&mut self) {
        let slots = self.slots.len() + self.dismissed.len();
        let told = slots + self.workspaces.len() + self.published_runs.len();
        if self.everything || told > MAX_TOLD {
            *self = Self {
                everything: true,
                sequence: self.sequence,
                ..Self::default()
            };
        }
    }
}

/// The version of the texts; of others is only known that something changed, and not how far it is.
const VERSION: &str = "1";
/// Slots of a message: seven characters each, of 8,000 bytes that a notification may have.
const SLOTS: usize = 1_000;

/// The messages that tell the news of the process `origin`: what stands before the position in each, and
/// what behind it.
pub(crate) fn write(origin: u64, news: &News) -> (String, Vec<String>) {
    let mut parts = Vec::new();
    if news.everything {
        parts.push("*".to_owned());
    }
    for (kind, slots) in [('s', &news.slots), ('d', &news.dismissed)] {
        let slots: Vec<String> = slots.iter().map(ToString::to_string).collect();
        let messages = slots.chunks(SLOTS);
        parts.extend(messages.map(|slots| format!("{kind}{}", slots.join(","))));
    }
    parts.extend(news.workspaces.iter().map(|id| format!("w{id}")));
    parts.extend(news.published_runs.iter().map(|id| format!("p{id}")));
    let count = parts.len();
    let behind = |(at, part): (usize, String)| {
        // Only the last stands for all of them: PostgreSQL delivers them in order.
        let sequence = if at + 1 == count { news.sequence } else { 0 };
        format!(" {sequence} {part}")
    };
    let behind = parts.into_iter().enumerate().map(behind).collect();
    (format!("{VERSION} {origin} "), behind)
}

/// What a message tells: origin, position, news. `None` of one that is not of this version.
pub(crate) fn read(text: &str) -> Option<(u64, u64, News)> {
    let parse = |slots: &str| -> Option<HashSet<u32>> {
        slots.split(',').map(|slot| slot.parse().ok()).collect()
    };
    let mut parts = text.splitn(5, ' ');
    if parts.next()? != VERSION {
        return None;
    }
    let mut number = || parts.next()?.parse::<u64>().ok();
    let (origin, position, sequence) = (number()?, number()?, number()?);
    let mut news = News {
        sequence,
        ..News::default()
    };
    let what = parts.next()?;
    match what.split_at_checked(1)? {
        ("*", "") => news.everything = true,
        ("s", slots) => news.slots = parse(slots)?,
        ("d", slots) => news.dismissed = parse(slots)?,
        ("w", id) => drop(news.workspaces.insert(Id::new(id).ok()?)),
        ("p", id) => drop(news.published_runs.insert(Id::new(id).ok()?)),
        _ => return None,
    }
    Some((origin, position, news))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_heard_and_fits_a_notification() {
        let id = |text: &str| Id::new(text).unwrap();
        let told = News {
            slots: (0..2_500).map(|slot| slot * 100).collect(),
            dismissed: [7, 200_000].into(),
            workspaces: [id("a b"), id(&"é".repeat(64))].into(),
            published_runs: [id("88")].into(),
            everything: false,
            sequence: 17,
        };
        let mut heard = News::default();
        let (before, behind) = write(u64::MAX, &told);
        for behind in behind {
            let message = format!("{before}{}{behind}", u64::MAX);
            assert!(message.len() < 8_000, "{} bytes", message.len());
            let (origin, at, news) = read(&message).unwrap();
            assert_eq!((origin, at), (u64::MAX, u64::MAX));
            assert_eq!(heard.sequence, 0, "only the last one stands for all");
            heard.slots.extend(news.slots);
            heard.dismissed.extend(news.dismissed);
            heard.workspaces.extend(news.workspaces);
            heard.published_runs.extend(news.published_runs);
            heard.sequence = news.sequence;
        }
        assert_eq!(heard, told);
        for other in [
            "",
            "2 1 1 1 s1",
            "1 x 1 1 *",
            "1 1 1 1 ",
            "1 1 1 1 q",
            "1 1 1 1 s1,,",
        ] {
            assert_eq!(read(other), None, "{other}");
        }
    }
}
