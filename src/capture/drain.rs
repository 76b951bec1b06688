//! The drain: takes notes, looks at the history again, and makes the table what it says.
//!
//! Any number of them work at the same time, without leases and in any order: PROTOCOL, in short, is
//! 1 take notes, 2 read the history, 3 write rows with new notes, 4 let the notes go.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::decide::{Change, LookAgain, is_unsupported};
use super::outbox::{self, Taken};
use super::position::Position;
use crate::check::CheckError;
use crate::check::look::{self, Uses};
use crate::history::{History, HistoryError};
use crate::model::{Key, Newest};
use crate::record::Fold;
use crate::store::note::{self, Note};
use crate::store::recent::{self, MAX_KEYS, Swap};
use crate::store::{Store, StoreError, Tx, sweep, with_retries};
use crate::telemetry::{Metrics, metrics::Source};

/// Notes of the table that are taken together: few enough that PostgreSQL looks them up by index also
/// in a history of some ten thousand runs.
const NOTES: u32 = 500;
/// So many, when that many batches in a row were full, as behind a backfill: whoever has so many notes
/// has a long history, and each look-up has a cost of its own.
const MANY_NOTES: u32 = 4_000;
const FULL_BATCHES: u32 = 4;
/// A drain of a command waits so long for notes that another one took.
const SETTLE_WITHIN: Duration = Duration::from_secs(10);
/// Notes lead to notes: a row that went down is looked at again, and rises, and its run is looked at.
const GENERATIONS: usize = 4;
/// How often it looks whether they are gone.
const SETTLE_EVERY: Duration = Duration::from_millis(100);

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// There was nothing to do.
    Idle,
    /// Notes were worked off; there may be more.
    Worked,
}

/// Drains the notes of one table and one history.
#[derive(Debug)]
pub struct Drain {
    store: Store,
    history: Arc<History>,
    metrics: Option<Arc<Metrics>>,
    outbox: Position,
    notes: Position,
    /// Full batches of notes in a row.
    full: u32,
    /// Whether the last step computed rows, which may have taken long: now it is the outbox's turn.
    computed: bool,
}

/// What was taken, and must be looked at.
#[derive(Default)]
struct Noted {
    runs: Vec<String>,
    keys: Vec<Key>,
}

impl Drain {
    /// A drain at the start.
    pub fn new(store: Store, history: Arc<History>, metrics: Option<Arc<Metrics>>) -> Self {
        Self {
            store,
            history,
            metrics,
            outbox: Position::new(),
            notes: Position::new(),
            full: 0,
            computed: false,
        }
    }

    /// Works off some notes: those of the history's outbox where `with_outbox`, and those of the
    /// table.
    ///
    /// # Errors
    /// [`CheckError`]; the notes stay.
    pub async fn step(&mut self, with_outbox: bool) -> Result<Step, CheckError> {
        let mut outbox = None;
        if with_outbox && self.computed {
            outbox = outbox::take(&self.history, &mut self.outbox).await?;
        }
        let (mut holding, notes) = match &outbox {
            Some(_) => (None, Vec::new()),
            None => self.take_notes().await?,
        };
        let outbox_had_its_turn = std::mem::take(&mut self.computed);
        // Computing rows may read much of the history. No transaction stays open meanwhile: two
        // drains may do the same then, which only costs.
        self.computed = notes.iter().any(|(_, note)| matches!(note, Note::Key(_)));
        if self.computed {
            holding = None;
        } else if with_outbox && !outbox_had_its_turn {
            outbox = outbox::take(&self.history, &mut self.outbox).await?;
        }
        if outbox.is_none() && notes.is_empty() {
            return Ok(Step::Idle);
        }
        let ids: Vec<i64> = notes.iter().map(|(id, _)| *id).collect();
        let noted = Noted::of(outbox.as_ref(), notes);
        if outbox.as_ref().is_some_and(|taken| taken.everything) {
            self.note_everything().await?;
        }
        self.look_again(noted).await?;
        // What the notes led to is committed: now they may go.
        self.let_go(holding, &ids).await?;
        if let Some(outbox) = outbox {
            outbox.let_go().await?;
        }
        Ok(Step::Worked)
    }

    /// In PostgreSQL the notes are locked, so that no other drain does the same work meanwhile; in
    /// SQLite that would lock out every writer, and where there is but one connection, ourselves.
    async fn take_notes(&mut self) -> Result<(Option<Tx>, Vec<(i64, Note)>), StoreError> {
        let (behind, _) = self.notes.next();
        let limit = match self.full {
            ..FULL_BATCHES => NOTES,
            _ => MANY_NOTES,
        };
        let (holding, notes) = match &self.store {
            Store::Postgres(pool) if pool.options().get_max_connections() > 1 => {
                let mut tx = self.store.begin().await?;
                let notes = note::take(tx.conn(), behind, limit).await?;
                ((!notes.is_empty()).then_some(tx), notes)
            }
            _ => {
                let mut conn = self.store.acquire().await?;
                (None, note::take(conn.conn(), behind, limit).await?)
            }
        };
        let last = notes.last().map(|(id, _)| *id);
        let is_full = notes.len() >= limit as usize;
        self.full = if is_full {
            self.full.saturating_add(1)
        } else {
            0
        };
        let more = last.filter(|_| is_full);
        self.notes.read(notes.iter().map(|(id, _)| *id), more);
        Ok((holding, notes))
    }

