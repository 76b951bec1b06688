//! Statements: each text once, with tokens for what differs between the databases.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::model::Time;

/// Which SQL is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// PostgreSQL.
    Postgres,
    /// SQLite.
    Sqlite,
}

/// A named SQL statement, written once for both databases, and how often it was sent.
///
/// Tokens: `{recents}` qualifies a table's name, `{now}` is the database's clock, `{second}` a second of
/// it and `{instant}` the shortest time that there is. `{first_time}` and `{last_time}` are the ends of
/// our times, `{long_ago}` is before everything that the table can hold, `{greatest}` and `{least}`
/// choose. `{keys}`, `{uses}`, `{swaps}`, `{lines}`, `{runs}` are relations of rows bound as parameters, so that
/// a batch of any size is the same prepared statement; `{key}` is one row of `{keys}`, `$1` to `$3`, and
/// `{is_one_of_runs}` and `{is_one_of_ids}` compare a column with values so bound. `{database}`,
/// `{timeline}` and `{position}` are the parts of a position. `{lock}` locks the rows of `t` that are
/// read, `{lock_free}` those that nobody else has locked; SQLite has one writer at a time anyway. `{by_run}`
/// holds SQLite to the index of runs, which it thinks needless for a small table.
#[derive(Debug)]
pub struct Statement {
    /// Its name, as in `recents_db_statements_total{statement}`.
    pub name: &'static str,
    template: fn() -> String,
    texts: [OnceLock<String>; 2],
    executed: AtomicU64,
    only: Option<Dialect>,
}

/// A time of the table as it is read, for comparing it with one that was.
pub(super) fn clamped(time: &str) -> String {
    format!("{{least}}({{greatest}}({time}, {{first_time}}), {{last_time}})")
}

/// Whether the database answers at all.
pub static PING: Statement = Statement::new("ping", || "select 1".into());

impl Statement {
    pub(super) const fn new(name: &'static str, template: fn() -> String) -> Self {
        Self {
            name,
            template,
            texts: [const { OnceLock::new() }; 2],
            executed: AtomicU64::new(0),
            only: None,
        }
    }

    /// One that only one of the databases understands.
    pub(super) const fn only(mut self, dialect: Dialect) -> Self {
        self.only = Some(dialect);
        self
    }

    /// Whether it is ever sent to such a database.
    pub fn is_for(&self, dialect: Dialect) -> bool {
        self.only.is_none_or(|only| only == dialect)
    }

