//! Configuration: flag > environment > file > default, each value with where it came from.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::{Table, Value};

use crate::telemetry::trace::{self, LogFormat};

/// The file that is read where no other is named.
pub const DEFAULT_FILE: &str = "recents.toml";
/// The largest pool; more connections than this only queue inside the database.
const MAX_POOL_SIZE: i64 = 1_000;

/// A key of the configuration.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its name in the file, with dots for tables.
    pub name: &'static str,
    /// What it is unless set; `None` for nothing.
    pub default: Option<&'static str>,
    /// What it does, in one line.
    pub about: &'static str,
    /// Whether its value is never shown.
    pub secret: bool,
}

const fn key(name: &'static str, default: Option<&'static str>, about: &'static str) -> Key {
    Key {
        name,
        default,
        about,
        secret: false,
    }
}

const fn secret(name: &'static str, default: Option<&'static str>, about: &'static str) -> Key {
    Key {
        name,
        default,
        about,
        secret: true,
    }
}

/// Every key. A secret one may also be given as a file: `<name>_file`.
pub const KEYS: [Key; 16] = [
    secret(
        "database_url",
        Some("sqlite://recents.db"),
        "where the table lives",
    ),
    key(
        "listen",
        Some("127.0.0.1:8080"),
        "address of the public listener",
    ),
    key(
        "admin_listen",
        Some("127.0.0.1:8081"),
        "address of the admin listener",
    ),
    key(
        "auth",
        Some("none"),
        "who may call: `none` is everyone who can connect",
    ),
    key(
        "allow_unauthenticated",
        Some("false"),
        "`auth = none` on other than loopback addresses",
    ),
    secret(
        "history.url",
        None,
        "where the runs live; the default is database_url",
    ),
    key(
        "history.table",
        None,
        "the table of runs, such as app.saved_run",
    ),
    key("history.key", None, "its key column"),
    key(
        "history.query",
        None,
        "the mapping query: reads from `runs`, returns uses",
    ),
    key(
        "pool_size",
        Some("8"),
        "connections to the database at the most",
    ),
    key(
        "statement_timeout",
        Some("5s"),
        "the longest that one statement may take",
    ),
    key(
        "shutdown_grace",
        Some("30s"),
        "how long a stop waits for requests and writes",
    ),
    key(
        "max_clock_skew",
        Some("5m"),
        "how far ahead of the server's clock a use may be",
    ),
    key(
        "migrate_on_start",
        Some("true"),
        "whether serve brings the schema up to date",
    ),
    key("log.format", Some("text"), "text or json"),
    key(
        "log.level",
        Some("info"),
        "error, warn, info, debug or trace",
    ),
];

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A command-line flag.
    Flag,
    /// An environment variable.
    Environment(String),
    /// The configuration file.
    File(PathBuf),
    /// Not set.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// Why a configuration is refused. One line, without secrets.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct ConfigError {
    place: String,
    problem: String,
}

impl ConfigError {
    /// A refusal of what stands at `place`.
    pub fn new(place: impl fmt::Display, problem: impl fmt::Display) -> Self {
        Self {
            place: place.to_string(),
            problem: problem.to_string(),
        }
    }
}

/// Where the history is and how its runs become uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryConfig {
    /// `postgres://…` or `sqlite://…`.
    pub url: String,
    /// The table of runs, as it is written in SQL.
    pub table: String,
    /// Its key column.
    pub key: String,
    /// The mapping query.
    pub query: String,
}

/// A checked configuration.
#[derive(Clone)]
pub struct Config {
    /// Where the table lives.
    pub database_url: String,
    /// Address of the public listener.
    pub listen: SocketAddr,
    /// Address of the admin listener.
    pub admin_listen: SocketAddr,
    /// The history, where there is one.
    pub history: Option<HistoryConfig>,
    /// Connections to the database at the most.
    pub pool_size: u32,
    /// The longest that one statement may take.
    pub statement_timeout: Duration,
    /// How long a stop waits for requests and writes.
    pub shutdown_grace: Duration,
    /// How far ahead of the server's clock a use may be.
    pub max_clock_skew: Duration,
    /// Whether serve brings the schema up to date.
    pub migrate_on_start: bool,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Which log lines are written.
    pub log_level: String,
    values: Values,
}

