//! The keys of the configuration: the one list behind the file, the environment and the flags.

/// A key of the configuration.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its name in the file, with dots for tables.
    pub name: &'static str,
    /// What it is unless set; `None` for nothing.
    pub default: Option<&'static str>,
    /// What it does, in one line.
    pub about: &'static str,
    /// Whether its value is never shown.
    pub secret: bool,
}

impl Key {
    /// The environment variable that sets it.
    pub fn variable(&self) -> String {
        format!("RECENTS_{}", self.name.replace('.', "_").to_uppercase())
    }
}

const fn key(name: &'static str, default: Option<&'static str>, about: &'static str) -> Key {
    Key {
        name,
        default,
        about,
        secret: false,
    }
}

const fn secret(name: &'static str, default: Option<&'static str>, about: &'static str) -> Key {
    Key {
        name,
        default,
        about,
        secret: true,
    }
}

/// Every key. A secret one may also be given as a file: `<name>_file`.
pub const KEYS: [Key; 29] = [
    secret(
        "database_url",
        Some("sqlite://recents.db"),
        "where the table lives",
    ),
    key(
        "listen",
        Some("127.0.0.1:8080"),
        "address of the public listener",
    ),
    key(
        "admin_listen",
        Some("127.0.0.1:8081"),
        "address of the admin listener",
    ),
    key(
        "auth",
        Some("none"),
        "who may call: `none` is everyone who can connect",
    ),
    key(
        "allow_unauthenticated",
        Some("false"),
        "`auth = none` on other than loopback addresses",
    ),
    secret(
        "history.url",
        None,
        "where the runs live; the default is database_url",
    ),
    key(
        "history.table",
        None,
        "the table of runs, such as app.saved_run",
    ),
    key("history.key", None, "its key column"),
    key(
        "history.query",
        None,
        "the mapping query: reads from `runs`, returns uses",
    ),
    key(
        "cache.capacity",
        Some("64MiB"),
        "bytes of answers that are kept at the most; 0 keeps none",
    ),
    key(
        "cache.ttl",
        Some("60s"),
        "how long an answer is given without asking again, whatever was heard",
    ),
    key(
        "cache.stale_if_error",
        Some("5m"),
        "how old an answer may be while the database is out of reach, or says nothing for three seconds",
    ),
    secret(
        "read_database_url",
        None,
        "a streaming replica of PostgreSQL to read lists from",
    ),
    secret(
        "listen_url",
        None,
        "a direct connection for LISTEN, where database_url is a transaction pooler",
    ),
    key(
        "read_path",
        Some("auto"),
        "where lists are read from, until it is changed by `recents settings`: auto (history until \
         the first backfill succeeded, then materialized), materialized, shadow or history",
    ),
    key(
        "force_read_path",
        None,
        "the same, whatever `recents settings` says: materialized, shadow or history",
    ),
    key(
        "details.query",
        None,
        "the details of the published runs that $1 lists, on the history's database, or on \
         database_url where there is no history",
    ),
    key("details.ttl", Some("60s"), "how old details may be"),
    key(
        "details.mode",
        Some("batched"),
        "how details are asked for, until it is changed by `recents settings`: batched, per_item or off",
    ),
    key(
        "transaction_pooler",
        Some("false"),
        "whether database_url goes through a transaction pooler, such as PgBouncer in that mode",
    ),
    key(
        "resync.pause_while",
        None,
        "a query that says true while the history's database is unwell: re-syncs and the audit wait",
    ),
    key(
        "audit",
        Some("true"),
        "whether serve holds the table against the history all the time, within 1 % of the databases' time",
    ),
    key(
        "pool_size",
        Some("8"),
        "connections to the database at the most",
    ),
    key(
        "statement_timeout",
        Some("5s"),
        "the longest that one statement may take in PostgreSQL; not in SQLite, nor behind a \
         transaction_pooler, where that of the role or the database holds",
    ),
    key(
        "shutdown_grace",
        Some("30s"),
        "how long a stop waits for requests and writes",
    ),
    key(
        "max_clock_skew",
        Some("5m"),
        "how far ahead of the server's clock a use may be",
    ),
    key(
        "migrate_on_start",
        Some("true"),
        "whether serve, backfill and capture install bring the schema up to date first",
    ),
    key("log.format", Some("text"), "text or json"),
    key(
        "log.level",
        Some("info"),
        "error, warn, info, debug or trace",
    ),
];
