//! A streaming replica, read where it is proved to be far enough.
//!
//! The proof is a position of the primary, which the connection that listens asks for each second. While
//! nothing is heard there is none, and the primary answers.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::page;
use super::rest::Rest;
use super::source::{Read, WHATEVER};
use crate::cache::listener::DEAF_WITHIN;
use crate::cache::primary::Was;
use crate::cache::{ByReplica, CacheSettings};
use crate::store::lists::ListStart;
use crate::store::{Conn, Pooled, Position, Reached, Store, StoreError, reached_by};
use crate::telemetry::{Repeated, chain};

/// How long a replica that is behind a token is waited for; then the primary answers.
const WAIT: Duration = Duration::from_millis(100);
/// How long a database may take to say how far it is, also where it has to be connected to first.
const REPLY_WITHIN: Duration = Duration::from_millis(500);
/// How long reading lists may take, which takes milliseconds; then the primary answers. One that is held up, as by
/// a lock that it replays, takes that from whoever waits, and not as much as a statement may take.
pub(super) const READ_WITHIN: Duration = Duration::from_secs(1);
/// The same where nobody else answers.
const READ_STALE_WITHIN: Duration = Duration::from_secs(2);
/// Servers behind one address that are remembered: standbys that were started since, each of which is looked at
/// again where it is not.
const MAX_SERVERS: usize = 64;
/// How often it is seen to that a replica can be read when the primary is gone, until one is known …
const WATCH_EVERY: Duration = Duration::from_millis(250);
/// … and then, by another connection, for others behind the same address.
const WATCH_OTHERS_EVERY: Duration = Duration::from_secs(5);
/// How often a replica is asked meanwhile.
const ASK_EVERY: Duration = Duration::from_millis(5);

/// A replica, and what became of asking it.
#[derive(Debug)]
pub(super) struct Replica {
    store: Store,
    settings: CacheSettings,
    rest: Rest,
    said: Mutex<Said>,
}

#[derive(Debug, Default)]
struct Said {
    /// Why it could not be read: after a failover for minutes, and once a second.
    failure: Repeated,
    /// Servers behind its address, by when they were started, that were found not to be ahead, and since which
    /// connection that listens to the primary.
    follow: HashMap<i64, u64>,
    /// And where these are: one that starts anew while the primary is gone is asked for stale answers still.
    addresses: HashMap<String, u64>,
    /// Where others were found to be ahead.
    ahead: HashMap<i64, Position>,
}

impl Said {
    /// Whether any is known not to be ahead.
    fn is_known(&self, connection: u64) -> bool {
        self.follow.values().any(|since| *since == connection)
    }

    fn follows(&mut self, reached: &Reached, connection: u64) {
        if self.follow.len().max(self.addresses.len()) >= MAX_SERVERS {
            self.follow.clear();
            self.addresses.clear();
        }
        self.follow.insert(reached.started, connection);
        self.addresses.insert(reached.address.clone(), connection);
    }

    fn is_ahead(&mut self, reached: &Reached) {
        if self.ahead.len() >= MAX_SERVERS {
            self.ahead.clear();
        }
        self.ahead.insert(reached.started, reached.position);
    }
}

/// Why what is at `read_database_url` is not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoReplica {
    #[error("it is no standby")]
    NoStandby,
    #[error("it is a standby of another server, or another database")]
    OfAnother,
    /// It was promoted, or the primary was another server before: it may be further than any token, and lack
    /// what that names.
    #[error("it is of timeline {0}, the primary of {1}")]
    OfAnotherTimeline(u32, u32),
    #[error("it is ahead of the primary, which was put back to an earlier state")]
    Ahead,
}

impl NoReplica {
    /// What a standby has replayed, where that is of the primary's history.
    pub(crate) fn unless_it_is(
        reached: Option<Reached>,
        primary: &Position,
    ) -> Result<Reached, Self> {
        let reached = reached.ok_or(Self::NoStandby)?;
        let replayed = reached.position;
        match (replayed.timeline, primary.timeline) {
            _ if replayed.database != primary.database => Err(Self::OfAnother),
            (of, primary) if of != primary => Err(Self::OfAnotherTimeline(of, primary)),
            _ => Ok(reached),
        }
    }
}

impl From<NoReplica> for StoreError {
    fn from(error: NoReplica) -> Self {
        Self::Other(sqlx::Error::Configuration(error.into()))
    }
}

impl Replica {
    pub(super) fn new(store: Store, settings: CacheSettings) -> Self {
        Self {
            store,
            settings,
            rest: Rest::new(),
            said: Mutex::default(),
        }
    }

    /// What it has of some lists. `None` where it cannot be read, or is not far enough: for the reader, for
    /// what is known here of a list's changes, or for where the primary was some seconds ago.
    pub(super) async fn read(
        &self,
        starts: &[ListStart],
        rows: u32,
        least: u64,
        primary: &Store,
    ) -> Option<Read> {
        let within = DEAF_WITHIN.min(self.settings.ttl);
        let was = primary.changes().primary.was(within)?;
        let read = self.attempt(starts, rows, least, primary, (was, false));
        self.heard(read.await)
    }

    /// The same while the primary is out of reach, of as long ago as answers may be then.
    pub(super) async fn stale(
        &self,
        starts: &[ListStart],
        rows: u32,
        primary: &Store,
    ) -> Option<Read> {
        let within = self.settings.stale_if_error;
        let was = primary.changes().primary.last_was(within)?;
        let read = self.attempt(starts, rows, WHATEVER, primary, (was, true));
        self.heard(read.await)
    }

