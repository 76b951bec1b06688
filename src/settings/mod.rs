//! Settings that change while the service runs. What is stored counts; the configuration only says
//! what is stored first.

mod values;

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::Mutex;
use utoipa::ToSchema;

use crate::jobs::BACKFILL;
use crate::store::setting::{self, Stored};
use crate::store::{Store, StoreError, with_retries};
use crate::telemetry::{Metrics, chain};
pub use values::{DetailsMode, NoValue, ReadPath, ReadPathChoice};

/// A statement takes milliseconds; a database that says nothing for so long is gone.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What the configuration says of the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Configured {
    /// The first `read_path`.
    pub read_path: ReadPathChoice,
    /// The one that beats whatever is stored.
    pub force_read_path: Option<ReadPath>,
    /// The first `details_mode`.
    pub details_mode: DetailsMode,
    /// Whether there is a history to read from; without one `auto` is the table.
    pub has_history: bool,
}

/// What holds now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct Effective {
    /// Where lists are read from.
    pub read_path: ReadPath,
    /// How details are asked for.
    pub details_mode: DetailsMode,
}

/// What is to be set; `None` leaves a setting as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Change {
    /// Where lists are to be read from.
    pub read_path: Option<ReadPathChoice>,
    /// How details are to be asked for.
    pub details_mode: Option<DetailsMode>,
}

/// Why a setting was not changed.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The configuration forces the read path.
    #[error(
        "the configuration forces the read path `{}`; start without force_read_path to change it",
        .0.name()
    )]
    Forced(ReadPath),
    /// There is no history to read from.
    #[error("`{}` is not possible without a [history] to read from", .0.name())]
    NoHistory(ReadPathChoice),
    /// It could not be stored.
    #[error(transparent)]
    Store(#[from] StoreError),
}

const READ_PATH: &str = "read_path";
const DETAILS_MODE: &str = "details_mode";

impl Change {
    /// Names and values, in the one order in which they are written.
    fn values(self) -> Vec<(&'static str, &'static str)> {
        let read_path = self.read_path.map(|choice| (READ_PATH, choice.name()));
        let details_mode = self.details_mode.map(|mode| (DETAILS_MODE, mode.name()));
        read_path.into_iter().chain(details_mode).collect()
    }
}

impl Configured {
    fn effective(&self, stored: &Stored) -> Effective {
        let choice = value_of(stored, READ_PATH).unwrap_or(self.read_path);
        let chosen = match choice {
            // Stored by a service that has a history.
            _ if !self.has_history => ReadPath::Materialized,
            ReadPathChoice::Always(path) => path,
            ReadPathChoice::Auto if !stored.filled => ReadPath::History,
            ReadPathChoice::Auto => ReadPath::Materialized,
        };
        Effective {
            read_path: self.force_read_path.unwrap_or(chosen),
            details_mode: value_of(stored, DETAILS_MODE).unwrap_or(self.details_mode),
        }
    }
}

/// What is stored of a setting. A value of a newer version is as good as none.
fn value_of<T: FromStr>(stored: &Stored, name: &str) -> Option<T> {
    stored.values.get(name)?.parse().ok()
}

/// What holds according to the database, on which nothing else need run.
///
/// # Errors
/// [`StoreError`].
pub async fn load(store: &Store, configured: &Configured) -> Result<Effective, StoreError> {
    Ok(configured.effective(&stored(store).await?))
}

/// A stored value that this version does not know.
#[derive(Debug)]
pub(crate) struct Unknown {
    /// The setting.
    pub(crate) name: &'static str,
    /// Its value.
    pub(crate) value: String,
    /// The value that it has first, unless the configuration says otherwise.
    pub(crate) first: &'static str,
}

/// The stored values that are as good as none.
pub(crate) async fn unknown(store: &Store) -> Result<Vec<Unknown>, StoreError> {
    let stored = stored(store).await?;
    let is_known = |name: &str, value: &str| match name {
        READ_PATH => value.parse::<ReadPathChoice>().is_ok(),
        _ => value.parse::<DetailsMode>().is_ok(),
    };
    let first = [
        (READ_PATH, ReadPathChoice::Auto.name()),
        (DETAILS_MODE, DetailsMode::Batched.name()),
    ];
    let unknown = first.into_iter().filter_map(|(name, first)| {
        let value = stored.values.get(name)?.clone();
        (!is_known(name, &value)).then_some(Unknown { name, value, first })
    });
    Ok(unknown.collect())
}

