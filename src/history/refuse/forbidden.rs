//! What a mapping query may not hold anywhere, in a subquery or a CTE no less than outside.

use super::{Dialect, RUNS, Refusal, clock, excerpt, functions};
use sqlparser::ast::{
    Distinct, Expr, Function, GroupByExpr, LimitClause, ObjectName, Query, Select, SetExpr,
    TableFactor, Value, ValueWithSpan, Visitor,
};
use std::collections::BTreeSet;
use std::ops::ControlFlow;

/// Walks the whole query and breaks at the first thing to refuse.
pub(super) struct Forbidden {
    dialect: Dialect,
    history: Vec<String>,
    functions: BTreeSet<String>,
    relations: BTreeSet<Vec<String>>,
}

impl Forbidden {
    pub(super) fn new(dialect: Dialect, history: Vec<String>) -> Self {
        Self {
            dialect,
            history,
            functions: BTreeSet::new(),
            relations: BTreeSet::new(),
        }
    }

    /// The functions that were called and the relations that were named.
    pub(super) fn into_names(self) -> (Vec<String>, Vec<Vec<String>>) {
        let functions = self.functions.into_iter().collect();
        (functions, self.relations.into_iter().collect())
    }

    fn with_and_body(&self, query: &Query) -> Result<(), Refusal> {
        if let Some(with) = &query.with {
            if with.recursive {
                return Err(Refusal::Recursive);
            }
            let mut names = with
                .cte_tables
                .iter()
                .map(|cte| self.dialect.fold(&cte.alias.name));
            if names.any(|name| name == RUNS) {
                return Err(Refusal::RunsShadowed);
            }
        }
        match &*query.body {
            SetExpr::Values(values) if self.dialect == Dialect::Postgres => {
                match clock::literal_in_rows(values) {
                    Some(literal) => Err(Refusal::ClockLiteral(literal.to_owned())),
                    None => Ok(()),
                }
            }
            SetExpr::Select(_) | SetExpr::Query(_) | SetExpr::Values(_) => Ok(()),
            SetExpr::SetOperation { op, .. } => Err(Refusal::SetOperation(op.to_string())),
            SetExpr::Insert(_) => Err(Refusal::Writes("INSERT")),
            SetExpr::Update(_) => Err(Refusal::Writes("UPDATE")),
            SetExpr::Delete(_) => Err(Refusal::Writes("DELETE")),
            SetExpr::Merge(_) => Err(Refusal::Writes("MERGE")),
            SetExpr::Table(_) => Err(Refusal::NotASelect(excerpt(&query.body))),
        }
    }

    /// The clauses after the body, judged after it: what is wrong inside is the better reason.
    fn tail(query: &Query) -> Result<(), Refusal> {
        match &query.limit_clause {
            Some(LimitClause::LimitOffset {
                limit: None,
                offset: Some(_),
                ..
            }) => {
                return Err(Refusal::Limit("OFFSET"));
            }
            Some(_) => return Err(Refusal::Limit("LIMIT")),
            None => {}
        }
        if query.fetch.is_some() {
            return Err(Refusal::Limit("FETCH"));
        }
        if query.order_by.is_some() {
            return Err(Refusal::OrderBy);
        }
        if let Some(lock) = query.locks.first() {
            return Err(Refusal::Locks(excerpt(lock)));
        }
        let foreign = [
            (query.for_clause.is_some(), "FOR"),
            (query.settings.is_some(), "SETTINGS"),
            (query.format_clause.is_some(), "FORMAT"),
            (!query.pipe_operators.is_empty(), "|>"),
        ];
        refuse_foreign(&foreign)
    }

    fn clauses(select: &Select) -> Result<(), Refusal> {
        match &select.distinct {
            Some(Distinct::On(_)) => return Err(Refusal::DistinctOn),
            Some(Distinct::Distinct) => return Err(Refusal::Distinct),
            Some(Distinct::All) | None => {}
        }
        if select.top.is_some() {
            return Err(Refusal::Limit("TOP"));
        }
        if select.into.is_some() {
            return Err(Refusal::Writes("SELECT INTO"));
        }
        match &select.group_by {
            GroupByExpr::Expressions(keys, modifiers)
                if keys.is_empty() && modifiers.is_empty() => {}
            _ => return Err(Refusal::Grouping("GROUP BY")),
        }
        if select.having.is_some() {
            return Err(Refusal::Grouping("HAVING"));
        }
        if let Some(window) = select.named_window.first() {
            return Err(Refusal::Window(excerpt(window)));
        }
        let foreign = [
            (select.select_modifiers.is_some(), "SELECT modifiers"),
            (select.exclude.is_some(), "EXCLUDE"),
            (!select.lateral_views.is_empty(), "LATERAL VIEW"),
            (select.prewhere.is_some(), "PREWHERE"),
            (!select.connect_by.is_empty(), "CONNECT BY"),
            (!select.cluster_by.is_empty(), "CLUSTER BY"),
            (!select.distribute_by.is_empty(), "DISTRIBUTE BY"),
            (!select.sort_by.is_empty(), "SORT BY"),
            (select.qualify.is_some(), "QUALIFY"),
            (select.value_table_mode.is_some(), "SELECT AS"),
        ];
        refuse_foreign(&foreign)
    }

