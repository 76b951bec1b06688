//! Filling pages: items whose published run is gone are left out, and others take their places.
//!
//! A page begins with the candidates that its list was read with. Where some of them are gone and there
//! are more, those are taken that are at hand, such as the rest of what the cache keeps; then the list is
//! read on: a hundred candidates, then a thousand. So is that of a full page behind which nothing was found
//! yet but what is gone: it may be the last one. Whoever has still too few gets a shorter page, and a
//! place from which to go on. So a page costs its list three statements at the most, however many of its
//! items are gone.

use std::sync::Arc;

use super::{Answers, Detail, Details};

/// How many candidates each further read asks for. Nearly always none is needed; who deleted a hundred
/// workflows gets a full page by the first, and one that is still short says where to go on.
const REFILLS: [u32; 2] = [100, 1_000];

/// An item of a list.
pub trait Candidate {
    /// Whose details are asked for.
    fn published_run(&self) -> &str;
}

/// The next items of a list, in its order. A page begins with one more than its limit, where the list
/// has so many: that one tells whether there is another page.
#[derive(Debug, Clone)]
pub struct Candidates<T> {
    /// The items. None only where the list has no more, or cannot be read on now: then the page stays
    /// short.
    pub items: Vec<T>,
    /// Whether the list has more behind the last of them, as far as is known: read one more than you hand
    /// over.
    pub more: bool,
}

/// What is to be read next of a list.
#[derive(Debug, Clone)]
pub struct Refill<T> {
    /// Which of the lists, by its place.
    pub list: usize,
    /// The item behind which to read.
    pub after: T,
    /// How many items.
    pub count: u32,
}

/// A page.
#[derive(Debug, Clone)]
pub struct Filled<T> {
    /// The items, each with its details where they are known.
    pub items: Vec<(T, Option<Arc<str>>)>,
    /// The item behind which the next page begins, for its cursor; it need not be on this page. `None`
    /// on the last page, unless that was not asked for, or a thousand gone items hide it.
    pub next: Option<T>,
    /// Whether the details of some of the items could not be had.
    pub unavailable: bool,
}

/// Who knows details.
pub(super) trait Ask {
    fn of(&self, published_runs: &[&str]) -> impl Future<Output = Answers> + Send;
}

impl Ask for Details {
    async fn of(&self, published_runs: &[&str]) -> Answers {
        Details::of(self, published_runs).await
    }
}

/// Fills a page of each list; full ones are read on, too, where `to_the_end` asks which is the last. `held`
/// gives what is at hand behind the candidates of a list, if anything is; `more` reads on in some of them, all
/// in one go: an answer for each, in their order.
pub(super) async fn fill<T, E, F>(
    details: &impl Ask,
    limit: usize,
    to_the_end: bool,
    lists: Vec<Candidates<T>>,
    held: impl FnMut(usize) -> Option<Candidates<T>>,
    mut more: impl FnMut(Vec<Refill<T>>) -> F,
) -> Result<Vec<Filled<T>>, E>
where
    T: Candidate + Clone,
    F: Future<Output = Result<Vec<Candidates<T>>, E>>,
{
    let mut pages: Vec<_> = lists.iter().map(|_| Page::new(limit, to_the_end)).collect();
    let mut read: Vec<(usize, Candidates<T>)> = lists.into_iter().enumerate().collect();
    let mut refills = REFILLS.into_iter();
    let mut held = Some(held);
    loop {
        let items = read.iter().flat_map(|(_, candidates)| &candidates.items);
        let ids: Vec<&str> = items.map(Candidate::published_run).collect();
        let answers = match ids.is_empty() {
            true => Answers::default(),
            false => details.of(&ids).await,
        };
        for (list, candidates) in read {
            pages[list].take(candidates, &answers);
        }
        if let Some(mut held) = held.take() {
            let open = pages.iter().enumerate();
            let open = open.filter(|(_, page)| page.open_behind().is_some());
            read = open
                .filter_map(|(list, _)| Some((list, held(list)?)))
                .collect();
            if !read.is_empty() {
                continue;
            }
        }
        let Some(count) = refills.next() else { break };
        let open = pages.iter().enumerate();
        let wanted: Vec<Refill<T>> = open
            .filter_map(|(list, page)| {
                let after = page.open_behind()?.clone();
                Some(Refill { list, after, count })
            })
            .collect();
        if wanted.is_empty() {
            break;
        }
        let of: Vec<usize> = wanted.iter().map(|refill| refill.list).collect();
        read = match more(wanted).await {
            Ok(lists) => of.into_iter().zip(lists).collect(),
            // That one may be the last is no reason not to show it.
            Err(_) if of.iter().all(|list| pages[*list].is_full()) => break,
            Err(error) => return Err(error),
        };
    }
    Ok(pages.into_iter().map(Page::finish).collect())
}

/// A page that is being filled.
struct Page<T> {
    limit: usize,
    to_the_end: bool,
    kept: Vec<(T, Option<Arc<str>>)>,
    unavailable: bool,
    /// Whether a candidate that may be shown found no place.
    left: bool,
    /// The last candidate that found a place or is gone.
    last: Option<T>,
    /// Whether the list goes on behind the candidates.
    more: bool,
}

impl<T: Candidate + Clone> Page<T> {
    fn new(limit: usize, to_the_end: bool) -> Self {
        Self {
            limit,
            to_the_end,
            kept: Vec::new(),
            unavailable: false,
            left: false,
            last: None,
            more: false,
        }
    }

    fn take(&mut self, candidates: Candidates<T>, answers: &Answers) {
        self.more = candidates.more;
        for item in candidates.items {
            let card = match answers.get(item.published_run()) {
                Detail::Gone => {
                    self.last = Some(item);
                    continue;
                }
                _ if self.is_full() => {
                    self.left = true;
                    break;
                }
                Detail::Card(card) => Some(Arc::clone(card)),
                Detail::Unknown => {
                    self.unavailable = true;
                    None
                }
            };
            self.last = Some(item.clone());
            self.kept.push((item, card));
        }
    }

    fn is_full(&self) -> bool {
        self.kept.len() == self.limit
    }

    /// Where to read on, where the list goes on and there is place, or nothing yet that found none.
    fn open_behind(&self) -> Option<&T> {
        let is_open = self.more && !self.left && (self.to_the_end || !self.is_full());
        self.last.as_ref().filter(|_| is_open)
    }

    fn finish(self) -> Filled<T> {
        Filled {
            next: self.last.filter(|_| self.left || self.more),
            items: self.kept,
            unavailable: self.unavailable,
        }
    }
}

#[cfg(test)]
mod tests;
