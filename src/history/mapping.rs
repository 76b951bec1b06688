//! The mapping query, wrapped for each part of the history.

use super::id_type::{IdType, Types};
use super::order::Order;
use crate::model::id::MAX_ID_BYTES;
use crate::store::Dialect;

/// The mapping query and what is known of the history's table.
#[derive(Debug, Clone)]
pub struct Mapping {
    /// Which SQL it speaks.
    pub(crate) dialect: Dialect,
    /// The table as it is written in SQL.
    pub(crate) table: String,
    /// The key column as it is written in SQL.
    pub(crate) key: String,
    /// Types of what is compared.
    pub(crate) types: Types,
    /// That of its keys.
    pub(crate) order: Order,
    /// The query, judged.
    pub(crate) query: String,
}

/// The key at which a window begins. Windows go down, from the greatest key to the smallest: keys grow with
/// time nearly everywhere, and where the newest use of a row comes first, none of the others changes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    /// With the greatest key of all.
    First,
    /// Behind this key: with the next smaller one.
    Behind(String),
}

impl From {
    /// The key behind which it begins.
    pub(super) fn key(&self) -> Option<&str> {
        match self {
            Self::First => None,
            Self::Behind(key) => Some(key),
        }
    }
}

/// The mapping query over the relation `runs`, as rows of ids and a time. Ids are texts, except those
/// of `types` that come as they are.
pub(super) fn wrap(
    query: &str,
    runs: &str,
    dialect: Dialect,
    types: Option<Types>,
    filter: &str,
) -> String {
    let id = |name: &str, of: fn(Types) -> IdType| match types.map(of) {
        None | Some(IdType::Other) => as_text(&format!("q.{name}"), dialect),
        Some(_) => format!("q.{name}"),
    };
    let time = match dialect {
        // With the session's time zone UTC, a timestamp without one is taken as UTC.
        Dialect::Postgres => "cast(q.last_used_at as timestamptz)",
        Dialect::Sqlite => "q.last_used_at",
    };
    let columns = [
        id("run", |types| types.run),
        id("workspace", |types| types.workspace),
        id("uid", |types| types.uid),
        id("published_run", |types| types.published_run),
        time.into(),
    ];
    // The newline ends a trailing comment of the query.
    format!(
        "with runs as not materialized ({runs}) select {} from (\n{query}\n) as q{filter}",
        columns.join(", ")
    )
}

/// An id as it travels. In PostgreSQL a statement that was prepared fails where its result is of another
/// collation: that of a column must not have a say.
fn as_text(id: &str, dialect: Dialect) -> String {
    match dialect {
        Dialect::Postgres => format!("cast({id} as text) collate \"C\""),
        Dialect::Sqlite => format!("cast({id} as text)"),
    }
}

/// A text as a literal of SQL, whose strings are standard-conforming in our sessions.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Whether a column has a valid id, as [`crate::model::Id`] sees it, in PostgreSQL: asked of its bytes in
/// UTF-8, so that neither the database's encoding nor a collation has a say.
fn valid(column: &str, of: IdType) -> String {
    if of.has_fixed_length() {
        return format!("q.{column} is not null");
    }
    let text = format!("cast(q.{column} as text)");
    let bytes = format!("convert_to({text}, 'UTF8')");
    format!(
        "octet_length({bytes}) between 1 and {MAX_ID_BYTES}
         and encode({bytes}, 'hex') !~ '^(..)*([01].|7f|c2[89].)'
         and encode({bytes}, 'hex') not in ('2e', '2e2e')"
    )
}

impl Mapping {
    fn over(&self, runs: &str, filter: &str) -> String {
        wrap(&self.query, runs, self.dialect, None, filter)
    }

    /// `$n` as a value of the given type: compared in the column's own type, so that its index
    /// serves. Cast from text, because that is how ids travel here.
    fn parameter(&self, n: usize, of: IdType) -> String {
        match self.dialect {
            Dialect::Postgres => format!("(${n}::text)::{}", of.sql()),
            // Column affinity makes a number of a text that is compared with a number column.
            Dialect::Sqlite => format!("${n}"),
        }
    }

    fn key_parameter(&self, n: usize) -> String {
        self.parameter(n, self.types.key)
    }

    /// All runs.
    pub(crate) fn all(&self) -> String {
        self.over(&self.keyed(), "")
    }

    /// The runs that have a key: no other can be named, or walked to. SQLite would take the condition for one
    /// to find runs by, and leave better indexes.
    fn keyed(&self) -> String {
        let (table, key) = (&self.table, &self.key);
        let hint = match self.dialect {
            Dialect::Postgres => "",
            Dialect::Sqlite => "+",
        };
        format!("select * from {table} where {hint}{key} is not null")
    }