async fn stored(store: &Store) -> Result<Stored, StoreError> {
    within_time(with_retries(|| setting::all(store, BACKFILL))).await
}

/// Stores a change, all of it or nothing, and returns what holds then. Every service on the database
/// follows within five seconds.
///
/// # Errors
/// [`SettingsError`]. Where the database went away, it may be stored all the same; the same again
/// changes nothing twice.
pub async fn set(
    store: &Store,
    configured: &Configured,
    change: Change,
) -> Result<Effective, SettingsError> {
    if let (Some(forced), Some(_)) = (configured.force_read_path, change.read_path) {
        return Err(SettingsError::Forced(forced));
    }
    if let Some(choice) = change.read_path
        && choice.needs_history()
        && !configured.has_history
    {
        return Err(SettingsError::NoHistory(choice));
    }
    let values = change.values();
    within_time(with_retries(|| setting::set(store, &values))).await?;
    Ok(load(store, configured).await?)
}

async fn within_time<T>(
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let timed = tokio::time::timeout(TIMEOUT, work).await;
    timed.unwrap_or(Err(StoreError::Unavailable(sqlx::Error::PoolTimedOut)))
}

/// The settings of a running service: read at the cost of an atomic, kept up to date by
/// [`Settings::refresh`].
#[derive(Debug)]
pub struct Settings {
    configured: Configured,
    read_path: AtomicU8,
    details_mode: AtomicU8,
    /// Whether what is stored needs a history, and there is none here.
    cannot_follow: AtomicBool,
    /// Held while the database is asked: an answer from before a change never overwrites it.
    turn: Mutex<()>,
    metrics: Arc<Metrics>,
}

impl Settings {
    /// The settings before the database said anything: the configured ones.
    pub fn new(configured: Configured, metrics: Arc<Metrics>) -> Self {
        let effective = configured.effective(&Stored::default());
        metrics.set_read_path(effective.read_path);
        Self {
            configured,
            read_path: AtomicU8::new(effective.read_path as u8),
            details_mode: AtomicU8::new(effective.details_mode as u8),
            cannot_follow: AtomicBool::new(false),
            turn: Mutex::new(()),
            metrics,
        }
    }

    /// Where lists are read from. Who has no history reads the table, whatever is stored.
    pub fn read_path(&self) -> ReadPath {
        let number = usize::from(self.read_path.load(Ordering::Relaxed));
        // Only numbers of values are stored.
        *ReadPath::ALL.get(number).unwrap_or(&ReadPath::Materialized)
    }

    /// How details are asked for.
    pub fn details_mode(&self) -> DetailsMode {
        let number = usize::from(self.details_mode.load(Ordering::Relaxed));
        *DetailsMode::ALL.get(number).unwrap_or(&DetailsMode::Off)
    }

    /// Whether lists are read from the history, whatever anybody says.
    pub fn needs_no_table(&self) -> bool {
        self.configured.force_read_path == Some(ReadPath::History)
    }

    /// What holds now.
    pub fn effective(&self) -> Effective {
        Effective {
            read_path: self.read_path(),
            details_mode: self.details_mode(),
        }
    }

    /// Stores what is configured where nothing is stored yet, and follows what is.
    ///
    /// # Errors
    /// [`StoreError`]; the settings stay what they were.
    pub async fn start(&self, store: &Store) -> Result<(), StoreError> {
        let stored = match stored(store).await {
            // Whoever forces the read path may do so because tables are gone.
            Err(StoreError::Unmigrated(_)) if self.configured.force_read_path.is_some() => {
                return Ok(());
            }
            stored => stored?,
        };
        let configured = Change {
            read_path: Some(self.configured.read_path),
            details_mode: Some(self.configured.details_mode),
        };
        let mut first = configured.values();
        first.retain(|(name, _)| !stored.values.contains_key(*name));
        if !first.is_empty() {
            let store_first = with_retries(|| setting::set_first(store, &first));
            if let Err(error) = within_time(store_first).await {
                // Who may only read serves lists all the same.
                let error = chain(&error);
                tracing::warn!(
                    error,
                    "the settings could not be stored; they are as configured"
                );
            }
        }
        self.refresh(store).await
    }