type Values = BTreeMap<&'static str, (String, Origin)>;

impl Config {
    /// Puts the configuration together from flags (`(key, value)`), the environment, and a file:
    /// the named one, or [`DEFAULT_FILE`] where that exists.
    ///
    /// # Errors
    /// The first unknown key, bad value or unreadable file.
    pub fn load(
        flags: &[(&'static str, String)],
        environment: &BTreeMap<String, String>,
        file: Option<&Path>,
    ) -> Result<Self, ConfigError> {
        let mut values = Values::new();
        for key in KEYS {
            if let Some(default) = key.default {
                values.insert(key.name, (default.into(), Origin::Default));
            }
        }
        read_file(&mut values, file)?;
        read_environment(&mut values, environment)?;
        for (name, value) in flags {
            values.insert(name, (value.clone(), Origin::Flag));
        }
        Self::check(values)
    }

    fn check(values: Values) -> Result<Self, ConfigError> {
        let read = Reader(&values);
        let database_url: String = read.required("database_url")?;
        let config = Self {
            listen: read.parsed("listen", "an address such as 127.0.0.1:8080")?,
            admin_listen: read.parsed("admin_listen", "an address such as 127.0.0.1:8081")?,
            history: read.history(&database_url)?,
            pool_size: read.pool_size()?,
            statement_timeout: read.duration("statement_timeout")?,
            shutdown_grace: read.duration("shutdown_grace")?,
            max_clock_skew: read.duration("max_clock_skew")?,
            migrate_on_start: read.parsed("migrate_on_start", "true or false")?,
            log_format: match read.required("log.format")?.as_str() {
                "text" => LogFormat::Text,
                "json" => LogFormat::Json,
                _ => return Err(read.bad("log.format", "text or json")),
            },
            log_level: read.required("log.level")?,
            database_url,
            values: values.clone(),
        };
        if trace::check_level(&config.log_level).is_err() {
            return Err(read.bad("log.level", "error, warn, info, debug or trace"));
        }
        if !is_database_url(&config.database_url) {
            return Err(read.bad("database_url", "a postgres:// or sqlite:// URL"));
        }
        match read.required("auth")?.as_str() {
            "none" => {}
            _ => return Err(read.bad("auth", "`none`, the only kind in this version")),
        }
        let open: bool = read.parsed("allow_unauthenticated", "true or false")?;
        for (name, address) in [
            ("listen", config.listen),
            ("admin_listen", config.admin_listen),
        ] {
            if !address.ip().is_loopback() && !open {
                return Err(ConfigError::new(
                    name,
                    format_args!(
                        "`{address}` can be reached from other machines and `auth` is `none`; \
                         listen on 127.0.0.1, or set allow_unauthenticated = true"
                    ),
                ));
            }
        }
        Ok(config)
    }

    /// Every value with where it came from; secrets are masked.
    pub fn explain(&self) -> impl Iterator<Item = (&'static str, String, &Origin)> {
        KEYS.iter().filter_map(|key| {
            let (value, origin) = self.values.get(key.name)?;
            let shown = if key.secret {
                mask(value)
            } else {
                value.clone()
            };
            Some((key.name, shown, origin))
        })
    }

    /// The URL of the store without its password, and where the setting came from.
    pub fn explain_store(&self) -> (String, String) {
        let origin = self
            .values
            .get("database_url")
            .map_or(&Origin::Default, |(_, o)| o);
        (mask(&self.database_url), origin.to_string())
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.explain().map(|(name, value, _)| (name, value)))
            .finish()
    }
}

/// A URL without what may be a password: the user info's second part, and the whole query, which
/// may hold one too.
fn mask(url: &str) -> String {
    let url = url.split_once('?').map_or(url, |(before, _)| before);
    let Some((scheme, rest)) = url.split_once("://") else {
        return "(set)".into();
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    match authority.rsplit_once('@') {
        Some((user_info, host)) => {
            let user = user_info.split(':').next().unwrap_or("");
            let password = if user_info.contains(':') { ":***" } else { "" };
            format!("{scheme}://{user}{password}@{host}{path}")
        }
        None => url.into(),
    }
}

fn is_database_url(url: &str) -> bool {
    ["postgres://", "postgresql://", "sqlite:"]
        .iter()
        .any(|scheme| url.starts_with(scheme))
}

fn read_file(values: &mut Values, file: Option<&Path>) -> Result<(), ConfigError> {
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
                    "is neither text, a number, true nor false",
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
            Value::Table(inner) => flatten(inner, &format!("{prefix}{name}."), flat),
            _ => flat.push((format!("{prefix}{name}"), value.clone())),
        }
    }
}

