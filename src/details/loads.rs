//! Loads of cards: few statements, each result waited for, nothing kept that was forgotten meanwhile.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout_at};

use super::cards::Cards;
use super::source::TIMEOUT;
use super::{Answers, Detail, MAX_IDS, MAX_STATEMENTS};
use crate::telemetry::Metrics;

/// Where cards are loaded from.
pub(super) trait Fetch: Send + Sync + 'static {
    /// Hands over the cards of `ids`, in one statement. It may hand over others too, and several of
    /// one id.
    fn fetch(
        &self,
        ids: &[Arc<str>],
        take: impl FnMut(&str, String) + Send,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;
}

/// The ids that a load asked for, each with its card where it has one.
type Loaded = HashMap<Arc<str>, Option<Arc<str>>>;

/// A load under way. Where it fails, its sender goes without a word.
#[derive(Debug, Clone)]
struct Load {
    number: u64,
    loaded: watch::Receiver<Option<Arc<Loaded>>>,
}

/// Cards, remembered or loaded.
#[derive(Debug)]
pub(super) struct Loads<F> {
    fetch: F,
    cards: Cards,
    /// By which load each id is being loaded; who asks for it waits for that one. A load keeps what it
    /// still finds itself named for here: who forgets an id takes it out.
    under_way: Mutex<HashMap<Arc<str>, Load>>,
    next: AtomicU64,
    permits: Semaphore,
    failing: AtomicBool,
    metrics: Arc<Metrics>,
}

impl<F: Fetch> Loads<F> {
    pub(super) fn new(fetch: F, cards: Cards, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            fetch,
            cards,
            under_way: Mutex::default(),
            next: AtomicU64::new(0),
            permits: Semaphore::new(MAX_STATEMENTS as usize),
            failing: AtomicBool::new(false),
            metrics,
        })
    }

    pub(super) fn source(&self) -> &F {
        &self.fetch
    }

    /// What is known of these ids, in ⌈distinct unknown ids / 1,000⌉ statements.
    pub(super) async fn batched(self: &Arc<Self>, ids: &[&str]) -> Answers {
        let (mut answers, missing) = self.remembered(ids);
        self.load(missing, &mut answers, Instant::now() + TIMEOUT)
            .await;
        answers
    }

    /// The same, in a statement for each id, one after the other.
    pub(super) async fn one_by_one(self: &Arc<Self>, ids: &[&str]) -> Answers {
        let (mut answers, missing) = self.remembered(ids);
        let end = Instant::now() + TIMEOUT;
        for id in missing {
            if Instant::now() < end {
                self.load(vec![id], &mut answers, end).await;
            }
        }
        answers
    }

    /// Every id, once, with what is remembered of it, and those of which nothing is.
    fn remembered(&self, ids: &[&str]) -> (Answers, Vec<Arc<str>>) {
        let (mut answers, mut missing) = (Answers::default(), Vec::new());
        for id in ids {
            if !answers.0.contains_key(*id) {
                let id = Arc::<str>::from(*id);
                let detail = self.cards.get(&id).map(Detail::of);
                if detail.is_none() {
                    missing.push(Arc::clone(&id));
                }
                answers.0.insert(id, detail.unwrap_or(Detail::Unknown));
            }
        }
        (answers, missing)
    }

    /// Loads these ids, or waits for who loads them already.
    async fn load(self: &Arc<Self>, missing: Vec<Arc<str>>, answers: &mut Answers, end: Instant) {
        let mut waiting: HashMap<u64, (Load, Vec<Arc<str>>)> = HashMap::new();
        {
            let mut under_way = self.under_way();
            let mut own = Vec::new();
            for id in missing {
                // A load may have ended since it was looked for.
                if let Some(card) = self.cards.get(&id) {
                    answers.0.insert(id, Detail::of(card));
                } else if let Some(load) = under_way.get(&id) {
                    let (_, ids) = waiting
                        .entry(load.number)
                        .or_insert_with(|| (load.clone(), Vec::new()));
                    ids.push(id);
                } else {
                    own.push(id);
                }
            }
            for ids in own.chunks(MAX_IDS) {
                let load = self.start(ids.to_vec(), end);
                under_way.extend(ids.iter().map(|id| (Arc::clone(id), load.clone())));
                waiting.insert(load.number, (load, ids.to_vec()));
            }
        }
        for (mut load, ids) in waiting.into_values() {
            let Ok(loaded) = load.loaded.wait_for(Option::is_some).await else {
                continue;
            };
            let loaded = loaded.as_deref();
            for id in ids {
                if let Some(card) = loaded.and_then(|loaded| loaded.get(&id)) {
                    answers.0.insert(id, Detail::of(card.clone()));
                }
            }
        }
    }

    /// Starts a load, which ends whether anybody waits for it or not.
    fn start(self: &Arc<Self>, ids: Vec<Arc<str>>, end: Instant) -> Load {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, loaded) = watch::channel(None);
        let mut under_way = UnderWay {
            loads: Arc::clone(self),
            number,
            ids,
            sender,
        };
        tokio::spawn(async move { under_way.run(end).await });
        Load { number, loaded }
    }

    fn under_way(&self) -> MutexGuard<'_, HashMap<Arc<str>, Load>> {
        self.under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn forget(&self, id: &str) {
        let mut under_way = self.under_way();
        under_way.remove(id);
        self.cards.forget(id);
    }

    pub(super) fn forget_all(&self) {
        let mut under_way = self.under_way();
        under_way.clear();
        self.cards.forget_all();
    }
}

