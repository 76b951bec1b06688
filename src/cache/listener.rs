//! Hearing what other processes change: PostgreSQL's notifications, or SQLite's count of changes.
//!
//! While nothing can be heard, nothing is kept or given. A connection that is silently dead, or a pooler
//! that does not pass notifications on, is found out by sending some to oneself.

use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};

use super::{Cache, news};
use crate::store::{CHANNEL, Store, StoreError, own_channel, ping_listener};
use crate::telemetry::{Repeated, chain};

/// How often this process sends itself a notification …
const PING_EVERY: Duration = Duration::from_secs(1);
/// … and how long it may take to come back.
const PING_TIMEOUT: Duration = Duration::from_secs(1);
/// Together the longest that changes of others stay unseen.
pub(crate) const DEAF_WITHIN: Duration = PING_EVERY.saturating_add(PING_TIMEOUT);
/// How often SQLite is asked whether another process changed something.
const ASK_SQLITE_EVERY: Duration = Duration::from_millis(100);
/// Before the next try to listen.
const PAUSE: Duration = Duration::from_millis(250);
/// How long connecting and listening may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why nothing can be heard.
#[derive(Debug, thiserror::Error)]
enum Deaf {
    #[error("the connection that listens failed")]
    Database(#[from] sqlx::Error),
    #[error("the database cannot be asked")]
    Store(#[from] StoreError),
    #[error("the connection that listens was lost")]
    Lost,
    #[error(
        "a notification to itself did not arrive within {PING_TIMEOUT:?}; behind a transaction pooler, \
         set listen_url to a direct connection"
    )]
    Silent,
    #[error(
        "what the store tells is not heard where listen_url leads; set it to a direct connection to the \
         database of database_url, past a transaction pooler"
    )]
    Elsewhere,
}