fn read_environment(
    values: &mut Values,
    environment: &BTreeMap<String, String>,
) -> Result<(), ConfigError> {
    // The name that every other tool uses, below ours.
    if let Some(url) = environment.get("DATABASE_URL") {
        let origin = Origin::Environment("DATABASE_URL".into());
        values.insert("database_url", (url.clone(), origin));
    }
    for key in KEYS {
        let name = format!("RECENTS_{}", key.name.replace('.', "_").to_uppercase());
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

/// Reads typed values, naming key and origin where one is bad.
struct Reader<'a>(&'a Values);

impl Reader<'_> {
    fn optional(&self, name: &str) -> Option<String> {
        self.0.get(name).map(|(value, _)| value.clone())
    }

    fn required(&self, name: &str) -> Result<String, ConfigError> {
        self.optional(name)
            .ok_or_else(|| ConfigError::new(name, "is not set"))
    }

    fn bad(&self, name: &str, expected: &str) -> ConfigError {
        let secret = KEYS.iter().any(|key| key.name == name && key.secret);
        let (value, origin) = match self.0.get(name) {
            Some((value, origin)) => (value.as_str(), origin),
            None => ("", &Origin::Default),
        };
        let value = if secret { "(not shown)" } else { value };
        ConfigError::new(
            name,
            format_args!("`{value}` (from {origin}) is not {expected}"),
        )
    }

    fn parsed<T: std::str::FromStr>(&self, name: &str, expected: &str) -> Result<T, ConfigError> {
        self.required(name)?
            .parse()
            .map_err(|_| self.bad(name, expected))
    }

    fn duration(&self, name: &str) -> Result<Duration, ConfigError> {
        let bad = || self.bad(name, "a time such as 250ms, 5s or 5m");
        let duration = humantime::parse_duration(&self.required(name)?).map_err(|_| bad())?;
        if duration.is_zero() {
            Err(bad())
        } else {
            Ok(duration)
        }
    }

    fn pool_size(&self) -> Result<u32, ConfigError> {
        let size: i64 = self.parsed("pool_size", "a whole number")?;
        if !(1..=MAX_POOL_SIZE).contains(&size) {
            return Err(self.bad("pool_size", "between 1 and 1000"));
        }
        u32::try_from(size).map_err(|_| self.bad("pool_size", "a whole number"))
    }

    fn history(&self, database_url: &str) -> Result<Option<HistoryConfig>, ConfigError> {
        let parts = ["history.table", "history.key", "history.query"];
        let given = parts
            .iter()
            .filter(|part| self.0.contains_key(**part))
            .count();
        if given == 0 {
            return match self.0.contains_key("history.url") {
                true => Err(ConfigError::new(
                    "history",
                    "has a url, but no table, key and query",
                )),
                false => Ok(None),
            };
        }
        if let Some(missing) = parts.iter().find(|part| !self.0.contains_key(**part)) {
            return Err(ConfigError::new(
                missing,
                "is missing; a history needs table, key and query",
            ));
        }
        let url = self
            .optional("history.url")
            .unwrap_or_else(|| database_url.into());
        if !is_database_url(&url) {
            return Err(self.bad("history.url", "a postgres:// or sqlite:// URL"));
        }
        Ok(Some(HistoryConfig {
            url,
            table: self.required("history.table")?,
            key: self.required("history.key")?,
            query: self.required("history.query")?,
        }))
    }
}