    async fn let_go(&self, holding: Option<Tx>, ids: &[i64]) -> Result<(), StoreError> {
        match holding {
            Some(mut tx) => {
                note::let_go(tx.conn(), ids).await?;
                tx.commit().await
            }
            None => {
                with_retries(async || note::let_go(self.store.acquire().await?.conn(), ids).await)
                    .await
            }
        }
    }

    async fn note_everything(&self) -> Result<(), StoreError> {
        with_retries(async || {
            let mut tx = self.store.begin().await?;
            note::everything(&mut tx).await?;
            tx.commit().await
        })
        .await
    }

    async fn look_again(&self, noted: Noted) -> Result<(), CheckError> {
        let seen = self.rows_of(&noted.keys).await?;
        let said = self.map(&noted.runs).await?;
        let best = self.best(&noted.keys).await?;
        let mut fold = Fold::default();
        said.uses()
            .for_each(|(key, newest)| fold.raise(key, newest));
        for (key, newest) in self.settle(&noted, &seen, &said, best).await? {
            fold.raise(&key, &newest);
        }
        let mut applied = 0;
        for chunk in fold.into_sorted().chunks(MAX_KEYS) {
            let raised = with_retries(|| self.raise(chunk)).await?;
            applied += raised.iter().filter(|key| key.is_workspace_list()).count();
        }
        if let Some(metrics) = &self.metrics {
            let (runs, uses, applied) =
                (noted.runs.len() as u64, said.len() as u64, applied as u64);
            metrics.count_runs(Source::Capture, "applied", applied);
            metrics.count_runs(Source::Capture, "superseded", uses.saturating_sub(applied));
            metrics.count_runs(Source::Capture, "skipped", runs.saturating_sub(uses));
        }
        Ok(())
    }

    /// The rows of these keys, before the history is read.
    async fn rows_of(&self, keys: &[Key]) -> Result<HashMap<Key, Newest>, StoreError> {
        if keys.is_empty() {
            return Ok(HashMap::new());
        }
        let rows = with_retries(|| recent::rows_of_keys(&self.store, keys.iter())).await?;
        Ok(rows.into_iter().collect())
    }

    /// What these runs say now. Those whose mapping fails are set aside, and say nothing.
    async fn map(&self, runs: &[String]) -> Result<Uses, CheckError> {
        let mut said = Uses::default();
        let mut parts = vec![runs];
        while let Some(part) = parts.pop() {
            match look::at(&self.history, part).await {
                Ok(uses) => said.extend(uses),
                Err(error) if !error.is_of_the_data() => return Err(error.into()),
                Err(error) => match part {
                    [run] => {
                        self.set_aside(Note::Run(run.as_str().into()), &error)
                            .await?
                    }
                    _ => {
                        let (half, rest) = part.split_at(part.len() / 2);
                        parts.extend([half, rest].into_iter().filter(|part| !part.is_empty()));
                    }
                },
            }
        }
        Ok(said)
    }

    /// The greatest use of each of these keys now; `None` for a key whose computing fails, which is
    /// set aside.
    async fn best(&self, keys: &[Key]) -> Result<HashMap<Key, Option<Newest>>, CheckError> {
        let mut best = HashMap::new();
        let mut parts = vec![keys];
        while let Some(part) = parts.pop() {
            match look::at_keys(&self.history, part.iter()).await {
                Ok(mut found) => {
                    best.extend(part.iter().map(|key| (key.clone(), found.remove(key))));
                }
                Err(error) if !error.is_of_the_data() => return Err(error.into()),
                Err(error) => match part {
                    [key] => self.set_aside(Note::Key(key.clone()), &error).await?,
                    _ => {
                        let (half, rest) = part.split_at(part.len() / 2);
                        parts.extend([half, rest].into_iter().filter(|part| !part.is_empty()));
                    }
                },
            }
        }
        Ok(best)
    }

    async fn set_aside(&self, note: Note, error: &HistoryError) -> Result<(), StoreError> {
        tracing::warn!(
            error = error as &dyn std::error::Error,
            "a run cannot be mapped; it is set aside (recents capture status counts them)"
        );
        if let Some(metrics) = &self.metrics {
            metrics.count_runs(Source::Capture, "rejected", 1);
        }
        let text = match std::error::Error::source(error) {
            Some(source) => source.to_string(),
            None => error.to_string(),
        };
        with_retries(|| note::set_aside(&self.store, &note, &text)).await
    }

