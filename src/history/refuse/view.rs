//! Views behind a mapping query. They may join and aggregate what they like, as long as they say the
//! same each time.

use super::{Dialect, Refusal, clock, deeply, functions, not_a_select};
use sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, ObjectName, Statement, TableFactor, TableFunctionArgs,
    Visit, Visitor,
};
use sqlparser::tokenizer::{Token, TokenWithSpan};
use std::collections::BTreeSet;
use std::ops::ControlFlow;

/// The longest view, in tokens: one that lists all columns of some wide tables.
pub(super) const MAX_TOKENS: usize = 10_000;

/// What a view uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// As [`super::Judged::functions`].
    pub functions: Vec<String>,
    /// As [`super::Judged::relations`].
    pub relations: Vec<Vec<String>>,
}

/// Judges the text of a view, the query alone or with `create view` before it.
///
/// # Errors
/// The first reason found to refuse it: it reads the clock, is random, or is too long.
pub fn judge_view(text: &str, dialect: Dialect) -> Result<View, Refusal> {
    deeply(MAX_TOKENS, || {
        let (_, tokens) = dialect.only_statement(text, MAX_TOKENS)?;
        let mut unsteady = Unsteady {
            dialect,
            functions: BTreeSet::new(),
            relations: BTreeSet::new(),
        };
        let query = match dialect.parse(tokens.clone()) {
            Ok(Statement::Query(query)) => Some(query),
            Ok(Statement::CreateView(view)) => Some(view.query),
            Ok(other) => return Err(not_a_select(&other)),
            // The database itself made the view: only the parser does not know all of its SQL.
            Err(_) => None,
        };
        match query {
            None => unsteady.words(&tokens)?,
            Some(query) => match query.visit(&mut unsteady) {
                ControlFlow::Break(refusal) => return Err(refusal),
                ControlFlow::Continue(()) => {}
            },
        }
        Ok(View {
            functions: unsteady.functions.into_iter().collect(),
            relations: unsteady.relations.into_iter().collect(),
        })
    })
}

/// Walks the view and breaks at the first thing that is another one each time.
struct Unsteady {
    dialect: Dialect,
    functions: BTreeSet<String>,
    relations: BTreeSet<Vec<String>>,
}

impl Unsteady {
    /// Judges what cannot be parsed by its words: one before a parenthesis may be a call with whatever
    /// arguments, each may be a relation.
    fn words(&mut self, tokens: &[TokenWithSpan]) -> Result<(), Refusal> {
        let tokens = tokens.iter().map(|token| &token.token);
        let mut tokens = tokens
            .filter(|token| !matches!(token, Token::Whitespace(_)))
            .peekable();
        while let Some(token) = tokens.next() {
            let Token::Word(word) = token else { continue };
            let name = word.value.to_ascii_lowercase();
            let is_value = word.quote_style.is_none() && clock::is_value(&name);
            if is_value || tokens.peek() == Some(&&Token::LParen) {
                for arguments in [&[][..], &[&FunctionArgExpr::Wildcard]] {
                    functions::judge_steady(&name, arguments, self.dialect)?;
                }
                self.functions.insert(name.clone());
            }
            self.relations.insert(vec![name]);
        }
        Ok(())
    }

    fn source(&mut self, source: &TableFactor) -> Result<(), Refusal> {
        match source {
            TableFactor::Table {
                sample: Some(_), ..
            }
            | TableFactor::Derived {
                sample: Some(_), ..
            } => Err(Refusal::NotPlain("TABLESAMPLE".to_owned())),
            TableFactor::Table {
                name,
                args: Some(TableFunctionArgs { args, .. }),
                ..
            }
            | TableFactor::Function { name, args, .. } => self.call(name, args),
            TableFactor::Table { name, .. } => {
                let Some(parts) = self.dialect.fold_all(name) else {
                    return Ok(());
                };
                functions::judge_relation(&parts, self.dialect)?;
                self.relations.insert(parts);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn call(&mut self, name: &ObjectName, arguments: &[FunctionArg]) -> Result<(), Refusal> {
        let name = functions::name(name)?;
        functions::judge_steady(&name, &functions::values(arguments), self.dialect)?;
        self.functions.insert(name);
        Ok(())
    }

    fn value(&mut self, expr: &Expr) -> Result<(), Refusal> {
        if let Expr::Function(call) = expr {
            let name = functions::name(&call.name)?;
            functions::judge_steady(&name, &functions::arguments(call), self.dialect)?;
            self.functions.insert(name);
        }
        if let Expr::Identifier(name) = expr {
            functions::judge_name(name, self.dialect)?;
        }
        match clock::literal_in(expr) {
            Some(literal) if self.dialect == Dialect::Postgres => {
                Err(Refusal::ClockLiteral(literal.to_owned()))
            }
            _ => Ok(()),
        }
    }
}

impl Visitor for Unsteady {
    type Break = Refusal;

    fn pre_visit_table_factor(&mut self, source: &TableFactor) -> ControlFlow<Refusal> {
        super::forbidden::flow(self.source(source))
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Refusal> {
        super::forbidden::flow(self.value(expr))
    }
}
