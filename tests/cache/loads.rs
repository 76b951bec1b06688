//! Misses: how many queries they are, and that no one of them holds up another.

use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use recents::cache::{CacheSettings, listener};
use recents::model::Scope;
use recents::read::{How, Reader};
use recents::settings::ReadPath;
use recents::store::{PoolSettings, Store, StoreError};

use crate::promises::lists::scope;
use crate::support::{Backend, TestDb, Use, both, until};

both!(a_reader_that_goes_away_takes_no_load_with_it);

/// On one thread, so that all have asked before the first query is sent.
#[tokio::test]
async fn a_thousand_misses_at_once_are_few_queries_postgres() {
    a_thousand_misses_at_once_are_few_queries(TestDb::migrated(Backend::Postgres).await).await;
}

#[tokio::test]
async fn a_thousand_misses_at_once_are_few_queries_sqlite() {
    a_thousand_misses_at_once_are_few_queries(TestDb::migrated(Backend::Sqlite).await).await;
}

const SETTINGS: CacheSettings = CacheSettings {
    capacity: 1 << 20,
    ttl: Duration::from_secs(60),
    stale_if_error: Duration::from_secs(60),
};

/// A reader that hears what others change.
async fn reader(db: &TestDb, store: &Store) -> Reader {
    let reader = Reader::new(store.clone(), None, SETTINGS);
    let cache = Arc::clone(reader.cache());
    tokio::spawn(listener::run(store.clone(), cache, Some(db.url.clone())));
    until("it hears", async || {
        reader.cache().is_coherent().then_some(())
    })
    .await;
    reader
}

async fn used(db: &TestDb, workspaces: usize) {
    let recorder = crate::promises::fold::recorder(db);
    let uses: Vec<_> = (0..workspaces)
        .map(|i| Use::new(&format!("w{i}"), "p", 0))
        .collect();
    for uses in uses.chunks(1_000) {
        crate::promises::fold::record(&recorder, uses).await;
    }
}

/// Begins something, and tells whether it waits.
async fn waits(mut begun: std::pin::Pin<&mut impl Future>) -> bool {
    std::future::poll_fn(|context| Poll::Ready(begun.as_mut().poll(context).is_pending())).await
}

/// Reads a list, and gives its first item.
async fn first(reader: &Reader, scope: &Scope) -> Result<Option<String>, String> {
    let how = How {
        token: None,
        path: ReadPath::Materialized,
    };
    let found = reader.lists(std::slice::from_ref(scope), 4, how).await;
    let found = found
        .map_err(|error| error.to_string())?
        .pop()
        .expect("a list");
    Ok(found
        .entry
        .items
        .first()
        .map(|item| item.published_run.to_string()))
}

async fn a_thousand_misses_at_once_are_few_queries(db: TestDb) {
    used(&db, 1_000).await;
    for (scopes, most) in [(1, 1), (10, 10), (1_000, 10)] {
        let store = db.store();
        let reader = reader(&db, &store).await;
        let scopes: Vec<_> = (0..1_000)
            .map(|i| scope(&format!("w{}", i % scopes), None))
            .collect();
        // All of them ask before the first query is sent: they are polled one after the other, and the
        // query by a task of its own.
        let answers = join_all(scopes.iter().map(|scope| first(&reader, scope))).await;
        let sent = reader.counts.queries();
        for answer in answers {
            assert_eq!(answer, Ok(Some("p".into())));
        }
        assert!(sent <= most, "{sent} queries");
    }
}

/// A row that no service wrote, in one of two lists that are asked for together.
#[tokio::test]
async fn a_row_that_cannot_be_read_fails_its_own_list_only() {
    let db = TestDb::migrated(Backend::Sqlite).await;
    used(&db, 2).await;
    db.execute("update recent_workflow set run = cast(x'ff' as text) where workspace = 'w1'")
        .await;
    let store = db.store();
    let reader = reader(&db, &store).await;
    let [good, bad] = [scope("w0", None), scope("w1", None)];
    let (good, bad) = tokio::join!(first(&reader, &good), first(&reader, &bad));
    assert_eq!(good, Ok(Some("p".into())));
    assert_eq!(bad, Err("a row of the table is corrupt".into()));
    // Both together, then each apart.
    assert_eq!(reader.counts.queries(), 3);
}

/// The table as a view: what `unless` says of a row fails, or takes long, wherever the row is read.
async fn reading(db: &TestDb, unless: &str) {
    db.execute("alter table recents.recent_workflow rename to stored")
        .await;
    db.execute(&format!(
        "create view recents.recent_workflow as select * from recents.stored where {unless}"
    ))
    .await;
}

#[tokio::test]
async fn what_the_database_refuses_to_one_list_fails_no_other() {
    let db = TestDb::migrated(Backend::Postgres).await;
    used(&db, 2).await;
    reading(
        &db,
        "1 / (case workspace when 'w1' then 0 else 1 end) is not null",
    )
    .await;
    let store = db.store();
    let reader = reader(&db, &store).await;
    let [good, bad] = [scope("w0", None), scope("w1", None)];
    let (good, bad) = tokio::join!(first(&reader, &good), first(&reader, &bad));
    assert_eq!(good, Ok(Some("p".into())));
    assert_eq!(bad, Err("the database refuses a value".into()));
    // Both together, then each apart.
    assert_eq!(reader.counts.queries(), 3);
}

