//! Where values come from: the file and the environment.

use std::collections::BTreeMap;
use std::path::Path;

use toml::{Table, Value};

use super::{ConfigError, DEFAULT_FILE, KEYS, Key, Origin, Values};

/// The name that every other tool uses for `database_url`.
const OF_EVERY_TOOL: &str = "DATABASE_URL";

/// Reads the named file, or [`DEFAULT_FILE`] where that exists.
pub(super) fn read_file(values: &mut Values, file: Option<&Path>) -> Result<(), ConfigError> {
    let path = file.unwrap_or(Path::new(DEFAULT_FILE));
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if file.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(());
        }
        Err(error) => {
            return Err(ConfigError::new(
                path.display(),
                format_args!("cannot be read: {error}"),
            ));
        }
    };
    let table: Table = text.parse().map_err(|error: toml::de::Error| {
        let before = error.span().and_then(|at| text.get(..at.start));
        let line = before.unwrap_or("").matches('\n').count() + 1;
        ConfigError::new(
            path.display(),
            format_args!("line {line}: {}", error.message()),
        )
    })?;
    let mut flat = Vec::new();
    flatten(&table, "", &mut flat);
    for (name, value) in flat {
        let known = known(&name).ok_or_else(|| {
            ConfigError::new(path.display(), format_args!("unknown key `{name}`"))
        })?;
        let text = match value {
            Value::String(text) => text,
            Value::Integer(_) | Value::Boolean(_) => value.to_string(),
            _ => {
                let place = format_args!("{}: {name}", path.display()).to_string();
                return Err(ConfigError::new(
                    place,
                    "is neither text, a whole number, true nor false",
                ));
            }
        };
        set(values, known, text, Origin::File(path.to_owned()))?;
    }
    Ok(())
}

fn flatten(table: &Table, prefix: &str, flat: &mut Vec<(String, Value)>) {
    for (name, value) in table {
        match value {
            // One without keys, whose name is none of a table of ours, is as unknown as a key.
            Value::Table(inner) if !inner.is_empty() || has_keys(prefix, name) => {
                flatten(inner, &format!("{prefix}{name}."), flat);
            }
            _ => flat.push((format!("{prefix}{name}"), value.clone())),
        }
    }
}

/// Whether there are keys in a table of this name.
fn has_keys(prefix: &str, name: &str) -> bool {
    let of_table = |key: &Key| {
        let rest = key.name.strip_prefix(prefix);
        let rest = rest.and_then(|rest| rest.strip_prefix(name));
        rest.is_some_and(|rest| rest.starts_with('.'))
    };
    KEYS.iter().any(of_table)
}

/// Reads `RECENTS_…` and `DATABASE_URL`.
pub(super) fn read_environment(
    values: &mut Values,
    environment: &BTreeMap<String, String>,
) -> Result<(), ConfigError> {
    // Below ours.
    if let Some(url) = environment.get(OF_EVERY_TOOL) {
        let origin = Origin::Environment(OF_EVERY_TOOL.into());
        values.insert("database_url", (url.clone(), origin));
    }
    for key in KEYS {
        let name = key.variable();
        for (name, of_file) in [(name.clone(), false), (format!("{name}_FILE"), true)] {
            if let Some(value) = environment.get(&name)
                && (key.secret || !of_file)
            {
                let origin = Origin::Environment(name);
                set(values, (key, of_file), value.clone(), origin)?;
            }
        }
    }
    Ok(())
}

/// The key of that name, and whether the name is that of a file with its value.
fn known(name: &str) -> Option<(Key, bool)> {
    let named = |name: &str| KEYS.into_iter().find(|key| key.name == name);
    let of_file = || {
        name.strip_suffix("_file")
            .and_then(named)
            .filter(|key| key.secret)
    };
    named(name)
        .map(|key| (key, false))
        .or_else(|| of_file().map(|key| (key, true)))
}

fn set(
    values: &mut Values,
    (key, of_file): (Key, bool),
    value: String,
    origin: Origin,
) -> Result<(), ConfigError> {
    let twice = match (values.get(key.name), &origin) {
        (Some((_, Origin::File(_))), Origin::File(_)) => true,
        (Some((_, Origin::Environment(before))), Origin::Environment(_)) => before != OF_EVERY_TOOL,
        _ => false,
    };
    if twice {
        let problem = format_args!(
            "is given twice (from {origin}): itself, and by {}_file",
            key.name
        );
        return Err(ConfigError::new(key.name, problem));
    }
    let value = if of_file {
        let read = std::fs::read_to_string(&value).map_err(|error| {
            ConfigError::new(
                format_args!("{}_file", key.name),
                format_args!("cannot read `{value}`: {error}"),
            )
        })?;
        read.trim_end().to_owned()
    } else {
        value
    };
    values.insert(key.name, (value, origin));
    Ok(())
}

/// Whether an environment variable of that name sets a key.
pub fn is_variable(name: &str) -> bool {
    let sets = |key: &Key| {
        let own = key.variable();
        name == own || (key.secret && name.strip_suffix("_FILE") == Some(&own))
    };
    name == OF_EVERY_TOOL || KEYS.iter().any(sets)
}

/// Environment variables that look like keys and are none. They do not stop a start: an
/// orchestrator names variables after its services (`RECENTS_PORT`).
pub(super) fn unknown(environment: &BTreeMap<String, String>) -> Vec<String> {
    let unknown = |name: &&String| {
        name.starts_with("RECENTS_") && *name != "RECENTS_CONFIG" && !is_variable(name)
    };
    environment.keys().filter(unknown).cloned().collect()
}
