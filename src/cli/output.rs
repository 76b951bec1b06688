//! Printing.

use std::error::Error;
use std::io::{self, Write};

use crate::store::sqlstate::{self, INSUFFICIENT_PRIVILEGE, READ_ONLY};
pub(super) use crate::telemetry::chain;

/// Writes data to standard output.
///
/// # Errors
/// Where it cannot be written, such as into a closed pipe.
pub(super) fn print(text: impl std::fmt::Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    write!(out, "{text}")?;
    out.flush()
}

/// Whether whoever read standard output went away (`recents list … | head`).
pub(super) fn is_broken_pipe(error: &(dyn Error + 'static)) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

/// Why a database refused something that its operator has to mend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The role lacks a right.
    LacksARight,
    /// Nothing can be written there.
    ReadOnly,
}

/// SQLite's code of it, in the lowest byte of its extended ones.
const SQLITE_READONLY: i32 = 8;

/// Why a database refused it, where it did for one of these.
pub(super) fn refusal(error: &(dyn Error + 'static)) -> Option<Refusal> {
    let mut causes = std::iter::successors(Some(error), |&error| error.source());
    causes.find_map(|error| {
        let code = sqlstate::code(error.downcast_ref::<sqlx::Error>()?)?;
        let of_sqlite = |code: &str| {
            Some(code.len() < 5 && code.parse::<i32>().ok()? & 0xff == SQLITE_READONLY)
        };
        match &*code {
            INSUFFICIENT_PRIVILEGE => Some(Refusal::LacksARight),
            READ_ONLY => Some(Refusal::ReadOnly),
            code => of_sqlite(code)?.then_some(Refusal::ReadOnly),
        }
    })
}

/// Whether PostgreSQL refused it for a right that the role lacks.
pub(super) fn lacks_a_right(error: &(dyn Error + 'static)) -> bool {
    refusal(error) == Some(Refusal::LacksARight)
}

/// Rows as columns: the first row is the heading; numbers stand to the right.
pub(super) fn columns(rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|c| c.chars().count())
            .max()
            .unwrap_or(0)
    };
    let mut text = String::new();
    for row in rows {
        let cells: Vec<_> = row
            .iter()
            .enumerate()
            .map(|(at, cell)| match at > 0 && is_number_column(rows, at) {
                true => format!("{cell:>width$}", width = width(at)),
                false => format!("{cell:<width$}", width = width(at)),
            })
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn is_number_column(rows: &[Vec<String>], column: usize) -> bool {
    let number = |cell: &String| {
        cell == "-" || (cell.starts_with(|c: char| c.is_ascii_digit()) && !cell.contains(':'))
    };
    rows.iter()
        .skip(1)
        .filter_map(|row| row.get(column))
        .all(number)
}

/// `1234567` as `1,234,567`.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// What was counted, of which some may have been counted more than once.
pub(super) fn counted(number: u64, at_most: bool) -> String {
    let before = if at_most { "at most " } else { "" };
    before.to_owned() + &thousands(number)
}

/// A duration in the unit that fits it.
pub(super) fn duration(duration: std::time::Duration) -> String {
    let seconds = duration.as_secs_f64();
    match seconds {
        s if s >= 100.0 => format!("{:.0} min", s / 60.0),
        s if s >= 1.0 => format!("{s:.1} s"),
        s if s >= 0.01 => format!("{:.0} ms", s * 1e3),
        s if s >= 0.001 => format!("{:.1} ms", s * 1e3),
        s => format!("{:.0} µs", s * 1e6),
    }
}
