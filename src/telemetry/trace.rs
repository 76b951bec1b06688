//! Logs.

use std::fmt;
use std::io::IsTerminal;

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::filter::ParseError;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// The driver warns of an unknown part of a URL with its value, which may be a password.
const DRIVERS_URL: &str = "sqlx_postgres::options=off";

/// Logs to standard error from now on. `level` is a level (`info`) or a list of directives
/// (`info,recents=debug`).
///
/// # Errors
/// Where `level` is neither.
pub fn start(format: LogFormat, level: &str) -> Result<(), ParseError> {
    let filter = EnvFilter::try_new(level)?.add_directive(DRIVERS_URL.parse()?);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // Where nobody listens any more, nothing more can be said.
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    // A process has one subscriber; where there is one already, it stays.
    let _ = match format {
        LogFormat::Text => builder.with_ansi(has_colours()).try_init().ok(),
        LogFormat::Json => builder.json().flatten_event(true).try_init().ok(),
    };
    Ok(())
}

/// Whether standard error is a terminal that shows colours to somebody who wants them (no-color.org).
fn has_colours() -> bool {
    let is = |name: &str, wanted: fn(&std::ffi::OsStr) -> bool| {
        std::env::var_os(name).is_some_and(|value| wanted(&value))
    };
    std::io::stderr().is_terminal()
        && !is("NO_COLOR", |value| !value.is_empty())
        && is("TERM", |value| value != "dumb")
}

/// Whether `level` is one that [`start`] takes: a level, or directives with a level each.
pub fn is_level(level: &str) -> bool {
    // To the filter, a word that is no level is the name of a module.
    let is_level = |directive: &str| {
        let level = directive.rsplit('=').next().unwrap_or_default();
        level.trim().parse::<LevelFilter>().is_ok()
    };
    level.split(',').all(is_level) && EnvFilter::try_new(level).is_ok()
}
