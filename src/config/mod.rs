//! Configuration: flag > environment > file > default, each value with where it came from.

mod keys;
mod reader;
mod sources;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cache::CacheSettings;
use crate::settings::Configured;
use crate::telemetry::trace::{self, LogFormat};
use reader::Reader;

pub use keys::{KEYS, Key};
pub use sources::is_variable;

/// The file that is read where no other is named.
pub const DEFAULT_FILE: &str = "recents.toml";

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

/// Where the details of items come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetailsConfig {
    /// The history's URL, or the store's where there is no history.
    pub url: String,
    /// The query.
    pub query: String,
    /// How long details are remembered.
    pub ttl: Duration,
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
    /// How answers are kept.
    pub cache: CacheSettings,
    /// A streaming replica to read from.
    pub read_database_url: Option<String>,
    /// Where changes of other processes are heard; `None` behind a transaction pooler, unless it is given.
    pub listen_url: Option<String>,
    /// The details, where there are some.
    pub details: Option<DetailsConfig>,
    /// The settings that change at run time, as they are first.
    pub settings: Configured,
    /// Whether `database_url` goes through a transaction pooler.
    pub transaction_pooler: bool,
    /// A query of the history's database that says true while re-syncs have to wait.
    pub resync_pause_while: Option<String>,
    /// Whether the table is held against the history all the time.
    pub audit: bool,
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
    /// Environment variables that look like keys and are none.
    pub unknown_environment: Vec<String>,
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
        sources::read_file(&mut values, file)?;
        sources::read_environment(&mut values, environment)?;
        for (name, value) in flags {
            values.insert(name, (value.clone(), Origin::Flag));
        }
        Ok(Self {
            unknown_environment: sources::unknown(environment),
            ..Self::check(values)?
        })
    }

    fn check(values: Values) -> Result<Self, ConfigError> {
        let read = Reader(&values);
        let database_url: String = read.required("database_url")?;
        if !is_database_url(&database_url) {
            return Err(read.bad("database_url", "a postgres:// or sqlite:// URL"));
        }
        let transaction_pooler = read.parsed("transaction_pooler", "true or false")?;
        // The application's queries are sent as they are, which a transaction pooler does not bear.
        let direct = match transaction_pooler {
            true => read.optional("listen_url"),
            false => Some(database_url.clone()),
        };
        let history = read.history(direct.as_deref())?;
        let mut config = Self {
            settings: read.settings(history.is_some())?,
            listen: read.parsed("listen", "an address such as 127.0.0.1:8080")?,
            admin_listen: read.parsed("admin_listen", "an address such as 127.0.0.1:8081")?,
            cache: read.cache()?,
            read_database_url: read.optional("read_database_url"),
            listen_url: read.optional("listen_url"),
            details: read.details(match &history {
                Some(history) => Some(&history.url),
                None => direct.as_deref(),
            })?,
            history,
            transaction_pooler,
            resync_pause_while: read.optional("resync.pause_while"),
            audit: read.parsed("audit", "true or false")?,
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
            unknown_environment: Vec::new(),
            values: values.clone(),
        };
        let is_postgres = |url: &String| url.starts_with("postgres");
        if config.read_database_url.is_some()
            && !(is_postgres(&config.database_url)
                && config.read_database_url.as_ref().is_some_and(is_postgres))
        {
            return Err(read.bad(
                "read_database_url",
                "a replica of a PostgreSQL in database_url",
            ));
        }
        match &config.listen_url {
            Some(url) if !is_database_url(url) => {
                return Err(read.bad("listen_url", "a postgres:// URL"));
            }
            None if !config.transaction_pooler => {
                config.listen_url = Some(config.database_url.clone());
            }
            _ => {}
        }
        if !trace::is_level(&config.log_level) {
            return Err(read.bad("log.level", "error, warn, info, debug or trace"));
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
        let (url, origin) = match self.values.get("database_url") {
            Some((url, origin)) => (url.as_str(), origin),
            None => ("", &Origin::Default),
        };
        (mask(url), origin.to_string())
    }

    /// The same of the history, which is in the store unless it has a URL of its own.
    pub fn explain_history(&self) -> (String, String) {
        match self.values.get("history.url") {
            Some((url, origin)) => (mask(url), origin.to_string()),
            None => self.explain_store(),
        }
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
/// may hold one too. A password may have been written as it is, with characters that end a part of
/// a proper URL.
fn mask(url: &str) -> String {
    let (before, query) = url.split_once('?').unwrap_or((url, ""));
    let Some((scheme, rest)) = before.split_once("://") else {
        return "(set)".into();
    };
    if query.contains('@') {
        return format!("{scheme}://***");
    }
    match rest.rsplit_once('@') {
        Some((user_info, host)) => {
            let user = user_info.split(':').next().unwrap_or("");
            let password = if user_info.contains(':') { ":***" } else { "" };
            format!("{scheme}://{user}{password}@{host}")
        }
        None => before.into(),
    }
}

fn is_database_url(url: &str) -> bool {
    ["postgres://", "postgresql://", "sqlite:"]
        .iter()
        .any(|scheme| url.starts_with(scheme))
}
