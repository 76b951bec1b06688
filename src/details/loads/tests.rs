//! What no database does on command: a load that panics, a load that is held up while its cards are
//! forgotten.

use std::sync::atomic::AtomicUsize;
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::sync::Notify;

use super::*;
use crate::store::{PoolSettings, Store};

/// A source whose cards a test sets, and whose loads it holds up.
#[derive(Default)]
struct Script {
    card: Mutex<String>,
    /// How many ids each load asked for, in the order in which they read their cards.
    asked: Mutex<Vec<usize>>,
    /// Loads that have read and are held up.
    held: AtomicUsize,
    is_holding: AtomicBool,
    release: Notify,
}

impl Script {
    fn says(&self, card: &str) {
        card.clone_into(&mut self.card.lock().unwrap());
    }

    fn loads(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

impl Fetch for Arc<Script> {
    async fn fetch(
        &self,
        ids: &[Arc<str>],
        mut take: impl FnMut(&str, String) + Send,
    ) -> Result<(), sqlx::Error> {
        let card = self.card.lock().unwrap().clone();
        self.asked.lock().unwrap().push(ids.len());
        assert!(
            !ids.iter().any(|id| &**id == "panics"),
            "as the test wants it"
        );
        if self.is_holding.load(Ordering::SeqCst) {
            let released = self.release.notified();
            self.held.fetch_add(1, Ordering::SeqCst);
            released.await;
            self.held.fetch_sub(1, Ordering::SeqCst);
        }
        if ids.iter().any(|id| &**id == "fails") {
            return Err(sqlx::Error::PoolTimedOut);
        }
        for id in ids.iter().filter(|id| !id.starts_with("gone")) {
            take(id, card.clone());
        }
        Ok(())
    }
}

fn loads() -> (Arc<Script>, Arc<Loads<Arc<Script>>>) {
    let settings = PoolSettings {
        size: 1,
        statement_timeout: Duration::from_secs(1),
        behind_pooler: false,
    };
    let store = Store::open("sqlite::memory:", settings).expect("a store");
    let script = Arc::<Script>::default();
    script.says("old");
    let cards = Cards::new(Duration::from_secs(3_600));
    let loads = Loads::new(Arc::clone(&script), cards, Arc::new(Metrics::new(&store)));
    (script, loads)
}

fn card(text: &str) -> Detail {
    Detail::Card(text.into())
}

async fn until(condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < end, "waited in vain");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_part_that_panics_or_fails_is_unknown_and_drops_no_card() {
    for broken in ["panics", "fails"] {
        let (script, loads) = loads();
        let mut ids: Vec<String> = (0..2_500).map(|i| i.to_string()).collect();
        ids[1_234] = broken.into();
        ids[2_345] = "gone".into();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let answers = loads.batched(&ids).await;
        for (at, id) in ids.iter().enumerate() {
            let expected = match at {
                1_000..2_000 => Detail::Unknown,
                2_345 => Detail::Gone,
                _ => card("old"),
            };
            assert_eq!(*answers.get(id), expected, "{broken}: {id}");
        }
        assert_eq!(loads.metrics.details_failures.get(), 1, "{broken}");
        // What failed is asked for again, and only that.
        let (before, rest) = (script.loads(), &ids[1_000..2_000]);
        let without: Vec<&str> = ids.iter().copied().filter(|id| *id != broken).collect();
        let answers = loads.batched(&without).await;
        assert_eq!(script.asked.lock().unwrap()[before..], [rest.len() - 1]);
        assert_eq!(*answers.get("1000"), card("old"));
        assert!(
            loads.under_way().is_empty(),
            "nobody waits for a load that is gone"
        );
    }
}

#[tokio::test]
async fn who_asks_after_it_was_forgotten_sees_what_is_new_whatever_is_under_way() {
    for all in [false, true] {
        let (script, loads) = loads();
        script.is_holding.store(true, Ordering::SeqCst);
        let early = tokio::spawn({
            let loads = Arc::clone(&loads);
            async move { loads.batched(&["a", "b"]).await }
        });
        until(|| script.held.load(Ordering::SeqCst) == 1).await;
        // It has read the old card, and is held up with it.
        script.says("new");
        match all {
            true => loads.forget_all(),
            false => loads.forget("a"),
        }
        script.is_holding.store(false, Ordering::SeqCst);
        assert_eq!(*loads.batched(&["a"]).await.get("a"), card("new"));
        assert_eq!(script.loads(), 2, "the old load is not joined");
        script.release.notify_waiters();
        assert_eq!(
            *early.await.unwrap().get("a"),
            card("old"),
            "asked before, answered so"
        );
        let after = loads.batched(&["a", "b"]).await;
        assert_eq!(
            *after.get("a"),
            card("new"),
            "the old load kept what was forgotten"
        );
        let (of_b, count) = match all {
            true => (card("new"), 3),
            false => (card("old"), 2),
        };
        assert_eq!(
            (after.get("b"), script.loads()),
            (&of_b, count),
            "b, all: {all}"
        );
    }
}

#[tokio::test]
async fn what_is_forgotten_while_nobody_asks_is_not_kept_either() {
    let (script, loads) = loads();
    script.is_holding.store(true, Ordering::SeqCst);
    let early = tokio::spawn({
        let loads = Arc::clone(&loads);
        async move { loads.batched(&["a"]).await }
    });
    until(|| script.held.load(Ordering::SeqCst) == 1).await;
    loads.forget("a");
    script.is_holding.store(false, Ordering::SeqCst);
    script.release.notify_waiters();
    early.await.unwrap();
    script.says("new");
    assert_eq!(*loads.batched(&["a"]).await.get("a"), card("new"));
}

#[tokio::test]
async fn a_thousand_who_ask_for_the_same_are_one_load_which_none_of_them_can_cancel() {
    let (script, loads) = loads();
    script.is_holding.store(true, Ordering::SeqCst);
    let mut all: Vec<_> = (0..1_000)
        .map(|_| Box::pin(loads.batched(&["a", "gone", "a"])))
        .collect();
    for asking in &mut all {
        let polled = asking
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending(), "it waits for the load");
    }
    let others = all.split_off(1);
    drop(all);
    until(|| script.held.load(Ordering::SeqCst) == 1).await;
    script.is_holding.store(false, Ordering::SeqCst);
    script.release.notify_waiters();
    for other in others {
        let answers = other.await;
        assert_eq!(
            (answers.get("a"), answers.get("gone")),
            (&card("old"), &Detail::Gone)
        );
    }
    assert_eq!(*script.asked.lock().unwrap(), [2]);
}

#[tokio::test]
async fn four_statements_at_once_are_the_most() {
    let (script, loads) = loads();
    script.is_holding.store(true, Ordering::SeqCst);
    let ids: Vec<String> = (0..10 * MAX_IDS).map(|i| i.to_string()).collect();
    let asking = tokio::spawn({
        let loads = Arc::clone(&loads);
        async move {
            let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
            loads.batched(&ids).await
        }
    });
    until(|| script.held.load(Ordering::SeqCst) == 4).await;
    // All ten were started together; whoever could have passed would have by now.
    assert_eq!(loads.permits.available_permits(), 0);
    tokio::task::yield_now().await;
    assert_eq!(script.loads(), 4);
    script.is_holding.store(false, Ordering::SeqCst);
    script.release.notify_waiters();
    let answers = asking.await.unwrap();
    assert!(answers.0.values().all(|detail| *detail == card("old")));
    assert_eq!(script.loads(), 10);
}
