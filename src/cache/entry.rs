//! What the cache keeps of a list.

use std::sync::OnceLock;
use std::time::Instant;

use axum::body::Bytes;
use axum::http::HeaderValue;

use crate::model::Scope;
use crate::read::page::{self, MAX_LIMIT, RecentWorkflow};
use crate::store::Position;

/// Items that a kept list has: the longest page, and one more, which tells whether there is a next one.
pub const ROWS: u32 = MAX_LIMIT + 1;
/// What an entry takes beside its items: itself, the key, the cache's own.
const ENTRY_BYTES: usize = 512;
/// What an item takes beside its texts: here,
const ITEM_BYTES: usize = 64;
/// and in an answer.
const ITEM_IN_JSON_BYTES: usize = 80;

/// How a streaming replica was when it was read.
#[derive(Debug, Clone, Copy)]
pub struct ByReplica {
    /// How far it was before.
    pub replayed: Position,
    /// It had all that was committed then.
    pub as_of: Instant,
    /// Whether it was read because the primary is out of reach.
    pub is_stale: bool,
}

/// The head of a list, and when it was read.
#[derive(Debug)]
pub struct Entry {
    /// Its items, [`ROWS`] at the most.
    pub items: Box<[RecentWorkflow]>,
    /// Whether the list has no more.
    pub is_whole: bool,
    /// The generation at which its load began.
    pub began: u64,
    /// It has all that was committed then.
    pub read_at: Instant,
    /// Where it is of a streaming replica.
    pub by_replica: Option<ByReplica>,
    /// The answer of the limit that was asked first, which mostly is the only one asked.
    ready: OnceLock<(u32, Answer)>,
}

/// An answer, ready to send.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The page, as JSON.
    pub body: Bytes,
    /// Its entity tag.
    pub tag: HeaderValue,
}

impl Entry {
    /// Whether it may be old, because the primary is out of reach.
    pub fn is_stale(&self) -> bool {
        self.by_replica.is_some_and(|replica| replica.is_stale)
    }

    /// Whether a page of any limit can be cut from it.
    pub fn has_every_page(&self) -> bool {
        self.is_whole || self.items.len() >= ROWS as usize
    }

    /// Of a load that began at a generation, and at a time.
    pub fn new(
        items: Vec<RecentWorkflow>,
        is_whole: bool,
        began: u64,
        began_at: Instant,
        by_replica: Option<ByReplica>,
    ) -> Self {
        Self {
            items: items.into(),
            is_whole,
            began,
            read_at: by_replica.map_or(began_at, |replica| replica.as_of),
            by_replica,
            ready: OnceLock::new(),
        }
    }

    /// The first page of `limit` items, at most [`MAX_LIMIT`].
    pub fn answer(&self, scope: &Scope, limit: u32) -> Answer {
        let answer = || Answer::of(&page::page(scope, &self.items, limit));
        let (ready_for, ready) = self.ready.get_or_init(|| (limit, answer()));
        match *ready_for == limit {
            true => ready.clone(),
            false => answer(),
        }
    }

    /// The items that a page of `limit` depends on: one more tells whether there is a next page.
    pub fn head(&self, limit: u32) -> &[RecentWorkflow] {
        let head = usize::try_from(limit).map_or(usize::MAX, |limit| limit + 1);
        self.items.get(..head).unwrap_or(&self.items)
    }

    /// The items behind that head.
    pub fn behind(&self, limit: u32) -> &[RecentWorkflow] {
        self.items.get(self.head(limit).len()..).unwrap_or_default()
    }

    /// The published runs of a head.
    pub fn shown(&self, limit: u32) -> impl Iterator<Item = &str> {
        self.head(limit).iter().map(|item| &*item.published_run)
    }

    /// About how many bytes it takes, with the longest answer.
    pub fn bytes(&self) -> usize {
        let bytes = |item: &RecentWorkflow| {
            let texts = item.published_run.len() + item.run.as_deref().map_or(0, str::len);
            ITEM_BYTES + ITEM_IN_JSON_BYTES + 2 * texts
        };
        ENTRY_BYTES + self.items.iter().map(bytes).sum::<usize>()
    }
}

impl Answer {
    /// Of something that serializes.
    pub fn of(page: &impl serde::Serialize) -> Self {
        // Texts and numbers: nothing that could fail to serialize.
        let body = serde_json::to_vec(page).unwrap_or_default();
        let mut hash = std::hash::DefaultHasher::new();
        std::hash::Hasher::write(&mut hash, &body);
        // Weak: it stands for the content, and says nothing about its encoding on the way.
        let tag = format!("W/\"{:016x}\"", std::hash::Hasher::finish(&hash));
        let tag = HeaderValue::from_str(&tag).unwrap_or(HeaderValue::from_static("W/\"\""));
        Self {
            body: body.into(),
            tag,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Id, Time};

    #[test]
    fn the_longest_answer_is_among_the_bytes() {
        let item = |at: u32| RecentWorkflow {
            published_run: format!("{at:0>60}").into(),
            last_used_at: Time::MAX,
            run: Some(format!("{at:0>60}").into()),
            details: None,
        };
        let scope = Scope {
            workspace: Id::new("w").unwrap(),
            uid: None,
        };
        for items in [0, 1, 10, ROWS] {
            let entry = Entry::new(
                (0..items).map(item).collect(),
                true,
                0,
                Instant::now(),
                None,
            );
            let answer = entry.answer(&scope, MAX_LIMIT).body.len();
            let texts = 120 * items as usize;
            let bytes = entry.bytes();
            assert!(bytes >= answer + texts, "{bytes} of {answer} and {texts}");
            assert!(bytes <= 3 * (answer + texts) + ENTRY_BYTES, "{bytes}");
        }
    }
}
