//! Statements: each text once, with tokens for what differs between the databases.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

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
/// Tokens: `{recents}` qualifies a table's name, `{now}` is the database's clock and
/// `{second}` a second of it, and
/// `{keys}`, `{uses}`, `{swaps}`, `{runs}`, `{ids}` are relations of rows bound as parameters, so that
/// a batch of any size is the same prepared statement; `{key}` is one row of `{keys}`, `$1` to `$3`. `{lock}` locks the rows of `t` that are read,
/// `{lock_free}` those that nobody else has locked; SQLite has one writer at a time anyway.
#[derive(Debug)]
pub struct Statement {
    /// Its name, as in `recents_db_statements_total{statement}`.
    pub name: &'static str,
    template: fn() -> String,
    texts: [OnceLock<String>; 2],
    executed: AtomicU64,
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
        }
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
const SEEN: [(&str, &str); 2] = [("seen_last_used_at", "timestamptz"), ("seen_run", "text")];

impl Dialect {
    fn expand(self, template: &str) -> String {
        let (qualifier, now, second) = match self {
            Self::Postgres => ("recents.", "clock_timestamp()", "interval '1 second'"),
            Self::Sqlite => (
                "",
                "cast(unixepoch('subsec') * 1000000 as integer)",
                "1000000",
            ),
        };
        let (long_ago, greatest) = match self {
            Self::Postgres => ("timestamptz '-infinity'", "greatest"),
            Self::Sqlite => ("-1", "max"),
        };
        let (lock, lock_free) = match self {
            Self::Postgres => ("for update of t", "for update of t skip locked"),
            Self::Sqlite => ("", ""),
        };
        template
            .replace("{recents}", qualifier)
            .replace("{now}", now)
            .replace("{second}", second)
            .replace("{long_ago}", long_ago)
            .replace("{greatest}", greatest)
            .replace("{lock}", lock)
            .replace("{lock_free}", lock_free)
            .replace("{runs}", &self.relation(&[("run", "text")]))
            .replace("{ids}", &self.relation(&[("id", "bigint")]))
            .replace("{keys}", &self.relation(&KEY))
            .replace("{key}", &self.one_key())
            .replace(
                "{uses}",
                &self.relation(&[KEY.as_slice(), &NEWEST].concat()),
            )
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
