//! Why a mapping query is refused, in words for the person who wrote it.

use super::COLUMNS;

/// Why a mapping query is refused. Each message says what is wrong, then what to write instead.
#[derive(Debug, thiserror::Error, PartialEq)]
#[non_exhaustive]
pub enum Refusal {
    /// Nothing but whitespace, comments and semicolons.
    #[error("the mapping query is empty. Write one SELECT from `runs` that returns {columns}.", columns = COLUMNS.join(", "))]
    Empty,
    /// Longer than a query that a person wrote; walking a deeply nested one would exhaust the stack.
    #[error(
        "the text has {0} words and signs, more than {max} in a mapping query or {of_view} in a view. Move what is long in it into a view, and join that.",
        max = super::MAX_TOKENS,
        of_view = super::view::MAX_TOKENS
    )]
    TooLong(usize),
    /// No thread to judge the query in, or a fault of the parser.
    #[error("the mapping query could not be judged: {0}. Try again, then with a simpler query.")]
    NotJudged(String),
    /// The history's table name cannot be read as a name, so references to it would go unseen.
    #[error(
        "the history's table name `{0}` cannot be parsed. Write it as `schema.table`, double quotes around a part that needs them."
    )]
    TableName(String),
    /// The parser's own message, with line and column where it knows them.
    #[error(
        "the mapping query cannot be parsed: {0}. Write one plain SELECT, with joins, subqueries and CTEs; where the database itself accepts it as it is, write it another way."
    )]
    Parse(String),
    /// Several statements.
    #[error(
        "the mapping query holds {0} statements, separated by `;`. Write one SELECT, and put what comes before it into a CTE."
    )]
    SeveralStatements(usize),
    /// A statement, or a body of the query, that is no SELECT.
    #[error(
        "`{0}` is not a SELECT. Write one plain SELECT from `runs`; `with … select` is fine too."
    )]
    NotASelect(String),
    /// Something that writes: `INSERT` in a CTE, `SELECT INTO`.
    #[error(
        "`{0}` writes, and the history is only read. Write a plain SELECT and leave the writing to the application."
    )]
    Writes(&'static str),
    /// `FOR UPDATE` and its kin.
    #[error("`{0}` locks the application's rows. Leave it out: recents only reads them.")]
    Locks(String),
    /// A bind parameter.
    #[error(
        "the placeholder `{0}` has no value here. Leave it out: recents itself narrows `runs` to the runs it needs."
    )]
    Placeholder(String),
    /// Syntax that the parser knows from other databases, or that has no meaning for one run.
    #[error(
        "`{0}` is not supported in a mapping query. Write it with plain joins and WHERE conditions."
    )]
    NotPlain(String),

    /// An output column is missing.
    #[error("the output column `{0}` is missing. {hint}.", hint = how_to_write(.0))]
    MissingColumn(&'static str),
    /// An output column of another name.
    #[error("the output column `{0}` is none of {columns}. Leave it out or rename it with `as`.", columns = COLUMNS.join(", "))]
    ExtraColumn(String),
    /// Two output columns of one name.
    #[error("the output column `{0}` appears twice. Leave one of them out.")]
    DuplicateColumn(&'static str),
    /// An output column without a name that every database would agree on.
    #[error("the output column `{0}` has no name. Name it with `as`: one of {columns}.", columns = COLUMNS.join(", "))]
    UnnamedColumn(String),
    /// `*` or `t.*` among the output columns.
    #[error("`{0}` does not name the output columns. List them: {columns}.", columns = COLUMNS.join(", "))]
    Wildcard(String),

    /// `runs` is not read, or only by a CTE that nothing uses.
    #[error(
        "the query must read from `runs`. Write `from runs r` where the history table would stand, then join what else you need."
    )]
    NoRuns,
    /// `runs` is read more than once, perhaps through a CTE that is used twice.
    #[error(
        "the query reads `runs` more than once, so a row could depend on several runs. Read it once, and take all columns of the run from there."
    )]
    RunsTwice,
    /// `runs` is read by a subquery inside an expression.
    #[error(
        "the subquery in `{0}` reads `runs`, so the row is not made of the run itself. Put `runs` into FROM, and the other tables into the subquery."
    )]
    RunsInExpression(String),
    /// `runs` stands where an outer join makes rows without a run.
    #[error(
        "`{0}` can make rows without a run. Use an inner join, or start with `from runs r` and write `left join` for the other tables."
    )]
    RunsNullable(&'static str),
    /// A CTE named `runs`.
    #[error("a CTE named `runs` hides the runs that recents passes in. Give it another name.")]
    RunsShadowed,
    /// The history table by its own name.
    #[error(
        "the query reads the history table `{0}` by its name, which is all of it at every look. Write `runs` in its place, once."
    )]
    HistoryTable(String),

    /// A view, as text in backquotes and perhaps with the one before it, that reads the history.
    #[error(
        "the view {0} reads the history table, so a row could depend on other runs than its own. Join the other tables behind it, and take the columns of the run from `runs`."
    )]
    ViewOfHistory(String),
    /// A view, named in the same way, whose rows are other ones each time.
    #[error("in the view {0}: {1}")]
    InView(String, Box<Refusal>),

    /// `SELECT DISTINCT ON`, the usual query for a recent list.
    #[error(
        "DISTINCT ON picks one row among many runs. Write the same select without DISTINCT ON and ORDER BY, one row for each run: recents takes the newest itself."
    )]
    DistinctOn,
    /// `SELECT DISTINCT`.
    #[error(
        "DISTINCT merges the rows of several runs. Leave it out: recents keeps one row for each workflow itself."
    )]
    Distinct,
    /// `GROUP BY`, `HAVING`.
    #[error(
        "`{0}` merges the rows of several runs. Write one row for each run, with `r.updated_at` in place of `max(r.updated_at)`: recents takes the newest itself."
    )]
    Grouping(&'static str),
    /// An aggregate function, in a subquery too.
    #[error(
        "the aggregate `{0}` depends on many rows. Write one row for each run with the run's own columns: recents takes the newest itself."
    )]
    Aggregate(String),
    /// A window function.
    #[error(
        "the window function `{0}` depends on the rows around a run. Leave it out, one row for each run: recents ranks them itself."
    )]
    Window(String),
    /// `LIMIT`, `OFFSET`, `FETCH`, `TOP`.
    #[error(
        "`{0}` makes a row depend on which others there are. Leave it out: recents asks for the runs that it needs, and pages itself."
    )]
    Limit(&'static str),
    /// `ORDER BY`.
    #[error("ORDER BY is pointless in a mapping query. Leave it out: recents sorts itself.")]
    OrderBy,
    /// `UNION`, `INTERSECT`, `EXCEPT`.
    #[error(
        "`{0}` could return one run twice, or drop it because of another. Write one SELECT, with joins, CASE or COALESCE for the alternatives."
    )]
    SetOperation(String),
    /// A set-returning function in the select list.
    #[error(
        "`{0}` returns several rows for one run. Join a table, or pick one value with an operator or a function that returns one."
    )]
    SetReturning(String),
    /// A function in `FROM`.
    #[error(
        "`{0}` in FROM makes rows that no table holds. Join a table, or call a function that returns one value in the select list."
    )]
    FunctionInFrom(String),
    /// `WITH RECURSIVE`.
    #[error(
        "a recursive CTE depends on more rows than a run and what is joined to it. Join a table that holds the result instead."
    )]
    Recursive,
    /// Something that reads the clock.
    #[error(
        "`{0}` reads the clock, so the answer changes without a change of the run. Use a column of the run, such as `r.updated_at`."
    )]
    Clock(String),
    /// A literal that PostgreSQL turns into the current time.
    #[error(
        "PostgreSQL reads `'{0}'` as the current time here. Use a column of the run such as `r.updated_at`, or write `'{0}'::text` where the word is meant."
    )]
    ClockLiteral(String),
    /// A random value.
    #[error("`{0}` is random, so no two looks agree. Use a column of the run, such as `r.id`.")]
    Random(String),
    /// A function that reads or changes the state of the session or the server.
    #[error(
        "`{0}` depends on the session or the server, or changes it. Use columns of the run and of joined tables only."
    )]
    State(String),
}

fn how_to_write(column: &str) -> &'static str {
    match column {
        "run" => "Add the run's key, for example `r.id as run`",
        "workspace" => "Add the run's workspace, for example `r.workspace_id as workspace`",
        "uid" => {
            "Add the run's user, for example `r.user_id as uid`; where there are no users, write `null as uid`"
        }
        "published_run" => {
            "Add the workflow that the run used, for example `v.published_run_id as published_run`"
        }
        _ => "Add the time of the run, for example `r.updated_at as last_used_at`",
    }
}