/// Keeps the cache informed. Ends with the service.
///
/// Without `listen_url` PostgreSQL cannot be listened to: a transaction pooler would leave the listening to
/// whoever gets the session next.
pub async fn run(store: Store, cache: Arc<Cache>, listen_url: Option<String>) {
    let is_deaf = matches!(store, Store::Postgres(..)) && listen_url.is_none();
    // A replica is read where it has what is heard of.
    let needs_nothing = matches!(*cache, Cache::Off) && !store.changes().tracks_replicas();
    if is_deaf && !needs_nothing {
        tracing::warn!(
            "behind a transaction pooler nothing is kept, and no replica is read: set listen_url to a direct \
             connection"
        );
    }
    if is_deaf || needs_nothing {
        std::future::pending::<()>().await;
    }
    let listen_url = listen_url.unwrap_or_default();
    let mut told = Repeated::default();
    loop {
        let deaf = match &store {
            Store::Postgres(..) => listen(&store, &cache, &listen_url).await,
            Store::Sqlite(..) => ask(&store, &cache).await,
        };
        cache.set_hearing(false);
        store.changes().primary.end();
        let error = chain(&deaf);
        if told.is_news(&error) {
            tracing::warn!(
                error,
                "changes of other processes cannot be heard; reads go to the database"
            );
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// From now on changes are heard; what was before is unknown.
fn begin(store: &Store, cache: &Cache, position: u64) {
    store.changes().begin_hearing(position);
    cache.set_hearing(true);
    tracing::info!("listening to changes of other processes");
}

async fn ask(store: &Store, cache: &Cache) -> Deaf {
    let changes = store.changes();
    // In turn with this process's own writers, so that all that it changed is counted as its own.
    let look = async || {
        let _turn = changes.writing.lock().await;
        let owned = changes.owned();
        let at = in_time(store.position()).await?.at;
        Ok::<_, Deaf>((at.cast_signed() - owned, at))
    };
    let asking = async {
        let (mut known, at) = look().await?;
        begin(store, cache, at);
        loop {
            tokio::time::sleep(ASK_SQLITE_EVERY).await;
            let (now, _) = look().await?;
            if now != known {
                changes.hear_of_something();
                known = now;
            }
        }
    };
    let ended: Result<std::convert::Infallible, Deaf> = asking.await;
    match ended {
        Ok(never) => match never {},
        Err(deaf) => deaf,
    }
}

async fn in_time<T>(asked: impl Future<Output = Result<T, StoreError>>) -> Result<T, Deaf> {
    let answer = tokio::time::timeout(CONNECT_TIMEOUT, asked).await;
    Ok(answer.unwrap_or(Err(StoreError::Unavailable(sqlx::Error::PoolTimedOut)))?)
}

async fn listen(store: &Store, cache: &Cache, url: &str) -> Deaf {
    let listening = async {
        let pool = pool(url)?;
        let own = own_channel(store.changes().origin);
        let connect = async {
            let mut listener = PgListener::connect_with(&pool).await?;
            listener.listen_all([CHANNEL, own.as_str()]).await?;
            Ok::<_, sqlx::Error>(listener)
        };
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, connect).await;
        let mut listener = connected.map_err(|_| Deaf::Lost)??;
        hear(store, cache, &mut listener, &own).await
    };
    let ended: Result<std::convert::Infallible, Deaf> = listening.await;
    match ended {
        Ok(never) => match never {},
        Err(deaf) => deaf,
    }
}

fn pool(url: &str) -> Result<PgPool, sqlx::Error> {
    // Without settings of ours, which a pooler would refuse before it could be told what is wrong.
    let options = PgConnectOptions::from_str(url)?
        .application_name("recents")
        .extra_float_digits(None);
    Ok(PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(CONNECT_TIMEOUT)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_lazy_with(options))
}

async fn hear(
    store: &Store,
    cache: &Cache,
    listener: &mut PgListener,
    own: &str,
) -> Result<std::convert::Infallible, Deaf> {
    let changes = store.changes();
    changes.unhear();
    listener.eager_reconnect(false);
    // The first is told as others are: it proves that this hears what the store tells. Those behind it prove
    // that it still does, and need no connection of the store's.
    let mut asked = Instant::now();
    let mut furthest = changes.furthest();
    let mut position = in_time(store.tell_itself(own)).await?;
    let (mut awaited, mut begun) = (Some(Instant::now()), false);
    // Whether something was heard since that was asked of which nobody knows where it was written.
    let mut is_behind = false;
    loop {
        let now = Instant::now();
        if awaited.is_some_and(|since| now.duration_since(since) > PING_TIMEOUT) {
            return Err(if begun { Deaf::Silent } else { Deaf::Elsewhere });
        }
        if awaited.is_none() && now >= asked + PING_EVERY {
            furthest = changes.furthest();
            let ping = tokio::time::timeout(PING_TIMEOUT, ping_listener(listener, own)).await;
            position = ping.map_err(|_| Deaf::Lost)??;
            (asked, awaited, is_behind) = (now, Some(now), false);
        }
        let until = awaited.map_or(asked + PING_EVERY, |since| since + PING_TIMEOUT);
        let received = tokio::time::timeout_at(until.into(), listener.try_recv()).await;
        let Ok(received) = received else { continue };
        let Some(notification) = received? else {
            return Err(Deaf::Lost);
        };
        if notification.channel() == own {
            awaited = None;
            // The store's connections may lead to another server by now.
            if changes.primary.place() != Some(position.place()) {
                return Err(Deaf::Elsewhere);
            }
            if !std::mem::replace(&mut begun, true) {
                changes.primary.begin();
                begin(store, cache, position.at);
            }
            changes.primary.told(position, asked);
            // What was written before is before that, unless it is of another database, or made up.
            if furthest > position.at {
                changes.hear_of_nonsense();
                is_behind = true;
            }
            if !is_behind {
                changes.all_heard_is_before(position.at);
            }
            continue;
        }
        match news::read(notification.payload()) {
            Some((origin, ..)) if origin == changes.origin => {}
            Some((origin, position, news)) => changes.hear(origin, position, &news),
            None => {
                is_behind = true;
                changes.hear_of_the_unknown();
            }
        }
    }
}