    /// Follows what is stored.
    ///
    /// # Errors
    /// [`StoreError`]; the settings stay what they were.
    pub async fn refresh(&self, store: &Store) -> Result<(), StoreError> {
        let _turn = self.turn.lock().await;
        let stored = stored(store).await?;
        self.take(self.configured.effective(&stored));
        let choice: Option<ReadPathChoice> = value_of(&stored, READ_PATH);
        let cannot_follow =
            !self.configured.has_history && choice.is_some_and(ReadPathChoice::needs_history);
        let could_not = self.cannot_follow.swap(cannot_follow, Ordering::Relaxed);
        if cannot_follow && !could_not {
            tracing::warn!("there is no [history] to read from; lists come from the table");
        }
        Ok(())
    }

    /// As [`set`], and follows at once.
    ///
    /// # Errors
    /// As [`set`].
    pub async fn set(&self, store: &Store, change: Change) -> Result<Effective, SettingsError> {
        let _turn = self.turn.lock().await;
        let effective = set(store, &self.configured, change).await?;
        self.take(effective);
        Ok(effective)
    }

    fn take(&self, effective: Effective) {
        let Effective {
            read_path,
            details_mode,
        } = effective;
        if effective == self.effective() {
            return;
        }
        self.read_path.store(read_path as u8, Ordering::Relaxed);
        self.details_mode
            .store(details_mode as u8, Ordering::Relaxed);
        self.metrics.set_read_path(read_path);
        let (read_path, details_mode) = (read_path.name(), details_mode.name());
        tracing::info!(read_path, details_mode, "the settings changed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIGURED: Configured = Configured {
        read_path: ReadPathChoice::Auto,
        force_read_path: None,
        details_mode: DetailsMode::Batched,
        has_history: true,
    };

    fn stored(values: &[(&str, &str)], filled: bool) -> Stored {
        let values = values
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()));
        Stored {
            values: values.collect(),
            filled,
        }
    }

    #[test]
    fn auto_is_the_history_until_the_first_backfill_succeeded_and_only_where_there_is_one() {
        let path = |has_history, succeeded| {
            let configured = Configured {
                has_history,
                ..CONFIGURED
            };
            configured.effective(&stored(&[], succeeded)).read_path
        };
        assert_eq!(path(true, false), ReadPath::History);
        assert_eq!(path(true, true), ReadPath::Materialized);
        assert_eq!(path(false, false), ReadPath::Materialized);
        let auto = stored(&[(READ_PATH, "auto")], false);
        assert_eq!(CONFIGURED.effective(&auto).read_path, ReadPath::History);
    }

    #[test]
    fn what_needs_a_history_is_the_table_where_there_is_none() {
        let configured = Configured {
            has_history: false,
            ..CONFIGURED
        };
        for path in ["history", "shadow", "materialized"] {
            let stored = stored(&[(READ_PATH, path)], false);
            let effective = configured.effective(&stored);
            assert_eq!(effective.read_path, ReadPath::Materialized, "{path}");
        }
    }

    #[test]
    fn what_is_forced_beats_what_is_stored_which_beats_what_is_configured() {
        let configured = Configured {
            read_path: ReadPathChoice::Always(ReadPath::Shadow),
            ..CONFIGURED
        };
        let nothing = configured.effective(&stored(&[], true));
        assert_eq!(nothing.read_path, ReadPath::Shadow);
        let values = stored(&[(READ_PATH, "history"), (DETAILS_MODE, "off")], true);
        let effective = configured.effective(&values);
        assert_eq!(effective.read_path, ReadPath::History);
        assert_eq!(effective.details_mode, DetailsMode::Off);
        let forced = Configured {
            force_read_path: Some(ReadPath::Materialized),
            ..configured
        };
        assert_eq!(forced.effective(&values).read_path, ReadPath::Materialized);
    }

    #[test]
    fn a_value_that_this_version_does_not_know_is_as_good_as_none() {
        let newer = stored(&[(READ_PATH, "telepathy"), (DETAILS_MODE, "guessed")], true);
        let effective = CONFIGURED.effective(&newer);
        assert_eq!(effective, CONFIGURED.effective(&stored(&[], true)));
    }
}
