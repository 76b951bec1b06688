//! What was written, named by a position in the database's log; and telling other processes of it.

use std::time::Duration;

use sqlx::postgres::{PgListener, PgRow};
use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Row};

use super::statement::Statement;
use super::{Conn, Dialect, Store, StoreError, with_retries};
use crate::cache::{Changed, Reason, news};
use crate::telemetry::{Repeated, chain};

pub(super) const STATEMENTS: [&Statement; 5] =
    [&POSITION, &REPLAYED, &TELL, &TELL_ITSELF, &COUNT_ONE];

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

static POSITION: Statement = Statement::new("position", || {
    "select {database}, {timeline}, {position}".into()
});

// The timeline is asked behind the position, so that it cannot be an earlier one. A standby does not tell of
// which timeline it replays: it tells of which one its last restartpoint was, and, to those who may see it, of
// which one it receives, which is never one that what it replayed does not belong to.
static REPLAYED: Statement = Statement::new("replayed", || {
    "select {database}, x.timeline, x.at,
            cast(extract(epoch from pg_postmaster_start_time()) * 1000000 as bigint),
            concat(inet_server_addr(), ' ', inet_server_port())
     from (select cast(case when pg_is_in_recovery() then pg_last_wal_replay_lsn() end - '0/0' as bigint) as at,
                  greatest((select timeline_id from pg_control_checkpoint()),
                           (select max(received_tli) from pg_stat_wal_receiver)) as timeline) as x"
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

static TELL_ITSELF: Statement = Statement::new("tell_itself", || {
    "select {database}, {timeline}, {position}, pg_notify($1, '')".into()
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
/// Returns the position of then, asked by the same connection: whether anything is heard must not wait for
/// another one to be free.
pub(crate) async fn ping_listener(
    listener: &mut PgListener,
    channel: &str,
) -> Result<Position, sqlx::Error> {
    let place = POSITION.run(Dialect::Postgres);
    let ping = sqlx::raw_sql(AssertSqlSafe(format!("{place}; notify {channel}")));
    let rows = ping.fetch_all(listener).await?;
    Position::of(rows.first().ok_or(sqlx::Error::RowNotFound)?)
}

/// A position in the log of one database. Of a streaming replica it is what it has replayed: all that was
/// committed before it is seen by the next read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Which database: of PostgreSQL's system identifier and its own number there, or SQLite's own.
    pub database: u64,
    /// Which history of it: another one after a failover or a restore.
    pub timeline: u32,
    /// Everything that was committed before it was asked for lies before it.
    pub at: u64,
}

impl Position {
    /// Database and timeline. Positions of another say nothing.
    pub(crate) fn place(&self) -> (u64, u32) {
        (self.database, self.timeline)
    }

    /// Whether the other one is of the same place.
    pub(crate) fn is_of(&self, other: &Self) -> bool {
        self.place() == other.place()
    }

    fn of(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            database: row.try_get::<i64, _>(0)?.cast_unsigned(),
            timeline: row.try_get::<i32, _>(1)?.cast_unsigned(),
            at: row.try_get::<i64, _>(2)?.unsigned_abs(),
        })
    }
}

impl Store {
    /// The position of now. Whoever is acknowledged a write asks for it after the commit.
    ///
    /// # Errors
    /// [`StoreError`]; also of a standby, which writes nothing.
    pub async fn position(&self) -> Result<Position, StoreError> {
        let position = match self {
            Self::Postgres(pool, _) => {
                let position = sqlx::query(POSITION.run(Dialect::Postgres));
                Position::of(&position.fetch_one(pool).await?)?
            }
            Self::Sqlite(pool, _) => {
                let position = sqlx::query_as(POSITION.run(Dialect::Sqlite));
                let (database, timeline, at): (i64, u32, i64) = position.fetch_one(pool).await?;
                Position {
                    database: database.cast_unsigned(),
                    timeline,
                    at: at.unsigned_abs(),
                }
            }
        };
        self.changes().primary.is_at(&position);
        Ok(position)
    }

    /// Tells oneself something, on a channel of [`own_channel`], the way that others are told. Returns the
    /// position of then.
    pub(crate) async fn tell_itself(&self, channel: &str) -> Result<Position, StoreError> {
        let Self::Postgres(pool, changes) = self else {
            return self.position().await;
        };
        let tell = sqlx::query(TELL_ITSELF.run(Dialect::Postgres)).bind(channel);
        let position = Position::of(&tell.fetch_one(pool).await?)?;
        changes.primary.is_at(&position);
        Ok(position)
    }

    /// How far a streaming replica is; `None` of what is none.
    pub(crate) async fn reached(&self) -> Result<Option<Reached>, StoreError> {
        let mut session = self.one_session().await?;
        let reached = reached_by(&mut session.conn()).await?;
        session.done().await?;
        Ok(reached)
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

/// How far a streaming replica is.
#[derive(Debug, Clone)]
pub(crate) struct Reached {
    /// What it has replayed.
    pub(crate) position: Position,
    /// When it was started, in microseconds: which one it is, of several behind one address.
    pub(crate) started: i64,
    /// Where it is, as it sees that itself.
    pub(crate) address: String,
}

/// How far the streaming replica behind a connection is; `None` of what is none.
pub(crate) async fn reached_by(conn: &mut Conn<'_>) -> Result<Option<Reached>, StoreError> {
    let Conn::Postgres(conn) = conn else {
        return Ok(None);
    };
    let replayed = sqlx::query(REPLAYED.run(Dialect::Postgres));
    let row = replayed.fetch_one(&mut **conn).await?;
    match row.try_get::<Option<i64>, _>(2)? {
        Some(_) => Ok(Some(Reached {
            position: Position::of(&row)?,
            started: row.try_get(3)?,
            address: row.try_get(4)?,
        })),
        None => Ok(None),
    }
}

/// How many changes SQLite counted.
pub(super) async fn counted(conn: &mut SqliteConnection) -> Result<i64, sqlx::Error> {
    let position = sqlx::query(POSITION.run(Dialect::Sqlite));
    position.fetch_one(conn).await?.try_get(2)
}
