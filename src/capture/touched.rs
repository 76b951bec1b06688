//! What waiting notes are about: it is looked at again, and may be right then.

use std::collections::HashSet;

use super::outbox::{self, Notes};
use crate::check::CheckError;
use crate::history::History;
use crate::model::Key;
use crate::store::note::{self, Note};
use crate::store::{Store, identity};

/// Notes that are read together.
const NOTES: u32 = 10_000;

/// Runs and rows that are asked for; then those of them that waiting notes are about.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    runs: HashSet<String>,
    keys: HashSet<Key>,
    everything: bool,
}

impl Touched {
    /// Asks for a row, and for a run that it names or should.
    pub(crate) fn ask(&mut self, key: &Key, run: Option<&str>) {
        self.keys.insert(key.clone());
        self.runs.extend(run.map(ToOwned::to_owned));
    }

    /// Whether a note is about this row or this run.
    pub(crate) fn is(&self, key: &Key, run: Option<&str>) -> bool {
        self.everything || self.keys.contains(key) || run.is_some_and(|run| self.runs.contains(run))
    }

    /// Those of what was asked for that the notes of now are about, those that a drain holds included. Reads
    /// all of them, bounded at a time.
    ///
    /// # Errors
    /// [`CheckError`] where they cannot be read.
    pub(crate) async fn by_notes(
        self,
        store: &Store,
        history: &History,
    ) -> Result<Self, CheckError> {
        let mut touched = Self::default();
        let identity = identity::of(store).await?;
        // First, because its notes become notes of the table.
        if Notes::of(history, &identity).await? == Notes::Ours {
            touched.everything = outbox::each_run(history, |run| {
                if self.runs.contains(run) {
                    touched.runs.insert(run.to_owned());
                }
            })
            .await?;
        }
        let (mut behind, mut more) = (0, true);
        // Up to the end: what a drain makes of a note meanwhile is newer.
        while more {
            let notes = note::waiting(store, behind, NOTES).await?;
            more = notes.len() >= NOTES as usize;
            behind = notes.last().map_or(behind, |(last, _)| *last);
            for (_, note) in notes {
                match note {
                    Note::Run(run) if self.runs.contains(&*run) => {
                        touched.runs.insert(run.into());
                    }
                    Note::Key(key) if self.keys.contains(&key) => {
                        touched.keys.insert(key);
                    }
                    Note::Run(_) | Note::Key(_) => {}
                }
            }
        }
        Ok(touched)
    }
}
