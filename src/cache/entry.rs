//! What the cache keeps of a list.

use std::sync::OnceLock;
use std::time::Instant;

use axum::body::Bytes;
use axum::http::HeaderValue;

use crate::model::Scope;
use crate::read::page::{self, MAX_LIMIT, RecentWorkflow};

/// Items that a kept list has: the longest page, and one more, which tells whether there is a next one.
pub const ROWS: u32 = MAX_LIMIT + 1;
/// What an entry takes beside its items: itself, the key, the cache's own, an answer of a few items.
const ENTRY_BYTES: usize = 1_024;
/// What an item takes beside its texts.
const ITEM_BYTES: usize = 64;

/// The head of a list, and when it was read.
#[derive(Debug)]
pub struct Entry {
    /// Its items, [`ROWS`] at the most.
    pub items: Box<[RecentWorkflow]>,
    /// Whether the list has no more.
    pub is_whole: bool,
    /// The generation at which its load began.
    pub began: u64,
    /// When its load began.
    pub read_at: Instant,
    /// Of a streaming replica: what it had replayed before.
    pub replayed: Option<u64>,
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
    /// Of a load that began at a generation.
    pub fn new(
        items: Vec<RecentWorkflow>,
        is_whole: bool,
        began: u64,
        read_at: Instant,
        replayed: Option<u64>,
    ) -> Self {
        Self {
            items: items.into(),
            is_whole,
            began,
            read_at,
            replayed,
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

    /// About how many bytes it takes.
    pub fn bytes(&self) -> usize {
        let texts = |item: &RecentWorkflow| {
            item.published_run.len() + item.run.as_deref().map_or(0, str::len) + ITEM_BYTES
        };
        ENTRY_BYTES + self.items.iter().map(texts).sum::<usize>()
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
