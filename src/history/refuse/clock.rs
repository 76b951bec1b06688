//! What reads the clock: functions, and strings that a database takes for the current time.

use super::Dialect;
use super::functions::arguments;
use sqlparser::ast::{BinaryOperator, DataType, Expr, FunctionArgExpr, Value, Values};
use std::iter::once;

/// Whether a call reads the clock. Most of these are stable functions to PostgreSQL, so that a
/// look at volatility would pass them.
pub(super) fn is_read_by(name: &str, arguments: &[&FunctionArgExpr], dialect: Dialect) -> bool {
    match name {
        _ if is_value(name) => true,
        "now"
        | "clock_timestamp"
        | "statement_timestamp"
        | "transaction_timestamp"
        | "timeofday"
        | "pg_postmaster_start_time"
        | "pg_conf_load_time" => true,
        // The age of one timestamp is counted from today.
        "age" => arguments.len() == 1,
        _ => dialect == Dialect::Sqlite && is_now(name, arguments),
    }
}

/// Whether the name alone, without parentheses, stands for the current time.
pub(super) fn is_value(name: &str) -> bool {
    matches!(
        name,
        "current_timestamp" | "current_date" | "current_time" | "localtime" | "localtimestamp"
    )
}

/// Whether one of SQLite's date functions stands for now: by a literal, or by having no argument.
fn is_now(name: &str, arguments: &[&FunctionArgExpr]) -> bool {
    let times = match name {
        "date" | "time" | "datetime" | "julianday" | "unixepoch" => 0..1,
        "strftime" => 1..2,
        "timediff" => 0..2,
        _ => return false,
    };
    times
        .into_iter()
        .any(|position| match arguments.get(position) {
            None => true,
            Some(FunctionArgExpr::Expr(Expr::Identifier(name))) if name.quote_style.is_some() => {
                // A quoted name that no column has is a string to SQLite.
                means_now_to_sqlite(&name.value)
            }
            Some(FunctionArgExpr::Expr(value)) => string(value).is_some_and(means_now_to_sqlite),
            Some(_) => false,
        })
}

fn means_now_to_sqlite(text: &str) -> bool {
    ["now", "subsec", "subsecond"]
        .iter()
        .any(|word| text.eq_ignore_ascii_case(word))
}

/// A string that PostgreSQL reads as the current time or day where it expects one: cast to a
/// time's type, or wherever it takes the type of what stands beside it.
pub(super) fn literal_in(expr: &Expr) -> Option<&str> {
    let operands: Vec<&Expr> = match expr {
        Expr::TypedString(typed) if is_time(&typed.data_type) => {
            return literal(&typed.value.value).filter(|text| means_now_to_postgres(text));
        }
        Expr::Cast {
            expr, data_type, ..
        } if is_time(data_type) => vec![uncast(expr)],
        Expr::BinaryOp { left, op, right } if compares(op) => vec![left, right],
        Expr::IsDistinctFrom(left, right) | Expr::IsNotDistinctFrom(left, right) => {
            vec![left, right]
        }
        Expr::AnyOp { left, right, .. } | Expr::AllOp { left, right, .. } => vec![left, right],
        Expr::Between {
            expr, low, high, ..
        } => vec![expr, low, high],
        Expr::InList { expr, list, .. } => once(&**expr).chain(list).collect(),
        Expr::InSubquery { expr, .. } => vec![expr],
        Expr::AtTimeZone { timestamp, .. } => vec![timestamp],
        // An operand that is a string is text.
        Expr::Case {
            conditions,
            else_result,
            ..
        } => {
            let whens = conditions.iter();
            let whens = whens.flat_map(|when| [&when.condition, &when.result]);
            whens.chain(else_result.as_deref()).collect()
        }
        Expr::Array(array) => array.elem.iter().collect(),
        Expr::Tuple(values) => values.iter().collect(),
        Expr::Function(call) => {
            let values = arguments(call)
                .into_iter()
                .filter_map(|argument| match argument {
                    FunctionArgExpr::Expr(value) => Some(value),
                    _ => None,
                });
            values.collect()
        }
        _ => return None,
    };
    first_of(operands)
}

/// The same of the rows of `VALUES`, where a string takes the type of its column.
pub(super) fn literal_in_rows(values: &Values) -> Option<&str> {
    first_of(values.rows.iter().flat_map(|row| row.iter()))
}

fn first_of<'a>(values: impl IntoIterator<Item = &'a Expr>) -> Option<&'a str> {
    let mut strings = values.into_iter().filter_map(string);
    strings.find(|text| means_now_to_postgres(text))
}

/// What is cast, through casts to text: `'now'::text::date` is how a view keeps today's date.
fn uncast(mut expr: &Expr) -> &Expr {
    while let Expr::Cast { expr: inner, .. } | Expr::Nested(inner) = expr {
        expr = inner;
    }
    expr
}

fn compares(op: &BinaryOperator) -> bool {
    matches!(
        op,
        BinaryOperator::Eq
            | BinaryOperator::NotEq
            | BinaryOperator::Lt
            | BinaryOperator::LtEq
            | BinaryOperator::Gt
            | BinaryOperator::GtEq
            | BinaryOperator::Plus
            | BinaryOperator::Minus
            | BinaryOperator::AtArrow
            | BinaryOperator::ArrowAt
            | BinaryOperator::PGOverlap
            | BinaryOperator::PGCustomBinaryOperator(_)
    )
}

fn is_time(data_type: &DataType) -> bool {
    let name = data_type.to_string().to_ascii_lowercase();
    let begins = [
        "date",
        "time",
        "tsrange",
        "tstzrange",
        "tsmulti",
        "tstzmulti",
    ];
    begins.iter().any(|begin| name.starts_with(begin))
}

/// `now`, `today`, also with a time of day after it; alone, or in an array or a range.
fn means_now_to_postgres(text: &str) -> bool {
    match text.trim_start().starts_with(['{', '[', '(']) {
        true => text
            .split(['{', '}', '[', ']', '(', ')', ',', '"'])
            .any(is_now_to_postgres),
        false => is_now_to_postgres(text),
    }
}

fn is_now_to_postgres(text: &str) -> bool {
    let mut words = text.split_whitespace();
    let day = words.next().map(str::to_ascii_lowercase);
    matches!(
        day.as_deref(),
        Some("now" | "today" | "tomorrow" | "yesterday")
    ) && words.all(|word| word.starts_with(|first: char| first.is_ascii_digit()))
}

fn string(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Value(value) => literal(&value.value),
        Expr::Nested(inner) => string(inner),
        _ => None,
    }
}

fn literal(value: &Value) -> Option<&str> {
    match value {
        Value::SingleQuotedString(text)
        | Value::EscapedStringLiteral(text)
        | Value::UnicodeStringLiteral(text)
        | Value::NationalStringLiteral(text) => Some(text),
        Value::DollarQuotedString(text) => Some(&text.value),
        _ => None,
    }
}
