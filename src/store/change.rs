//! What was written, named by a position in the database's log; and telling other processes of it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use sqlx::postgres::PgListener;
use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Row};

use super::statement::Statement;
use super::{Conn, Dialect, Store, StoreError, on_both, with_retries};
use crate::cache::{Changed, Reason, news};
use crate::telemetry::{Repeated, chain};

pub(super) const STATEMENTS: [&Statement; 5] = [&PLACE, &POSITION, &REPLAYED, &TELL, &COUNT_ONE];

/// Tellings are this far apart: under load, what many flushes changed is told together, at a tenth of the
/// cost. The first after silence is told at once.
const TELL_APART: Duration = Duration::from_millis(5);

/// Before news that could not be told are told again.
const TELL_AGAIN: Duration = Duration::from_millis(500);

/// What is not answered for so long went into a connection that died in silence, and is told again by another
/// one: others show the past meanwhile.
const TOLD_WITHIN: Duration = Duration::from_secs(1);

/// The channel of PostgreSQL's on which processes tell each other what they changed.
pub(crate) const CHANNEL: &str = "recents";

static PLACE: Statement = Statement::new("place", || "select {database}".into());

static POSITION: Statement = Statement::new("position", || "select {timeline}, {position}".into());

// A primary has replayed what it wrote. The timeline is asked behind the position, so that it cannot be an
// earlier one. A standby does not tell of which timeline it replays: it tells of which one its last
// restartpoint was, and, to those who may see it, of which one it receives, which is never one that what it
// replayed does not belong to.
static REPLAYED: Statement = Statement::new("replayed", || {
    "select cast(case when pg_is_in_recovery() then pg_last_wal_replay_lsn()
                      else pg_current_wal_flush_lsn() end - '0/0' as bigint),
            case when pg_is_in_recovery()
                 then greatest((select timeline_id from pg_control_checkpoint()),
                               (select max(received_tli) from pg_stat_wal_receiver))
                 else {timeline} end"
        .into()
})
.only(Dialect::Postgres);

// Nobody waits for the disk to hear of a change: a crash loses the listeners too.
static TELL: Statement = Statement::new("tell", || {
    format!(
        "select set_config('synchronous_commit', 'off', true),
                pg_notify('{CHANNEL}', $1 || {{position}} || x.text), {{position}}
         from (select unnest($2::text[]) as text) as x"
    )
})
.only(Dialect::Postgres);

// For other processes it is as if a list had changed.
static COUNT_ONE: Statement = Statement::new("count_one", || {
    "update change set position = position + 1".into()
})
.only(Dialect::Sqlite);

/// The channel on which a process tells itself that it hears.
pub(crate) fn own_channel(origin: u64) -> String {
    format!("{CHANNEL}_{origin:x}")
}

/// Sends a notification to oneself, on a channel of [`own_channel`]. As plain text, which also a pooler
/// passes on that keeps no prepared statements, so that it is found out by its silence.
///
/// Returns the timeline and the position of then, asked by the same connection: whether it is the right
/// database that is heard must not wait for another one to be free.
pub(crate) async fn ping_listener(
    listener: &mut PgListener,
    channel: &str,
) -> Result<(u32, u64), sqlx::Error> {
    let place = POSITION.run(Dialect::Postgres);
    let ping = sqlx::raw_sql(AssertSqlSafe(format!("{place}; notify {channel}")));
    let rows = ping.fetch_all(listener).await?;
    let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    let (timeline, at) = (row.try_get::<i32, _>(0)?, row.try_get::<i64, _>(1)?);
    Ok((timeline.cast_unsigned(), at.unsigned_abs()))
}

/// A position in the log of one database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Which database: PostgreSQL's system identifier, or SQLite's own number.
    pub database: u64,
    /// Which history of it: another one after a failover or a restore.
    pub timeline: u32,
    /// Everything that was committed before it was asked for lies before it.
    pub at: u64,
}

/// How far a streaming replica is: everything that was committed before this position, in this history of
/// the database, is seen by the next read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// Which history. Of no other do positions say anything.
    pub timeline: u32,
    /// The position in its log.
    pub at: u64,
}

