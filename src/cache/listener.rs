//! Hearing what other processes change: PostgreSQL's notifications, or SQLite's count of changes.
//!
//! While nothing can be heard, nothing is kept or given. A connection that is silently dead, or a pooler
//! that does not pass notifications on, is found out by sending some to oneself.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};

use super::invalidation::{Changed, Reason};
use super::{Cache, news};
use crate::store::{CHANNEL, Position, Store, StoreError, own_channel, ping_listener};
use crate::telemetry::{Repeated, chain};

/// How often this process sends itself a notification …
const PING_EVERY: Duration = Duration::from_secs(1);
/// … and how long it may take to come back. Together the longest that changes of others stay unseen.
const PING_TIMEOUT: Duration = Duration::from_secs(1);
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
}

/// Keeps the cache informed. Ends with the service.
///
/// Without `listen_url` PostgreSQL cannot be listened to: a transaction pooler would leave the listening to
/// whoever gets the session next.
pub async fn run(store: Store, cache: Arc<Cache>, listen_url: Option<String>) {
    let is_deaf = matches!(store, Store::Postgres(..)) && listen_url.is_none();
    if is_deaf && !matches!(*cache, Cache::Off) {
        tracing::warn!(
            "behind a transaction pooler nothing is kept: set listen_url to a direct connection"
        );
    }
    // A replica is read where it has what is heard of.
    let needs_nothing = matches!(*cache, Cache::Off) && !store.changes().tracks_replicas();
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
fn begin(store: &Store, cache: &Cache, place: Position) {
    store.changes().begin_hearing(place.at);
    cache.set_hearing(true);
    tracing::info!("listening to changes of other processes");
}

async fn ask(store: &Store, cache: &Cache) -> Deaf {
    let changes = store.changes();
    // In turn with this process's own writers, so that all that it changed is counted as its own.
    let look = async || {
        let _turn = changes.writing.lock().await;
        let owned = changes.owned();
        let place = position(store).await?;
        Ok::<_, Deaf>((place.at.cast_signed() - owned, place))
    };
    let asking = async {
        let (mut known, place) = look().await?;
        begin(store, cache, place);
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

async fn position(store: &Store) -> Result<Position, Deaf> {
    let position = tokio::time::timeout(CONNECT_TIMEOUT, store.position()).await;
    Ok(position.map_err(|_| Deaf::Lost)??)
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
        let place = position(store).await?;
        hear(store, cache, &mut listener, &own, place).await
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
    mut place: Position,
) -> Result<std::convert::Infallible, Deaf> {
    let changes = store.changes();
    changes.unhear();
    listener.eager_reconnect(false);
    let mut begun = false;
    let mut next_ping = Instant::now();
    let mut awaited = None::<Instant>;
    let (mut timeline, mut at) = (place.timeline, place.at);
    loop {
        let now = Instant::now();
        if awaited.is_some_and(|since| now.duration_since(since) > PING_TIMEOUT) {
            return Err(Deaf::Silent);
        }
        if awaited.is_none() && now >= next_ping {
            let ping = tokio::time::timeout(PING_TIMEOUT, ping_listener(listener, own)).await;
            (timeline, at) = ping.map_err(|_| Deaf::Lost)??;
            awaited = Some(now);
        }
        let until = awaited.map_or(next_ping, |since| since + PING_TIMEOUT);
        let received = tokio::time::timeout_at(until.into(), listener.try_recv()).await;
        let Ok(received) = received else { continue };
        let Some(notification) = received? else {
            return Err(Deaf::Lost);
        };
        if notification.channel() == own {
            if let Some(sent) = awaited.take() {
                next_ping = sent + PING_EVERY;
            }
            changes.timeline.store(timeline, Ordering::SeqCst);
            let now = Position {
                timeline,
                at,
                ..place
            };
            if !std::mem::replace(&mut begun, true) {
                begin(store, cache, now);
            }
            if now.timeline != place.timeline {
                // Positions of another log say nothing about this one.
                changes.unhear();
                changes.forget(&Changed::Everything, Reason::Listener);
                place = now;
            }
            continue;
        }
        let (origin, position, news) = news::read(notification.payload());
        if origin != changes.origin {
            changes.hear(origin, position, &news);
        }
    }
}