    fn heard(&self, read: Result<Option<Read>, StoreError>) -> Option<Read> {
        match read {
            Ok(Some(read)) => {
                self.said().failure.well();
                return Some(read);
            }
            Ok(None) => tracing::debug!("the replica is behind; the primary answers"),
            Err(error) => {
                self.rest.begin();
                let error = chain(&error);
                if self.said().failure.is_news(&error) {
                    tracing::warn!(error, "the replica cannot be read; the primary answers");
                }
            }
        }
        None
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn attempt(
        &self,
        starts: &[ListStart],
        rows: u32,
        least: u64,
        primary: &Store,
        (was, is_stale): (Was, bool),
    ) -> Result<Option<Read>, StoreError> {
        if !self.rest.is_over() {
            return Ok(None);
        }
        let (mut session, mut reached) = self.connect(&was).await?;
        let deadline = Instant::now() + WAIT;
        while reached.position.at < least {
            if Instant::now() >= deadline {
                return Ok(None);
            }
            tokio::time::sleep(ASK_EVERY).await;
            reached = self::reached(&mut session.conn(), &was.position).await?;
        }
        let replayed = reached.position;
        let changes = primary.changes();
        let has = |ListStart { scope, .. }: &ListStart| {
            changes.is_replayed(&scope.workspace, scope.uid_column(), replayed.at)
        };
        // Not waited for: one that stands still would hold every read up.
        let is_far_enough = replayed.at >= was.position.at && starts.iter().all(has);
        let primary = Some(primary).filter(|_| !is_stale);
        if !is_far_enough || !self.follows(primary, &was, &reached).await? {
            return Ok(None);
        }
        let lists = async {
            let lists = page::read_by(&mut session.conn(), starts, rows).await?;
            session.done().await?;
            Ok(lists)
        };
        let within = match is_stale {
            true => READ_STALE_WITHIN,
            false => READ_WITHIN,
        };
        let lists = timeout(within, lists).await;
        let lists = lists.unwrap_or_else(|_| Err(silent()))?;
        let by_replica = Some(ByReplica {
            replayed,
            as_of: was.asked,
            is_stale,
        });
        Ok(Some(Read { lists, by_replica }))
    }

    /// A connection, and how far the replica behind it is.
    ///
    /// All is asked by that one: of several standbys behind one address, and of databases that change their
    /// names, another one may be elsewhere.
    async fn connect(&self, was: &Was) -> Result<(Pooled, Reached), StoreError> {
        let session = timeout(REPLY_WITHIN, self.store.one_session());
        let mut session = session.await.unwrap_or_else(|_| Err(silent()))?;
        let reached = reached(&mut session.conn(), &was.position).await?;
        Ok((session, reached))
    }

    /// Sees to it that the replica is known to follow the primary, before that is gone, and so are others behind
    /// its address. Ends with the service.
    pub(super) async fn watch(&self, primary: &Store) {
        let mut looked_at = None;
        loop {
            tokio::time::sleep(WATCH_EVERY).await;
            let Some(was) = primary.changes().primary.was(DEAF_WITHIN) else {
                continue;
            };
            let is_known = self.said().is_known(was.connection);
            let is_due = looked_at.is_none_or(|at: Instant| at.elapsed() >= WATCH_OTHERS_EVERY);
            if (is_known && !is_due) || !self.rest.is_over() {
                continue;
            }
            looked_at = Some(Instant::now());
            let looked = async {
                let (session, reached) = self.connect(&was).await?;
                // The next one may lead to another server.
                session.discard();
                self.follows(Some(primary), &was, &reached).await
            };
            if let Err(error) = looked.await {
                self.heard(Err(error));
            }
        }
    }

    /// Whether a replica may have what it replayed from the primary, which is asked once for each connection
    /// that listens to it, if it may be asked: one that was put back to an earlier state had to be started anew.
    async fn follows(
        &self,
        primary: Option<&Store>,
        was: &Was,
        reached: &Reached,
    ) -> Result<bool, StoreError> {
        let replayed = reached.position;
        {
            let mut said = self.said();
            // As long as it stands where it was ahead, the primary only catches up with it.
            let is_ahead = |ahead: &Position| ahead.is_of(&replayed) && replayed.at <= ahead.at;
            if said.ahead.get(&reached.started).is_some_and(is_ahead) {
                return Err(NoReplica::Ahead.into());
            }
            if said.follow.get(&reached.started) == Some(&was.connection) {
                return Ok(true);
            }
            if replayed.at <= was.position.at {
                said.follows(reached, was.connection);
                return Ok(true);
            }
        }
        let Some(primary) = primary else {
            let was_proved = self.said().addresses.get(&reached.address) == Some(&was.connection);
            return Ok(was_proved);
        };
        let now = timeout(REPLY_WITHIN, primary.position()).await;
        let Ok(Ok(now)) = now else { return Ok(false) };
        if !now.is_of(&replayed) {
            return Ok(false);
        }
        let mut said = self.said();
        if now.at < replayed.at {
            said.is_ahead(reached);
            return Err(NoReplica::Ahead.into());
        }
        said.follows(reached, was.connection);
        Ok(true)
    }
}

/// How far the replica behind a connection is, in the history of the primary.
async fn reached(conn: &mut Conn<'_>, primary: &Position) -> Result<Reached, StoreError> {
    let reached = timeout(REPLY_WITHIN, reached_by(conn)).await;
    let reached = reached.unwrap_or_else(|_| Err(silent()))?;
    Ok(NoReplica::unless_it_is(reached, primary)?)
}

fn silent() -> StoreError {
    StoreError::Unavailable(sqlx::Error::PoolTimedOut)
}
