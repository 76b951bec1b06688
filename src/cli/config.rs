//! `recents config check`.

use clap::Subcommand;
use serde_json::{Map, Value, json};

use super::output::{columns, print};
use super::{Done, Failure, Json, open};
use crate::config::Config;

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Read the configuration, and print each value with where it came from; secrets are masked
    Check(Json),
}

pub(super) fn check(config: &Config, as_json: bool) -> Result<Done, Failure> {
    // A URL that names no database that could be opened is found now, not at the first use.
    wait(async { open(config).map(drop) })?;
    if as_json {
        let values: Map<String, Value> = config
            .explain()
            .map(|(name, value, origin)| {
                (
                    name.into(),
                    json!({"value": value, "origin": origin.to_string()}),
                )
            })
            .collect();
        print(serde_json::to_string_pretty(&values)? + "\n")?;
        return Ok(Done::Complete);
    }
    let mut rows = vec![vec!["key".into(), "value".into(), "from".into()]];
    rows.extend(config.explain().map(|(name, value, origin)| {
        let value = value.lines().map(str::trim).collect::<Vec<_>>().join(" ");
        vec![name.into(), value, origin.to_string()]
    }));
    print(columns(&rows))?;
    if config.history.is_some() {
        eprintln!("the mapping query was read, but not tried: `recents estimate` or `verify` do");
    }
    if config.details.is_some() {
        eprintln!("details.query was not tried: `recents serve` does, when it starts");
    }
    eprintln!("the configuration is good");
    Ok(Done::Complete)
}

fn wait(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    super::wait_for(async { work.await.map(|()| Done::Complete) }).map(drop)
}