/// A load at work.
struct UnderWay<F: Fetch> {
    loads: Arc<Loads<F>>,
    number: u64,
    ids: Vec<Arc<str>>,
    sender: watch::Sender<Option<Arc<Loaded>>>,
}

impl<F: Fetch> UnderWay<F> {
    /// Loads the cards, by `end`.
    async fn run(&mut self, end: Instant) {
        let loads = &self.loads;
        let mut loaded: Loaded = self.ids.iter().map(|id| (Arc::clone(id), None)).collect();
        let asked = async {
            let _permit = loads.permits.acquire().await;
            let asked = std::time::Instant::now();
            loads.metrics.details_statements.inc();
            let take = |id: &str, card: String| {
                if let Some(empty @ None) = loaded.get_mut(id) {
                    *empty = Some(card.into());
                }
            };
            loads.fetch.fetch(&self.ids, take).await.map(|()| asked)
        };
        let asked = match timeout_at(end, asked).await {
            Ok(Ok(asked)) => asked,
            Ok(Err(error)) => return self.failed(&error),
            Err(late) => return self.failed(&late),
        };
        if loads.failing.swap(false, Ordering::Relaxed) {
            tracing::info!("details can be loaded again");
        }
        let mut under_way = loads.under_way();
        for (id, card) in &loaded {
            if under_way
                .get(id)
                .is_some_and(|load| load.number == self.number)
            {
                under_way.remove(id);
                loads.cards.keep(Arc::clone(id), card.clone(), asked);
            }
        }
        drop(under_way);
        self.sender.send_replace(Some(Arc::new(loaded)));
    }

    /// Says so, once until a load succeeds: every page of a busy service would.
    fn failed(&self, error: &(dyn std::error::Error + 'static)) {
        if !self.loads.failing.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                error,
                "details could not be loaded; lists come without them"
            );
        }
    }
}

impl<F: Fetch> Drop for UnderWay<F> {
    fn drop(&mut self) {
        if self.sender.borrow().is_some() {
            return;
        }
        // It failed, took too long or panicked. Whoever waits hears so after this, when the sender goes.
        self.loads.metrics.details_failures.inc();
        let mut under_way = self.loads.under_way();
        for id in &self.ids {
            if under_way
                .get(id)
                .is_some_and(|load| load.number == self.number)
            {
                under_way.remove(id);
            }
        }
    }
}

#[cfg(test)]
mod tests;