impl Store {
    /// The position of now. Whoever is acknowledged a write asks for it after the commit.
    ///
    /// # Errors
    /// [`StoreError`]; also of a standby, which writes nothing.
    pub async fn position(&self) -> Result<Position, StoreError> {
        let changes = self.changes();
        let database = match changes.database.get() {
            Some(database) => *database,
            None => {
                let database: i64 = on_both!(Self, self, |pool, dialect| {
                    let query = sqlx::query_scalar(PLACE.run(dialect));
                    query.fetch_one(pool).await?
                });
                *changes.database.get_or_init(|| database.cast_unsigned())
            }
        };
        on_both!(Self, self, |pool, dialect| {
            let row = sqlx::query(POSITION.run(dialect)).fetch_one(pool).await?;
            let timeline = row.try_get::<i32, _>(0)?.cast_unsigned();
            changes.timeline.store(timeline, Ordering::SeqCst);
            Ok(Position {
                database,
                timeline,
                at: row.try_get::<i64, _>(1)?.unsigned_abs(),
            })
        })
    }

    /// How far a streaming replica is. SQLite has none.
    pub(crate) async fn reached(&self) -> Result<Reached, StoreError> {
        let Self::Postgres(pool, _) = self else {
            return Ok(Reached { timeline: 0, at: 0 });
        };
        let replayed = sqlx::query(REPLAYED.run(Dialect::Postgres));
        let row = replayed.fetch_one(pool).await?;
        Ok(Reached {
            timeline: row.try_get::<i32, _>(1)?.cast_unsigned(),
            at: row.try_get::<i64, _>(0)?.unsigned_abs(),
        })
    }

    /// Forgets what this process did not change itself, here and in other processes: those of SQLite, which
    /// hear only that something changed, forget everything.
    ///
    /// # Errors
    /// [`StoreError`] where SQLite cannot be written to, so that other processes do not hear of it.
    pub(crate) async fn forget(&self, changed: &Changed, reason: Reason) -> Result<(), StoreError> {
        self.committed(changed, reason);
        match self {
            // They are told soon, and again where that fails.
            Self::Postgres(..) => Ok(()),
            Self::Sqlite(..) => with_retries(|| self.count_one()).await,
        }
    }

    async fn count_one(&self) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        if let Conn::Sqlite(conn) = tx.conn() {
            sqlx::query(COUNT_ONE.run(Dialect::Sqlite))
                .execute(conn)
                .await?;
        }
        tx.commit().await
    }

    /// Tells other processes what this one changed, until nothing is left to tell. What cannot be told now
    /// is told later; only what a process did not live to tell is made good by the others' time to live.
    pub(super) async fn tell(&self) {
        // Whoever waits here waits for what is being told, too.
        let _telling = self.changes().telling.lock().await;
        let mut said = Repeated::default();
        while let Some(news) = self.changes().take_news() {
            let Self::Postgres(pool, changes) = self else {
                // Who keeps answers asks SQLite itself.
                continue;
            };
            let (before, behind) = news::write(changes.origin, &news);
            let tell = sqlx::query(TELL.run(Dialect::Postgres));
            let tell = tell.bind(before).bind(behind).fetch_all(pool);
            let told = tokio::time::timeout(TOLD_WITHIN, tell).await;
            match told.unwrap_or(Err(sqlx::Error::PoolTimedOut)) {
                Ok(rows) => {
                    let positions = rows.iter().filter_map(|row| row.try_get::<i64, _>(2).ok());
                    if let Some(position) = positions.max() {
                        changes.told(&news, position.unsigned_abs());
                    }
                    said.well();
                }
                Err(error) => {
                    let error = chain(&error);
                    if said.is_news(&error) {
                        tracing::warn!(
                            error,
                            "other replicas are not told of changes; trying again"
                        );
                    }
                    changes.give_back(news);
                    tokio::time::sleep(TELL_AGAIN).await;
                }
            }
            tokio::time::sleep(TELL_APART).await;
        }
    }
}

/// How many changes SQLite counted.
pub(super) async fn counted(conn: &mut SqliteConnection) -> Result<i64, sqlx::Error> {
    let position = sqlx::query(POSITION.run(Dialect::Sqlite));
    position.fetch_one(conn).await?.try_get(1)
}