/// The longest that a statement may take in the tests of slow ones.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(1);

fn impatient(db: &TestDb) -> Store {
    let settings = PoolSettings {
        size: 8,
        statement_timeout: STATEMENT_TIMEOUT,
        behind_pooler: false,
    };
    Store::open(&db.url, settings).expect("a good url")
}

#[tokio::test]
async fn a_list_that_takes_too_long_fails_none_that_was_read_with_it() {
    let db = TestDb::migrated(Backend::Postgres).await;
    used(&db, 40).await;
    reading(
        &db,
        "case workspace when 'w0' then pg_sleep(60) is not null else true end",
    )
    .await;
    let store = impatient(&db);
    let reader = reader(&db, &store).await;
    let scopes: Vec<_> = (0..40).map(|i| scope(&format!("w{i}"), None)).collect();
    let mut answers = join_all(scopes.iter().map(|scope| first(&reader, scope))).await;
    let slow = answers.remove(0);
    let slow = slow.expect_err("it takes too long");
    assert!(slow.contains("did not answer in time"), "{slow}");
    for answer in answers {
        assert_eq!(answer, Ok(Some("p".into())));
    }
}

/// Nothing is quick then: it is asked for little more than before, and readers hear so.
#[tokio::test]
async fn a_table_that_is_slow_as_a_whole_is_told_soon() {
    let db = TestDb::migrated(Backend::Postgres).await;
    used(&db, 40).await;
    reading(&db, "pg_sleep(60) is not null").await;
    let store = impatient(&db);
    let reader = reader(&db, &store).await;
    let scopes: Vec<_> = (0..40).map(|i| scope(&format!("w{i}"), None)).collect();
    let started = Instant::now();
    let answers = join_all(scopes.iter().map(|scope| first(&reader, scope))).await;
    for answer in answers {
        let slow = answer.expect_err("it takes too long");
        assert!(slow.contains("did not answer in time"), "{slow}");
    }
    let took = started.elapsed();
    assert!(took < 3 * STATEMENT_TIMEOUT, "readers waited {took:?}");
    // All together, and two of them apart.
    assert_eq!(reader.counts.queries(), 3);
}

async fn a_reader_that_goes_away_takes_no_load_with_it(db: TestDb) {
    const LISTS: usize = 100;
    used(&db, LISTS).await;
    let store = db.store();
    let reader = reader(&db, &store).await;
    let mut lists = 0..LISTS;
    let kept = loop {
        let at = lists.next().expect("two readers that wait for one load");
        let scope = scope(&format!("w{at}"), None);
        let mut gone = Box::pin(first(&reader, &scope));
        let mut stays = Box::pin(first(&reader, &scope));
        // It may be loaded before the second one comes.
        if waits(gone.as_mut()).await && waits(stays.as_mut()).await {
            // The one that began it goes.
            drop(gone);
            break stays.await;
        }
    };
    assert_eq!(kept, Ok(Some("p".into())));
    let nothing = crate::promises::lists::scope("never", None);
    assert_eq!(
        first(&reader, &nothing).await,
        Ok(None),
        "empty is an answer"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_that_is_slow_or_fails_is_its_own_affair() {
    let db = TestDb::migrated(Backend::Postgres).await;
    used(&db, 10).await;
    let store = db.store();
    let reader = Arc::new(reader(&db, &store).await);
    let mut blocker = db.connect().await;
    blocker
        .execute("begin; lock table recents.recent_workflow in access exclusive mode")
        .await;
    let read = |at: usize| {
        let reader = Arc::clone(&reader);
        tokio::spawn(async move { first(&reader, &scope(&format!("w{at}"), None)).await })
    };
    let mut beside = db.connect().await;
    let mut waiting = async |count: usize| {
        until(&format!("{count} queries wait"), async || {
            let pids = beside
                .texts(
                    "select pid::text from pg_stat_activity where datname = current_database()
                     and wait_event_type = 'Lock' order by query_start",
                )
                .await;
            (pids.len() == count).then_some(pids)
        })
        .await
    };
    let failing = read(0);
    let first = waiting(1).await;
    // Another one does not wait until that one ended.
    let slow = read(1);
    waiting(2).await;
    db.execute(&format!("select pg_terminate_backend({})", first[0]))
        .await;
    let failed = failing
        .await
        .expect("a task")
        .expect_err("its query was killed");
    assert_eq!(
        failed,
        StoreError::Unavailable(sqlx::Error::PoolClosed).to_string()
    );
    blocker.execute("rollback").await;
    assert_eq!(slow.await.expect("a task"), Ok(Some("p".into())));
    assert_eq!(
        read(0).await.expect("a task"),
        Ok(Some("p".into())),
        "asked again"
    );
}
