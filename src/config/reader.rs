//! Typed values out of texts.

use std::str::FromStr;
use std::time::Duration;

use crate::cache::CacheSettings;

use super::{ConfigError, DetailsConfig, HistoryConfig, KEYS, Origin, Values, is_database_url};
use crate::settings::{Configured, NoValue, ReadPath, ReadPathChoice};

/// The longest duration; nothing here is meant to last longer.
const MAX_DURATION: Duration = Duration::from_secs(24 * 3_600);
/// The largest cache; more than any machine has is a mistake of units.
const MAX_BYTES: u64 = 1 << 40;
/// The largest pool; more connections than this only queue inside the database.
const MAX_POOL_SIZE: i64 = 1_000;

/// Reads typed values, naming key and origin where one is bad.
pub(super) struct Reader<'a>(pub(super) &'a Values);

impl Reader<'_> {
    pub(super) fn optional(&self, name: &str) -> Option<String> {
        self.0.get(name).map(|(value, _)| value.clone())
    }

    pub(super) fn required(&self, name: &str) -> Result<String, ConfigError> {
        self.optional(name)
            .ok_or_else(|| ConfigError::new(name, "is not set"))
    }

    pub(super) fn bad(&self, name: &str, expected: &str) -> ConfigError {
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

    pub(super) fn parsed<T: std::str::FromStr>(
        &self,
        name: &str,
        expected: &str,
    ) -> Result<T, ConfigError> {
        self.required(name)?
            .parse()
            .map_err(|_| self.bad(name, expected))
    }

    pub(super) fn duration(&self, name: &str) -> Result<Duration, ConfigError> {
        let bad = || self.bad(name, "a time such as 250ms, 5s or 5m, a day at the most");
        let duration = humantime::parse_duration(&self.required(name)?).map_err(|_| bad())?;
        if duration.is_zero() || duration > MAX_DURATION {
            Err(bad())
        } else {
            Ok(duration)
        }
    }

    /// A number of bytes, such as `64MiB`.
    pub(super) fn bytes(&self, name: &str) -> Result<u64, ConfigError> {
        let text = self.required(name)?;
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let unit = match text[digits.len()..].trim() {
            "" | "B" => Some(1),
            "KiB" => Some(1 << 10),
            "MiB" => Some(1 << 20),
            "GiB" => Some(1 << 30),
            _ => None,
        };
        let number = digits.parse::<u64>().ok();
        let bytes = number
            .zip(unit)
            .and_then(|(number, unit)| number.checked_mul(unit));
        bytes
            .filter(|bytes| *bytes <= MAX_BYTES)
            .ok_or_else(|| self.bad(name, "a number of bytes such as 0, 512KiB, 64MiB or 2GiB"))
    }

    pub(super) fn cache(&self) -> Result<CacheSettings, ConfigError> {
        Ok(CacheSettings {
            capacity: self.bytes("cache.capacity")?,
            ttl: self.duration("cache.ttl")?,
            stale_if_error: self.duration("cache.stale_if_error")?,
        })
    }

    pub(super) fn pool_size(&self) -> Result<u32, ConfigError> {
        let size: i64 = self.parsed("pool_size", "a whole number")?;
        if !(1..=MAX_POOL_SIZE).contains(&size) {
            return Err(self.bad("pool_size", "between 1 and 1000"));
        }
        u32::try_from(size).map_err(|_| self.bad("pool_size", "a whole number"))
    }

    fn chosen<T: FromStr<Err = NoValue>>(&self, name: &str) -> Result<T, ConfigError> {
        let chosen = self.required(name)?.parse();
        chosen.map_err(|no: NoValue| self.bad(name, no.among()))
    }

    pub(super) fn settings(&self, has_history: bool) -> Result<Configured, ConfigError> {
        let force_read_path: Option<ReadPath> = match self.optional("force_read_path") {
            Some(_) => Some(self.chosen("force_read_path")?),
            None => None,
        };
        let read_path: ReadPathChoice = self.chosen("read_path")?;
        for (name, needs_history) in [
            ("read_path", read_path.needs_history()),
            (
                "force_read_path",
                force_read_path.is_some_and(ReadPath::needs_history),
            ),
        ] {
            if needs_history && !has_history {
                return Err(self.bad(name, "possible without a [history] to read from"));
            }
        }
        Ok(Configured {
            read_path,
            force_read_path,
            details_mode: self.chosen("details.mode")?,
            has_history,
        })
    }

    pub(super) fn details(&self, url: Option<&str>) -> Result<Option<DetailsConfig>, ConfigError> {
        let ttl = self.duration("details.ttl")?;
        let Some(query) = self.optional("details.query") else {
            return Ok(None);
        };
        if !query.contains("$1") {
            let problem = "does not use $1, the array of the published runs that are asked for";
            return Err(ConfigError::new("details.query", problem));
        }
        let url = url.ok_or_else(|| needs_direct("details.query"))?.into();
        Ok(Some(DetailsConfig { url, query, ttl }))
    }

    /// `direct` is a connection to the database of the table past any transaction pooler.
    pub(super) fn history(
        &self,
        direct: Option<&str>,
    ) -> Result<Option<HistoryConfig>, ConfigError> {
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
        let url = self.optional("history.url").or(direct.map(Into::into));
        let url = url.ok_or_else(|| needs_direct("history.url"))?;
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

fn needs_direct(name: &str) -> ConfigError {
    let problem =
        "needs a direct connection where transaction_pooler is true; name one in listen_url";
    ConfigError::new(name, problem)
}
