//! How often a query reads `runs`, seen through its CTEs.

use super::{Dialect, RUNS, Refusal, excerpt};
use sqlparser::ast::{
    JoinConstraint, JoinOperator, ObjectName, Query, SetExpr, TableFactor, TableWithJoins, Visit,
    visit_relations,
};
use std::fmt::Display;
use std::ops::ControlFlow;

/// Refuses a query unless each of its rows is made of exactly one run: `runs` is read once, in
/// FROM, and no outer join makes rows without it.
pub(super) fn once(query: &Query, dialect: Dialect) -> Result<(), Refusal> {
    let mut reads = Reads {
        dialect,
        mentions: 0,
        ctes: Vec::new(),
    };
    let count = reads.query(query)?;
    if count > 1 || reads.mentions > 1 {
        return Err(Refusal::RunsTwice);
    }
    if count == 0 {
        Err(Refusal::NoRuns)
    } else {
        Ok(())
    }
}

struct Reads {
    dialect: Dialect,
    /// How often `runs` stands in the text.
    mentions: usize,
    /// The CTEs in scope, innermost last, each with the runs that one row of it is made of.
    ctes: Vec<(String, usize)>,
}

impl Reads {
    /// How many runs one row of the query is made of.
    fn query(&mut self, query: &Query) -> Result<usize, Refusal> {
        let outer = self.ctes.len();
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            let count = self.query(&cte.query)?;
            self.ctes.push((self.dialect.fold(&cte.alias.name), count));
        }
        let count = self.body(&query.body)?;
        self.ctes.truncate(outer);
        Ok(count)
    }

    fn body(&mut self, body: &SetExpr) -> Result<usize, Refusal> {
        match body {
            SetExpr::Query(query) => self.query(query),
            SetExpr::Select(select) => {
                let mut count = 0;
                for tables in &select.from {
                    count += self.joined(tables)?;
                }
                select
                    .projection
                    .iter()
                    .try_for_each(|item| self.none_in(item))?;
                select
                    .selection
                    .iter()
                    .try_for_each(|expr| self.none_in(expr))?;
                Ok(count)
            }
            SetExpr::Values(values) => {
                let mut cells = values.rows.iter().flat_map(|row| &row.content);
                cells.try_for_each(|expr| self.none_in(expr))?;
                Ok(0)
            }
            other => Err(Refusal::NotPlain(excerpt(other))),
        }
    }

    fn joined(&mut self, tables: &TableWithJoins) -> Result<usize, Refusal> {
        let mut left = self.source(&tables.relation)?;
        for join in &tables.joins {
            let right = self.source(&join.relation)?;
            let (kind, constraint, nullable) = match &join.join_operator {
                JoinOperator::Join(on) | JoinOperator::Inner(on) | JoinOperator::CrossJoin(on) => {
                    ("JOIN", on, 0)
                }
                JoinOperator::Left(on) | JoinOperator::LeftOuter(on) => ("LEFT JOIN", on, right),
                JoinOperator::Right(on) | JoinOperator::RightOuter(on) => ("RIGHT JOIN", on, left),
                JoinOperator::FullOuter(on) => ("FULL JOIN", on, left + right),
                _ => return Err(Refusal::NotPlain(excerpt(join).trim_start().to_owned())),
            };
            if nullable > 0 {
                return Err(Refusal::RunsNullable(kind));
            }
            if let JoinConstraint::On(expr) = constraint {
                self.none_in(expr)?;
            }
            left += right;
        }
        Ok(left)
    }

    fn source(&mut self, source: &TableFactor) -> Result<usize, Refusal> {
        match source {
            TableFactor::Table { name, .. } => {
                let count = self.runs_in(name);
                self.mentions += usize::from(self.is_runs(name));
                Ok(count)
            }
            TableFactor::Derived { subquery, .. } => self.query(subquery),
            TableFactor::NestedJoin {
                table_with_joins, ..
            } => self.joined(table_with_joins),
            other => Err(Refusal::NotPlain(excerpt(other))),
        }
    }

    /// Refuses an expression with a subquery that reads `runs`, or a CTE made of them. A CTE of
    /// the subquery's own that takes such a name is refused as well; it can be called otherwise.
    fn none_in(&self, expr: &(impl Visit + Display)) -> Result<(), Refusal> {
        let found = visit_relations(expr, |name| match self.runs_in(name) {
            0 => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        });
        match found {
            ControlFlow::Break(()) => Err(Refusal::RunsInExpression(excerpt(expr))),
            ControlFlow::Continue(()) => Ok(()),
        }
    }

    fn runs_in(&self, name: &ObjectName) -> usize {
        if self.is_runs(name) {
            return 1;
        }
        match self.dialect.fold_all(name).as_deref() {
            Some([name]) => {
                let mut innermost_first = self.ctes.iter().rev();
                innermost_first
                    .find(|(cte, _)| cte == name)
                    .map_or(0, |(_, count)| *count)
            }
            _ => 0,
        }
    }

    fn is_runs(&self, name: &ObjectName) -> bool {
        self.dialect
            .fold_all(name)
            .is_some_and(|parts| parts == [RUNS])
    }
}
