//! Refuses a mapping query whose rows would depend on more than one run and the rows joined to it.
//!
//! The query is run over whatever runs are at hand: a handful that changed, a range of keys, all of
//! them. It must say the same of a run each time. [`judge`] reads the text alone; what only the
//! database knows is left to the caller: whether a function is volatile, an aggregate or
//! set-returning (look up [`Judged::functions`]), which views stand behind [`Judged::relations`]
//! ([`judge_view`] reads their text), and whether `run` is the key of the very run that the row was
//! made from.

mod clock;
mod forbidden;
mod functions;
mod reads;
mod refusal;
#[cfg(test)]
mod tests;
mod view;

use sqlparser::ast::{Expr, Ident, ObjectName, Query, SelectItem, SetExpr, Statement, Visit};
use sqlparser::dialect::{PostgreSqlDialect, SQLiteDialect};
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};
use std::ops::ControlFlow;

use crate::store::Dialect;
pub use refusal::Refusal;
pub use view::{View, judge_view};

/// The columns that a mapping query returns, in any order.
pub const COLUMNS: [&str; 5] = ["run", "workspace", "uid", "published_run", "last_used_at"];

/// The relation that stands for the runs at hand.
const RUNS: &str = "runs";

/// The longest query accepted, in tokens; a long one has a few hundred. A chain of `+` or `or`
/// nests as deep as it is long.
const MAX_TOKENS: usize = 2_000;

/// Walking the parsed query takes 14 KiB of stack for each level in a debug build, so 150 levels
/// are more than a thread of 2 MiB holds. This is for a level at each token, twice.
const STACK_BYTES_PER_TOKEN: usize = 32 * 1024;

/// A mapping query that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// The query without its trailing `;` and surrounding whitespace. It may end in a `--` comment,
    /// so a newline belongs before the `)` that it is wrapped with.
    pub text: String,
    /// The functions that it calls: in lower case, unqualified, sorted, each once. Some are
    /// constructs of the grammar, such as `coalesce`, which a database's catalogue does not list.
    pub functions: Vec<String>,
    /// The relations that it reads besides `runs`, each as the parts of its name, as the database
    /// compares them. A CTE is taken for the relation of its name.
    pub relations: Vec<Vec<String>>,
    /// The output columns in the order in which the query returns them: [`COLUMNS`], permuted.
    pub columns: Vec<&'static str>,
    /// Whether `uid` is the literal NULL: the history knows no users.
    pub without_users: bool,
}

impl Judged {
    /// [`Judged::relations`] as SQL writes them.
    pub(crate) fn relation_names(&self) -> impl Iterator<Item = String> {
        let quoted = |part: &String| format!("\"{}\"", part.replace('"', "\"\""));
        let written =
            move |parts: &Vec<String>| parts.iter().map(quoted).collect::<Vec<_>>().join(".");
        self.relations.iter().map(written)
    }
}

/// Judges a mapping query by its text.
///
/// `history_table` is the table that `runs` stands for, as configured: `saved_run`,
/// `app.saved_run`, `"App"."Saved Run"`.
///
/// # Errors
///
/// The first reason found to refuse the query.
pub fn judge(query: &str, history_table: &str, dialect: Dialect) -> Result<Judged, Refusal> {
    deeply(MAX_TOKENS, || judge_here(query, history_table, dialect))
}

/// Judges where the stack is deep enough for so many tokens.
fn deeply<T: Send>(
    tokens: usize,
    judge: impl FnOnce() -> Result<T, Refusal> + Send,
) -> Result<T, Refusal> {
    std::thread::scope(|scope| {
        let deep = std::thread::Builder::new().stack_size(tokens * STACK_BYTES_PER_TOKEN);
        let judging = deep
            .spawn_scoped(scope, judge)
            .map_err(|error| Refusal::NotJudged(error.to_string()))?;
        let died = |_| Refusal::NotJudged("the parser failed".to_owned());
        judging.join().map_err(died)?
    })
}

fn judge_here(query: &str, history_table: &str, dialect: Dialect) -> Result<Judged, Refusal> {
    let history = dialect.table_name(history_table)?;
    let (text, tokens) = dialect.only_statement(query, MAX_TOKENS)?;
    let parsed = match dialect.parse(tokens)? {
        Statement::Query(query) => query,
        other => return Err(not_a_select(&other)),
    };

    let mut forbidden = forbidden::Forbidden::new(dialect, history);
    if let ControlFlow::Break(refusal) = parsed.visit(&mut forbidden) {
        return Err(refusal);
    }
    let (columns, without_users) = output_columns(&parsed, dialect)?;
    reads::once(&parsed, dialect)?;
    let (functions, relations) = forbidden.into_names();
    Ok(Judged {
        text: text.to_owned(),
        functions,
        relations,
        columns,
        without_users,
    })
}