    /// The text for one database.
    pub fn text(&'static self, dialect: Dialect) -> &'static str {
        self.texts[dialect as usize].get_or_init(|| dialect.expand(&(self.template)()))
    }

    /// The text, counted as sent once.
    pub(super) fn run(&'static self, dialect: Dialect) -> &'static str {
        self.executed.fetch_add(1, Ordering::Relaxed);
        self.text(dialect)
    }

    /// How often this process sent it.
    pub fn executed(&self) -> u64 {
        self.executed.load(Ordering::Relaxed)
    }
}

const KEY: [(&str, &str); 3] = [
    ("workspace", "text"),
    ("uid", "text"),
    ("published_run", "text"),
];
const NEWEST: [(&str, &str); 2] = [("last_used_at", "timestamptz"), ("run", "text")];
const LINE: [(&str, &str); 2] = [("line", "text"), ("job", "text")];
const SEEN: [(&str, &str); 2] = [("seen_last_used_at", "timestamptz"), ("seen_run", "text")];

impl Dialect {
    fn expand(self, template: &str) -> String {
        let (qualifier, now, second, instant) = match self {
            Self::Postgres => (
                "recents.",
                "clock_timestamp()",
                "interval '1 second'",
                "interval '1 microsecond'",
            ),
            Self::Sqlite => (
                "",
                "cast(unixepoch('subsec') * 1000000 as integer)",
                "1000000",
                "1",
            ),
        };
        // Committed is what lies before a position: of the disk's where commits wait for it, so that a
        // standby that is there has it.
        let (database, timeline, position) = match self {
            Self::Postgres => (
                // A server's databases share its log: one of them is told by its number, too.
                "(select s.system_identifier # (d.oid::bigint << 32) from pg_control_system() as s, \
                         pg_database as d where d.datname = current_database())",
                "cast(cast('x' || left(pg_walfile_name(pg_current_wal_flush_lsn()), 8) as bit(32)) as integer)",
                "cast(case current_setting('synchronous_commit') when 'off' \
                 then pg_current_wal_insert_lsn() else pg_current_wal_flush_lsn() end - '0/0' as bigint)",
            ),
            Self::Sqlite => (
                "(select database from change)",
                "0",
                "(select position from change)",
            ),
        };
        let (long_ago, greatest, least) = match self {
            Self::Postgres => ("timestamptz '-infinity'", "greatest", "least"),
            Self::Sqlite => ("-9223372036854775808", "max", "min"),
        };
        let time = |time: Time| match self {
            Self::Postgres => format!("timestamptz '{time}'"),
            Self::Sqlite => time.micros().to_string(),
        };
        let (lock, lock_free, by_run) = match self {
            Self::Postgres => ("for update of t", "for update of t skip locked", ""),
            Self::Sqlite => ("", "", "indexed by recent_workflow_run"),
        };
        // Not a join with a relation, which PostgreSQL, where it believes the table to be empty, plans as
        // a look at each value for each row.
        let is_one_of = |kind| match self {
            Self::Postgres => format!("= any($1::{kind}[])"),
            Self::Sqlite => "in (select x.value ->> 0 from json_each($1) as x)".into(),
        };
        template
            .replace("{recents}", qualifier)
            .replace("{now}", now)
            .replace("{second}", second)
            .replace("{database}", database)
            .replace("{timeline}", timeline)
            .replace("{position}", position)
            .replace("{instant}", instant)
            .replace("{long_ago}", long_ago)
            .replace("{first_time}", &time(Time::MIN))
            .replace("{last_time}", &time(Time::MAX))
            .replace("{greatest}", greatest)
            .replace("{least}", least)
            .replace("{lock}", lock)
            .replace("{lock_free}", lock_free)
            .replace("{by_run}", by_run)
            .replace("{runs}", &self.relation(&[("run", "text")]))
            .replace("{is_one_of_runs}", &is_one_of("text"))
            .replace("{is_one_of_ids}", &is_one_of("bigint"))
            .replace("{keys}", &self.relation(&KEY))
            .replace("{key}", &self.one_key())
            .replace(
                "{uses}",
                &self.relation(&[KEY.as_slice(), &NEWEST].concat()),
            )
            .replace("{lines}", &self.relation(&[KEY.as_slice(), &LINE].concat()))
            .replace(
                "{swaps}",
                &self.relation(&[KEY.as_slice(), &NEWEST, &SEEN].concat()),
            )
    }

    fn one_key(self) -> String {
        let column = |n: usize, name: &str| match self {
            Self::Postgres => format!("${n}::text collate \"C\" as {name}"),
            Self::Sqlite => format!("${n} as {name}"),
        };
        let columns = (1..).zip(KEY).map(|(n, (name, _))| column(n, name));
        format!("(select {})", columns.collect::<Vec<_>>().join(", "))
    }

    /// A relation of rows passed as parameters: an array a column in PostgreSQL, one JSON array of
    /// arrays in SQLite. `super::rows` binds them.
    fn relation(self, columns: &[(&str, &str)]) -> String {
        let list = |of: &dyn Fn(usize, &str, &str) -> String| {
            let items = columns
                .iter()
                .enumerate()
                .map(|(i, (name, kind))| of(i, name, kind));
            items.collect::<Vec<_>>().join(", ")
        };
        match self {
            Self::Postgres => {
                let collation = |kind: &str| if kind == "text" { " collate \"C\"" } else { "" };
                format!(
                    "(select {} from unnest({}) as x({}))",
                    list(&|_, name, kind| format!("x.{name}{} as {name}", collation(kind))),
                    list(&|i, _, kind| format!("${}::{kind}[]", i + 1)),
                    list(&|_, name, _| name.into()),
                )
            }
            Self::Sqlite => {
                format!(
                    "(select {} from json_each($1) as x)",
                    list(&|i, name, _| format!("x.value ->> {i} as {name}")),
                )
            }
        }
    }
}