    fn source(&mut self, source: &TableFactor) -> Result<(), Refusal> {
        match source {
            TableFactor::Table {
                name,
                args: Some(_),
                ..
            } => Err(Refusal::FunctionInFrom(name.to_string())),
            TableFactor::Table {
                sample: Some(_), ..
            }
            | TableFactor::Derived {
                sample: Some(_), ..
            } => Err(Refusal::NotPlain("TABLESAMPLE".to_owned())),
            TableFactor::Table { name, .. } => self.table(name),
            TableFactor::Derived { .. } | TableFactor::NestedJoin { .. } => Ok(()),
            TableFactor::Function { name, .. } => Err(Refusal::FunctionInFrom(name.to_string())),
            TableFactor::UNNEST { .. } => Err(Refusal::FunctionInFrom("unnest".to_owned())),
            TableFactor::JsonTable { .. } => Err(Refusal::FunctionInFrom("json_table".to_owned())),
            TableFactor::XmlTable { .. } => Err(Refusal::FunctionInFrom("xmltable".to_owned())),
            other => Err(Refusal::NotPlain(excerpt(other))),
        }
    }

    fn table(&mut self, name: &ObjectName) -> Result<(), Refusal> {
        let Some(parts) = self.dialect.fold_all(name) else {
            return Err(Refusal::NotPlain(excerpt(name)));
        };
        // The history may itself be called `runs`; the bare name is always the runs at hand.
        if parts == [RUNS] {
            return Ok(());
        }
        // The parser takes `from only t` for a table `only`, called `t`.
        if self.dialect == Dialect::Postgres && name.to_string().eq_ignore_ascii_case("only") {
            return Err(Refusal::NotPlain("ONLY".to_owned()));
        }
        // Where one of the two names no schema, any schema could be meant.
        if parts
            .iter()
            .rev()
            .zip(self.history.iter().rev())
            .all(|(part, known)| part == known)
        {
            return Err(Refusal::HistoryTable(name.to_string()));
        }
        functions::judge_relation(&parts, self.dialect)?;
        self.relations.insert(parts);
        Ok(())
    }

    fn call(&mut self, call: &Function) -> Result<(), Refusal> {
        self.functions.insert(functions::judge(call, self.dialect)?);
        Ok(())
    }
}

impl Visitor for Forbidden {
    type Break = Refusal;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Refusal> {
        flow(self.with_and_body(query))
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<Refusal> {
        flow(Self::tail(query))
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Refusal> {
        flow(Self::clauses(select))
    }

    fn pre_visit_table_factor(&mut self, source: &TableFactor) -> ControlFlow<Refusal> {
        flow(self.source(source))
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Refusal> {
        if let Expr::Function(call) = expr {
            flow(self.call(call))?;
        }
        if let Expr::Identifier(name) = expr {
            flow(functions::judge_name(name, self.dialect))?;
        }
        if self.dialect == Dialect::Postgres
            && let Some(literal) = clock::literal_in(expr)
        {
            return ControlFlow::Break(Refusal::ClockLiteral(literal.to_owned()));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_value(&mut self, value: &ValueWithSpan) -> ControlFlow<Refusal> {
        match &value.value {
            Value::Placeholder(name) => ControlFlow::Break(Refusal::Placeholder(name.clone())),
            _ => ControlFlow::Continue(()),
        }
    }
}

fn refuse_foreign(clauses: &[(bool, &str)]) -> Result<(), Refusal> {
    match clauses.iter().find(|(present, _)| *present) {
        Some((_, name)) => Err(Refusal::NotPlain((*name).to_owned())),
        None => Ok(()),
    }
}

pub(super) fn flow(judged: Result<(), Refusal>) -> ControlFlow<Refusal> {
    match judged {
        Ok(()) => ControlFlow::Continue(()),
        Err(refusal) => ControlFlow::Break(refusal),
    }
}