impl Dialect {
    fn grammar(self) -> &'static dyn sqlparser::dialect::Dialect {
        match self {
            Self::Postgres => &PostgreSqlDialect {},
            Self::Sqlite => &SQLiteDialect {},
        }
    }

    /// The name as the database compares it.
    fn fold(self, ident: &Ident) -> String {
        match (self, ident.quote_style) {
            (Self::Postgres, Some(_)) => ident.value.clone(),
            _ => ident.value.to_ascii_lowercase(),
        }
    }

    /// The parts of a qualified name; `None` if one of them is no plain name.
    fn fold_all(self, name: &ObjectName) -> Option<Vec<String>> {
        let fold = |part: &sqlparser::ast::ObjectNamePart| part.as_ident().map(|i| self.fold(i));
        name.0.iter().map(fold).collect()
    }

    fn table_name(self, text: &str) -> Result<Vec<String>, Refusal> {
        let refusal = || Refusal::TableName(text.to_owned());
        let mut parser = Parser::new(self.grammar())
            .try_with_sql(text)
            .map_err(|_| refusal())?;
        let name = parser.parse_object_name(false).map_err(|_| refusal())?;
        if parser.peek_token_ref().token != Token::EOF {
            return Err(refusal());
        }
        self.fold_all(&name).ok_or_else(refusal)
    }

    /// The text and the tokens of the one statement, without the semicolons around it.
    fn only_statement(
        self,
        query: &str,
        max_tokens: usize,
    ) -> Result<(&str, Vec<TokenWithSpan>), Refusal> {
        // SQLite reads a statement up to the first NUL, PostgreSQL accepts none.
        if let Some(at) = query.find('\0') {
            return Err(Refusal::Parse(format!("a NUL byte at offset {at}")));
        }
        let tokens = Tokenizer::new(self.grammar(), query)
            .tokenize_with_location()
            .map_err(|error| Refusal::Parse(error.to_string()))?;
        let is_blank = |token: &TokenWithSpan| matches!(token.token, Token::Whitespace(_));
        let mut statements = tokens
            .split(|token| token.token == Token::SemiColon)
            .filter(|statement| !statement.iter().all(is_blank));
        let statement = statements.next().ok_or(Refusal::Empty)?;
        match statements.count() {
            0 => {}
            more => return Err(Refusal::SeveralStatements(1 + more)),
        }
        let length = statement.iter().filter(|token| !is_blank(token)).count();
        if length > max_tokens {
            return Err(Refusal::TooLong(length));
        }
        let start = statement
            .first()
            .map_or(0, |token| offset(query, token.span.start));
        let end = statement
            .last()
            .map_or(0, |token| offset(query, token.span.end));
        Ok((
            query.get(start..end).unwrap_or_default().trim(),
            statement.to_vec(),
        ))
    }

    fn parse(self, tokens: Vec<TokenWithSpan>) -> Result<Statement, Refusal> {
        let refusal = |error| match error {
            ParserError::TokenizerError(message) | ParserError::ParserError(message) => {
                Refusal::Parse(message)
            }
            ParserError::RecursionLimitExceeded => {
                Refusal::Parse("it is nested too deeply".to_owned())
            }
        };
        let mut parser = Parser::new(self.grammar()).with_tokens_with_locations(tokens);
        let statement = parser.parse_statement().map_err(refusal)?;
        // `Parser::parse_statements` would pass over whatever follows an END.
        parser.expect_token(&Token::EOF).map_err(refusal)?;
        Ok(statement)
    }
}

fn not_a_select(statement: &Statement) -> Refusal {
    let text = statement.to_string();
    let keyword = text.split_whitespace().next().unwrap_or_default();
    Refusal::NotASelect(keyword.to_owned())
}

/// The byte offset of a place that the tokenizer counts in lines and characters, both from 1.
fn offset(text: &str, at: Location) -> usize {
    let (mut line, mut column) = (1, 1);
    for (offset, character) in text.char_indices() {
        if (line, column) == (at.line, at.column) {
            return offset;
        }
        (line, column) = if character == '\n' {
            (line + 1, 1)
        } else {
            (line, column + 1)
        };
    }
    text.len()
}

fn output_columns(query: &Query, dialect: Dialect) -> Result<(Vec<&'static str>, bool), Refusal> {
    let mut body = &query.body;
    while let SetExpr::Query(inner) = &**body {
        body = &inner.body;
    }
    let SetExpr::Select(select) = &**body else {
        return Err(Refusal::NotASelect(excerpt(body)));
    };
    let mut columns = Vec::with_capacity(COLUMNS.len());
    let mut without_users = false;
    for item in &select.projection {
        let (name, value) = match item {
            SelectItem::ExprWithAlias { expr, alias } => (alias, expr),
            SelectItem::UnnamedExpr(expr @ Expr::Identifier(name)) => (name, expr),
            SelectItem::UnnamedExpr(expr @ Expr::CompoundIdentifier(path)) => match path.last() {
                Some(name) => (name, expr),
                None => return Err(Refusal::UnnamedColumn(excerpt(item))),
            },
            SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAliases { .. } => {
                return Err(Refusal::UnnamedColumn(excerpt(item)));
            }
            SelectItem::QualifiedWildcard(..) | SelectItem::Wildcard(_) => {
                return Err(Refusal::Wildcard(excerpt(item)));
            }
        };
        let name = dialect.fold(name);
        let Some(column) = COLUMNS.into_iter().find(|column| *column == name) else {
            return Err(Refusal::ExtraColumn(name));
        };
        if columns.contains(&column) {
            return Err(Refusal::DuplicateColumn(column));
        }
        columns.push(column);
        without_users |= column == "uid" && is_null(value);
    }
    match COLUMNS.into_iter().find(|column| !columns.contains(column)) {
        Some(missing) => Err(Refusal::MissingColumn(missing)),
        None => Ok((columns, without_users)),
    }
}

fn is_null(value: &Expr) -> bool {
    match value {
        Expr::Value(literal) => literal.value == sqlparser::ast::Value::Null,
        Expr::Cast { expr, .. } | Expr::Nested(expr) => is_null(expr),
        _ => false,
    }
}

/// A piece of the query for a message, shortened.
fn excerpt(node: &impl std::fmt::Display) -> String {
    const MAX_CHARS: usize = 60;
    let text = node.to_string();
    match text.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