    /// Lowers and removes rows that were computed again, and notes what must be looked at again, in
    /// one transaction and one pass over the rows. Returns what is to be raised.
    ///
    /// A row that rose since it was `seen` may know a use that the history did not have yet: it is
    /// noted again instead of going down for a moment.
    async fn settle(
        &self,
        noted: &Noted,
        seen: &HashMap<Key, Newest>,
        said: &Uses,
        best: HashMap<Key, Option<Newest>>,
    ) -> Result<Vec<(Key, Newest)>, StoreError> {
        if noted.runs.is_empty() && best.is_empty() {
            return Ok(Vec::new());
        }
        with_retries(|| self.settle_once(noted, seen, said, &best)).await
    }

    async fn settle_once(
        &self,
        noted: &Noted,
        seen: &HashMap<Key, Newest>,
        said: &Uses,
        best: &HashMap<Key, Option<Newest>>,
    ) -> Result<Vec<(Key, Newest)>, StoreError> {
        let mut tx = self.store.begin().await?;
        let mut again = Vec::new();
        for runs in noted.runs.chunks(MAX_KEYS) {
            let runs = runs.iter().map(String::as_str);
            for (key, newest) in recent::rows_of_runs(tx.conn(), runs).await? {
                let run = newest.run.as_deref().unwrap_or_default();
                if is_unsupported(&(&key, &newest), said.of(run)) {
                    again.push(key);
                }
            }
        }
        let mut raise = Vec::new();
        let (mut lower, mut remove) = (Vec::new(), Vec::new());
        let mut keys: Vec<&Key> = best.keys().collect();
        keys.sort_unstable();
        let rows = match keys.is_empty() {
            true => Vec::new(),
            false => recent::lock_rows(tx.conn(), keys.iter().copied()).await?,
        };
        let mut rows: HashMap<Key, Newest> = rows.into_iter().collect();
        for key in keys {
            let (row, best) = (rows.remove(key), best.get(key).cloned().flatten());
            let change = Change::of(row.as_ref(), best.as_ref());
            if change.note() == LookAgain::Row {
                again.push(key.clone());
                if row.as_ref() != seen.get(key) {
                    continue;
                }
            }
            match (change, row, best) {
                (Change::Raise, _, Some(best)) => raise.push((key.clone(), best)),
                (Change::Lower, Some(seen), Some(becomes)) => lower.push(Swap {
                    key: key.clone(),
                    seen,
                    becomes,
                }),
                (Change::Remove, Some(row), _) => remove.push((key.clone(), row)),
                _ => {}
            }
        }
        if !lower.is_empty() {
            recent::lower(tx.conn(), &lower).await?;
            // What is dismissed down there goes, so that no list fills up with it.
            sweep::sweep(tx.conn(), lower.iter().map(|swap| &swap.key)).await?;
        }
        if !remove.is_empty() {
            recent::remove(tx.conn(), &remove).await?;
        }
        note::keys(tx.conn(), &again).await?;
        tx.commit().await?;
        Ok(raise)
    }

    async fn raise(&self, uses: &[(Key, Newest)]) -> Result<Vec<Key>, StoreError> {
        let mut tx = self.store.begin().await?;
        let raised = note::raise(&mut tx, uses).await?;
        tx.commit().await?;
        Ok(raised)
    }

    /// Works off the notes that stand now, then those that they led to, a few times over: what others
    /// note meanwhile is theirs. Notes that another drain took are waited for.
    ///
    /// # Errors
    /// [`CheckError`].
    pub async fn settle_all(&mut self) -> Result<(), CheckError> {
        for _ in 0..GENERATIONS {
            let Some((_, newest)) = note::standing(&self.store).await?.ids else {
                return Ok(());
            };
            let mut last = Instant::now();
            loop {
                if self.step(false).await? == Step::Worked {
                    last = Instant::now();
                }
                match note::standing(&self.store).await?.ids {
                    Some((first, _)) if first <= newest => {}
                    _ => break,
                }
                if last.elapsed() > SETTLE_WITHIN {
                    return Ok(());
                }
                if last.elapsed() > SETTLE_EVERY {
                    self.notes.restart();
                    tokio::time::sleep(SETTLE_EVERY).await;
                }
            }
        }
        Ok(())
    }
}

impl Noted {
    fn of(outbox: Option<&Taken>, notes: Vec<(i64, Note)>) -> Self {
        let mut noted = Self {
            runs: outbox.map_or(Vec::new(), |taken| taken.runs.clone()),
            keys: Vec::new(),
        };
        for (_, note) in notes {
            match note {
                Note::Run(run) => noted.runs.push(run.into()),
                Note::Key(key) => noted.keys.push(key),
            }
        }
        noted.runs.sort_unstable();
        noted.runs.dedup();
        noted.keys.sort_unstable();
        noted.keys.dedup();
        noted
    }
}
