//! Opening the store: URL to pool.

use std::future::ready;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection, PgPool, SqlitePool, raw_sql};
use tokio::time::timeout;

use super::{PgStore, Store};

/// How long a request waits for a free connection before it is told that the database is out of
/// reach; a client's own patience is some seconds.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a writer waits for SQLite's one write lock, and before that for its turn in this process.
pub(super) const SQLITE_BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection that rested longer is asked whether it still lives before it is used. Asking each
/// time would double the statements of a busy server.
const ASK_AFTER_IDLE: Duration = Duration::from_secs(1);
/// And one that does not say so within this is replaced: several may have died in silence at once, and whoever
/// asked for one has [`ACQUIRE_TIMEOUT`] for all of them.
const ALIVE_WITHIN: Duration = Duration::from_millis(500);
/// How long a connection that is given back may take to say that it lives. What it was asked before may still
/// be at work, and is broken off with it.
pub(super) const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);
/// A transaction of ours that rests longer than this is a fault; it would hold locks and vacuum.
const IDLE_IN_TRANSACTION_TIMEOUT: Duration = Duration::from_secs(30);

/// How PostgreSQL plans the statements of the store: once, not for the values of each time, which
/// would be a third of what a flush costs the database. Every statement is a range or look-ups of an
/// index, and must be planned so while the table is still empty: that plan is kept for a while.
pub const PG_PLANNING: [(&str, &str); 4] = [
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    // A part of a table is read in the order of an index, not sorted by several processes.
    ("max_parallel_workers_per_gather", "0"),
    // What reads everything after all would seem dear enough to compile.
    ("jit", "off"),
];

/// The same for a transaction of a session that is not the store's, as statements behind others.
pub(crate) fn planned_once() -> String {
    let set = PG_PLANNING.map(|(name, value)| format!("; set local {name} = {value}"));
    set.concat()
}

/// How to connect.
#[derive(Debug, Clone, Copy)]
pub struct PoolSettings {
    /// Connections at the most.
    pub size: u32,
    /// The longest that one statement may take.
    pub statement_timeout: Duration,
    /// Whether it goes through a transaction pooler.
    pub behind_pooler: bool,
}

/// How every transaction of ours begins. Whatever the role or the database have set: each statement sees what
/// is committed when it begins, which the protocol's order of steps relies on, and none fails because of what
/// others read and write meanwhile.
pub(crate) const PG_BEGIN: &str = "begin isolation level read committed";

/// What is acknowledged is on the disk: where the role or the database have commits not wait for it, ours do. For
/// a session, in which it is set in any case: what is not would follow the server's configuration when that is
/// loaded anew; and for one transaction, behind a pooler.
const PG_DURABLE: &str = "select set_config('synchronous_commit', \
                          case s when 'off' then 'local' else s end, false) \
                          from current_setting('synchronous_commit') as s";
/// [`PG_BEGIN`] behind a pooler.
pub(super) const PG_BEGIN_POOLED: &str = "begin isolation level read committed; \
                                          select set_config('synchronous_commit', 'local', true) \
                                          where current_setting('synchronous_commit') = 'off'";

/// PostgreSQL's connection options of every pool here: named, with our time-outs, and with the isolation of
/// [`PG_BEGIN`] for statements that are transactions of their own.
///
/// # Errors
/// Where `url` is not a PostgreSQL URL.
pub fn pg_options(url: &str, statement_timeout: Duration) -> Result<PgConnectOptions, sqlx::Error> {
    let millis = |timeout: Duration| timeout.as_millis().to_string();
    Ok(PgConnectOptions::from_str(url)?
        .application_name("recents")
        .options([
            ("statement_timeout", millis(statement_timeout)),
            (
                "idle_in_transaction_session_timeout",
                millis(IDLE_IN_TRANSACTION_TIMEOUT),
            ),
            ("default_transaction_isolation", "read committed".into()),
            // Names of the catalogue are compared as texts.
            ("quote_all_identifiers", "off".into()),
        ]))
}

