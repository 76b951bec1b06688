//! `recents settings`.

use clap::{Subcommand, ValueEnum};
use serde_json::{Map, Value, json};

use super::output::{columns, print};
use super::{Done, Failure, Json, open_existing};
use crate::config::Config;
use crate::jobs::BACKFILL;
use crate::settings::{self, Change, Effective, NoValue, ReadPath, SettingsError};
use crate::store::job;

#[derive(Debug, Subcommand)]
pub(super) enum SettingsCommand {
    /// Print what holds: what is stored, else what is configured; `auto` as what it stands for now
    Get {
        /// This one only
        name: Option<Name>,
        #[command(flatten)]
        json: Json,
    },
    /// Change a setting; running servers follow within five seconds
    Set {
        /// Which one
        name: Name,
        /// Its value: auto, materialized, shadow or history; batched, per_item or off
        value: String,
        #[command(flatten)]
        json: Json,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(super) enum Name {
    /// Where lists are read from
    ReadPath,
    /// How details are asked for
    DetailsMode,
}

pub(super) async fn run(config: &Config, command: &SettingsCommand) -> Result<Done, Failure> {
    let (name, json) = match command {
        SettingsCommand::Get { name, json } => (*name, json.json),
        SettingsCommand::Set { name, json, .. } => (Some(*name), json.json),
    };
    let change = match command {
        SettingsCommand::Get { .. } => None,
        SettingsCommand::Set { name, value, .. } => Some(change(*name, value)?),
    };
    let store = open_existing(config).await?;
    let effective = match change {
        None => settings::load(&store, &config.settings).await?,
        Some(change) => settings::set(&store, &config.settings, change)
            .await
            .map_err(|error| match error {
                SettingsError::Forced(_) | SettingsError::NoHistory(_) => {
                    Failure::Usage(error.to_string())
                }
                SettingsError::Store(error) => Failure::failed(error),
            })?,
    };
    let from_the_table = change.is_some_and(|change| change.read_path.is_some())
        && effective.read_path == ReadPath::Materialized;
    let is_unfilled = from_the_table
        && config.history.is_some()
        && job::last_filled(&store, BACKFILL).await?.is_none();
    store.close().await;
    if is_unfilled {
        eprintln!(
            "warning: lists come from the table now, which was never filled from the history: they \
             lack what was used before; recents backfill, or recents settings set read_path auto"
        );
    }
    show(effective, name, json)?;
    Ok(Done::Complete)
}

fn change(name: Name, value: &str) -> Result<Change, Failure> {
    let refused = |no: NoValue| Failure::Usage(format!("`{value}` {no}"));
    let mut change = Change::default();
    match name {
        Name::ReadPath => change.read_path = Some(value.parse().map_err(refused)?),
        Name::DetailsMode => change.details_mode = Some(value.parse().map_err(refused)?),
    }
    Ok(change)
}

fn show(effective: Effective, only: Option<Name>, as_json: bool) -> Result<(), Failure> {
    let all = [
        (Name::ReadPath, "read_path", effective.read_path.name()),
        (
            Name::DetailsMode,
            "details_mode",
            effective.details_mode.name(),
        ),
    ];
    let shown = all
        .into_iter()
        .filter(|(name, ..)| only.is_none_or(|only| only == *name));
    if as_json {
        let object: Map<String, Value> = shown
            .map(|(_, name, value)| (name.into(), json!(value)))
            .collect();
        print(serde_json::to_string_pretty(&object)? + "\n")?;
        return Ok(());
    }
    let rows: Vec<_> = shown
        .map(|(_, name, value)| match only {
            // For scripts.
            Some(_) => vec![value.into()],
            None => vec![name.into(), value.into()],
        })
        .collect();
    print(columns(&rows))?;
    Ok(())
}