    /// The runs of a window: from `$1` (unless it is the first) to `$2`.
    pub(crate) fn window(&self, from: &From) -> String {
        self.over(
            &format!(
                "select * from {} where {}",
                self.table,
                self.in_window(from)
            ),
            "",
        )
    }

    fn in_window(&self, from: &From) -> String {
        let (key, last) = (&self.key, self.key_parameter(2));
        match from {
            // $1 is bound all the same, to keep the numbers.
            From::First => format!("{key} >= {last} and $1 is null"),
            From::Behind(_) => format!("{key} < {} and {key} >= {last}", self.key_parameter(1)),
        }
    }

    /// All runs, or those of a window, for PostgreSQL's COPY: ids as they are, and the window's keys
    /// as literals, because COPY takes no parameters.
    pub(crate) fn bulk(&self, window: Option<(&From, &str)>) -> String {
        let (table, key, of) = (&self.table, &self.key, self.types.key.sql());
        let runs = match window {
            None => self.keyed(),
            Some((from, last)) => {
                let behind = match from {
                    From::First => String::new(),
                    From::Behind(from) => format!("{key} < {}::{of} and ", literal(from)),
                };
                format!(
                    "select * from {table} where {behind}{key} >= {}::{of}",
                    literal(last)
                )
            }
        };
        wrap(&self.query, &runs, self.dialect, Some(self.types), "")
    }

    /// The runs whose keys `$1` lists.
    pub(crate) fn runs(&self) -> String {
        let (table, key) = (&self.table, &self.key);
        let listed = match self.dialect {
            Dialect::Postgres => format!("{key} = any(($1::text[])::{}[])", self.types.key.sql()),
            Dialect::Sqlite => format!("{key} in (select value from json_each($1))"),
        };
        self.over(&format!("select * from {table} where {listed}"), "")
    }

    /// All runs of one workspace, `$1`; in SQLite `$2` is the same as a number, where it is one.
    pub(crate) fn workspace(&self) -> String {
        self.with("workspace", self.types.workspace, None)
    }

    /// Those of a window, whose keys are `$1` and `$2`; the other parameters come behind.
    pub(crate) fn workspace_in(&self, window: &From) -> String {
        self.with("workspace", self.types.workspace, Some(window))
    }

    /// All runs of one user, with parameters as of [`Mapping::workspace`].
    pub(crate) fn user(&self) -> String {
        self.with("uid", self.types.uid, None)
    }

    fn with(&self, column: &str, of: IdType, window: Option<&From>) -> String {
        let (runs, n) = self.among(window);
        let filter = match self.dialect {
            Dialect::Postgres => format!(
                " where {} = {}",
                of.comparable(&format!("q.{column}")),
                self.parameter(n, of)
            ),
            // The first finds by index, the second leaves out other spellings of a number.
            Dialect::Sqlite => format!(
                " where q.{column} in (${n}, ${}) and cast(q.{column} as text) = ${n}",
                n + 1
            ),
        };
        self.over(&runs, &filter)
    }

    /// All runs, or those of a window, and the number of the first parameter behind its keys.
    fn among(&self, window: Option<&From>) -> (String, usize) {
        match window {
            None => (self.keyed(), 1),
            Some(from) => {
                let (table, window) = (&self.table, self.in_window(from));
                (format!("select * from {table} where {window}"), 3)
            }
        }
    }

    /// All runs of the pairs of a workspace and a published run that `$1` and `$2` list; SQLite
    /// takes them as one JSON array of pairs, `$1`.
    pub(crate) fn pairs(&self) -> String {
        self.of_pairs(None)
    }

    /// Those of a window, whose keys are `$1` and `$2`; the other parameters come behind.
    pub(crate) fn pairs_in(&self, window: &From) -> String {
        self.of_pairs(Some(window))
    }

    /// Those of all runs but those whose keys `$1` lists; the other parameters come behind.
    pub(crate) fn pairs_but(&self) -> String {
        let (keyed, key) = (self.keyed(), &self.key);
        let others = match self.dialect {
            Dialect::Postgres => format!("{key} <> all(($1::text[])::{}[])", self.types.key.sql()),
            Dialect::Sqlite => format!("{key} not in (select value from json_each($1))"),
        };
        self.of_pairs_among(&format!("{keyed} and {others}"), 2)
    }

    fn of_pairs(&self, window: Option<&From>) -> String {
        let (runs, n) = self.among(window);
        self.of_pairs_among(&runs, n)
    }

    fn of_pairs_among(&self, runs: &str, n: usize) -> String {
        let (workspace, published_run) = (self.types.workspace, self.types.published_run);
        let filter = match self.dialect {
            Dialect::Postgres => format!(
                " where ({}, {}) in (select * from unnest((${n}::text[])::{}[], (${}::text[])::{}[]))",
                workspace.comparable("q.workspace"),
                published_run.comparable("q.published_run"),
                workspace.sql(),
                n + 1,
                published_run.sql()
            ),
            Dialect::Sqlite => format!(
                " where (q.workspace, q.published_run) in \
                 (select value ->> 0, value ->> 1 from json_each(${n}))"
            ),
        };
        self.over(runs, &filter)
    }