impl Store {
    /// Opens `postgres://…` or `sqlite://…` (created if missing). Connects at the first use.
    ///
    /// # Errors
    /// Where `url` is malformed or of another kind.
    pub fn open(url: &str, settings: PoolSettings) -> Result<Self, sqlx::Error> {
        if url.starts_with("postgres:") || url.starts_with("postgresql:") {
            let pool = PgStore {
                pool: postgres_pool(url, settings)?,
                behind_pooler: settings.behind_pooler,
            };
            return Ok(Self::Postgres(pool, Arc::default()));
        }
        if url.starts_with("sqlite:") {
            return Ok(Self::Sqlite(sqlite_pool(url, settings)?, Arc::default()));
        }
        Err(sqlx::Error::Configuration(
            "it starts with neither `postgres://` nor `sqlite://`".into(),
        ))
    }
}

/// Whether a database file that is not there yet would be made for this URL.
pub fn is_missing_file(url: &str) -> bool {
    let is_file = url.starts_with("sqlite:") && !is_in_memory(url);
    let options = SqliteConnectOptions::from_str(url);
    is_file && options.is_ok_and(|options| !options.get_filename().exists())
}

/// The directory in which the database file of this URL would be made, where there is no such directory.
pub(crate) fn missing_directory(url: &str) -> Option<PathBuf> {
    let options = SqliteConnectOptions::from_str(url).ok()?;
    let directory = options.get_filename().parent()?;
    // A name alone is a file of the working directory.
    let is_here = directory.as_os_str().is_empty();
    (!is_here && !directory.is_dir()).then(|| directory.to_owned())
}

fn is_in_memory(url: &str) -> bool {
    url.contains(":memory:") || url.contains("mode=memory")
}

fn postgres_pool(url: &str, settings: PoolSettings) -> Result<PgPool, sqlx::Error> {
    let options = match settings.behind_pooler {
        // A pooler refuses settings of sessions that it shares; requests have deadlines of their own.
        true => PgConnectOptions::from_str(url)?
            .application_name("recents")
            .extra_float_digits(None),
        false => pg_options(url, settings.statement_timeout)?.options(PG_PLANNING),
    };
    let pool = asked_when_taken(settings.size);
    let pool = match settings.behind_pooler {
        true => pool,
        false => durable(pool),
    };
    // Each is given back by its `Session`, which knows what became of it.
    Ok(pool.connect_lazy_with(options))
}

/// A pool of connections, each of which is asked whether it lives when it is given back: one that died in
/// silence would keep its place for a quarter of an hour. Through it, whatever writes begins a transaction
/// and commits it.
pub(crate) fn pg_pool(size: u32) -> PgPoolOptions {
    durable(asked_when_taken(size)).after_release(|conn, _meta| {
        Box::pin(async move {
            let lives = timeout(RELEASE_TIMEOUT, conn.ping()).await;
            lives.unwrap_or(Err(sqlx::Error::PoolTimedOut))?;
            Ok(true)
        })
    })
}

fn durable(pool: PgPoolOptions) -> PgPoolOptions {
    pool.after_connect(|conn, _meta| {
        Box::pin(async move { raw_sql(PG_DURABLE).execute(conn).await.map(drop) })
    })
}

fn asked_when_taken(size: u32) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(size)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .before_acquire(|conn, meta| {
            Box::pin(async move {
                let lives =
                    async { matches!(timeout(ALIVE_WITHIN, conn.ping()).await, Ok(Ok(()))) };
                Ok(meta.idle_for < ASK_AFTER_IDLE || lives.await)
            })
        })
}

fn sqlite_pool(url: &str, settings: PoolSettings) -> Result<SqlitePool, sqlx::Error> {
    let options = SqliteConnectOptions::from_str(url)?
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // An acknowledged use survives a power cut.
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(SQLITE_BUSY_TIMEOUT);
    let pool = SqlitePoolOptions::new()
        .max_connections(settings.size)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false);
    // A database in memory lives and dies with its one connection.
    let pool = if is_in_memory(url) {
        pool.max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
    } else {
        // Where SQLite itself rolled back, because the disk is full or fails, the driver's rollback failed, and
        // it would begin no transaction on this connection any more.
        pool.before_acquire(|conn, _meta| Box::pin(ready(Ok(!conn.is_in_transaction()))))
    };
    Ok(pool.connect_lazy_with(options))
}
