//! Where a backfill's runs come from.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::history::file::FileSource;
use crate::history::{History, HistoryError, Stretches, Unmappable, one_pass, windows};

/// Where the runs come from.
#[derive(Debug, Clone)]
pub enum Origin {
    /// The configured history, by windows of at most this many runs.
    Windows(Arc<History>, u32),
    /// The configured history, in a single stream over one snapshot.
    OnePass(Arc<History>),
    /// A file.
    File(FileSource),
}

impl Origin {
    /// What tells this origin from others, so that a cursor is never applied to another one.
    pub(super) async fn identity(&self) -> Result<String, HistoryError> {
        Ok(match self {
            Self::Windows(history, _) => format!("windows {}", identity_of(history).await?),
            Self::OnePass(history) => format!("one pass {}", identity_of(history).await?),
            Self::File(file) => file.identity()?,
        })
    }

    pub(super) async fn last_key(&self) -> Result<Option<String>, HistoryError> {
        match self {
            Self::Windows(history, _) => history.last_key().await,
            Self::OnePass(_) | Self::File(_) => Ok(None),
        }
    }

    pub(super) async fn total(&self) -> Result<Option<u64>, HistoryError> {
        match self {
            Self::Windows(history, _) | Self::OnePass(history) => history.about_how_many().await,
            Self::File(_) => Ok(None),
        }
    }

    /// The cursor that says that everything was read, of an origin whose stretches have none.
    pub(super) fn end(&self) -> Option<&'static str> {
        matches!(self, Self::OnePass(_)).then_some("end")
    }

    /// Its stretches behind `cursor`; `None` where nothing is there to be read. Windows pass over what
    /// is `unmappable`.
    pub(super) fn stretches(
        self,
        cursor: Option<String>,
        range_end: Option<String>,
        unmappable: &Unmappable,
    ) -> Option<Stretches> {
        Some(match self {
            Self::Windows(history, runs) => {
                windows::walk(history, cursor, range_end?, runs, unmappable.clone())
            }
            // It was read to its end.
            Self::OnePass(_) if cursor.is_some() => return None,
            Self::OnePass(history) => one_pass(history, None, unmappable.clone()),
            Self::File(file) => file.read(cursor.as_deref()),
        })
    }
}

/// What tells a history, with its mapping and the way that it is walked, from others.
pub(in crate::jobs) async fn identity_of(history: &History) -> Result<String, HistoryError> {
    history.look_at_order().await?;
    let mapping = &history.mapping();
    let hash = Sha256::digest(format!(
        "{}\0{}\0{}\0{}\0{} down",
        history.place(),
        mapping.table,
        mapping.key,
        mapping.query,
        history.key_order()
    ));
    let hash: String = hash
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Ok(format!("{} {hash}", mapping.table))
}