    /// The newest use of each published run in the lists of the workspaces `$1`, or of the users `$2` in
    /// them, of PostgreSQL: `workspace, uid, published_run, last_used_at, run`. What is no use is left out
    /// here, because it could be the greatest.
    pub(crate) fn newest(&self, of_users: bool) -> String {
        let Types {
            run,
            workspace,
            uid,
            published_run,
            ..
        } = self.types;
        // Compared by bytes, whatever the column's collation.
        let column = |name: &str, of: IdType| match of {
            IdType::Text => format!("q.{name} collate \"C\" as {name}"),
            IdType::Other => format!("cast(q.{name} as text) collate \"C\" as {name}"),
            _ => format!("q.{name}"),
        };
        let among = |name: &str, of: IdType, n: usize| {
            let column = of.comparable(&format!("q.{name}"));
            format!("{column} = any((${n}::text[])::{}[])", of.sql())
        };
        let user = match of_users {
            true => among("uid", uid, 2),
            // Bound all the same, to keep the numbers.
            false => "$2::text[] is not null".into(),
        };
        let (user_column, shown_user) = match of_users {
            true => (", u.uid", "cast(u.uid as text)"),
            false => ("", "cast(null as text)"),
        };
        // Sorted once, and joined with nothing: PostgreSQL takes so few runs for valid that it would go
        // through all of them for each workflow again.
        format!(
            "select distinct on (u.workspace, u.published_run{user_column})
                    cast(u.workspace as text), {shown_user}, cast(u.published_run as text),
                    u.last_used_at, cast(u.run as text)
             from (
                 with runs as not materialized ({runs})
                 select {}, {}, {}, {}, cast(q.last_used_at as timestamptz) as last_used_at
                 from (\n{query}\n) as q
                 where {} and {user} and {} and {}
                   and cast(q.last_used_at as timestamptz) >= timestamptz '1970-01-01 00:00:00Z'
                   and cast(q.last_used_at as timestamptz) < timestamptz '10000-01-01 00:00:00Z'
             ) as u
             order by u.workspace, u.published_run{user_column},
                      u.last_used_at desc, cast(u.run as text) collate \"C\" desc",
            column("run", run),
            column("workspace", workspace),
            column("uid", uid),
            column("published_run", published_run),
            among("workspace", workspace, 1),
            valid("published_run", published_run),
            valid("run", run),
            runs = self.keyed(),
            query = self.query,
        )
    }

    // In the following, `order by` names the key with its table: alone, it would be the output
    // column of that name, which is text, and `9` would come behind `10`.

    fn key_as_text(&self) -> String {
        as_text(&format!("h.{}", self.key), self.dialect)
    }

    /// The last of the next `$3` keys (from `$1`, to `$2`); no row where there are fewer.
    pub(crate) fn boundary(&self, from: &From) -> String {
        let (table, key) = (&self.table, &self.key);
        format!(
            "select {} from {table} as h where {} order by h.{key} desc \
             limit 1 offset $3",
            self.key_as_text(),
            self.in_window(from)
        )
    }

    /// How many runs a window has.
    pub(crate) fn count(&self, from: &From) -> String {
        format!(
            "select count(*) from {} where {}",
            self.table,
            self.in_window(from)
        )
    }

    /// The last key of a walk: the smallest. By order, not by min(), which uuid lacks before PostgreSQL 18.
    pub(crate) fn last_key(&self) -> String {
        let (table, key) = (&self.table, &self.key);
        format!(
            "select {} from {table} as h where h.{key} is not null order by h.{key} limit 1",
            self.key_as_text()
        )
    }

    /// The type of a key at one of the ends, where that is no integer or text that can be walked to, of SQLite:
    /// there a column holds values of any type, all numbers come before all texts, and blobs behind them.
    pub(crate) fn odd_keys(&self) -> String {
        let (table, key) = (&self.table, &self.key);
        let end = |order: &str| {
            format!(
                "select * from (select h.{key} as k from {table} as h where h.{key} is not null \
                 order by h.{key} {order} limit 1)"
            )
        };
        format!(
            "select typeof(o.k) from ({} union all {}) as o where o.k <> cast(o.k as text)",
            end("desc"),
            end("asc")
        )
    }

    /// Some keys from both ends, to try the mapping with.
    pub(crate) fn sample_keys(&self, each: u32) -> String {
        let (table, key) = (&self.table, &self.key);
        let text = self.key_as_text();
        let end = |order: &str| {
            format!(
                "select * from (select {text} as k from {table} as h \
                 where h.{key} is not null order by h.{key} {order} limit {each}) as {order}_end"
            )
        };
        format!("{} union {}", end("asc"), end("desc"))
    }
}
