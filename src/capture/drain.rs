//! The drain: takes notes, looks at the history again, and makes the table what it says.
//!
//! Any number of them work at the same time, without leases and in any order: PROTOCOL, in short, is
//! 1 take notes, 2 read the history, 3 write rows with new notes, 4 let the notes go.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::apply::{Apply, Noted};
use super::outbox::{self, Taken};
use super::position::Position;
use super::write::Held;
use crate::check::CheckError;
use crate::history::History;
use crate::store::note::{self, Note};
use crate::store::{Store, StoreError, Tx, identity, with_retries};
use crate::telemetry::{Metrics, metrics::Source};

/// Notes of the table that are taken together: each look at the history has a cost of its own, and so
/// many keep back what is fresh in the outbox for about a hundred milliseconds.
const NOTES: u32 = 4_000;
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
    /// The store's, once it was asked.
    identity: Option<Arc<str>>,
    outbox: Position,
    notes: Position,
    /// Whether the last step worked, so that there must be notes of its own now.
    expects_notes: bool,
    /// Whether anything may be set aside; then what can be mapped again is looked for with each step.
    set_aside: bool,
    /// Whether the last step computed rows, which may have taken long: now it is the outbox's turn.
    computed: bool,
}

impl Drain {
    /// A drain at the start.
    pub fn new(store: Store, history: Arc<History>, metrics: Option<Arc<Metrics>>) -> Self {
        Self {
            store,
            history,
            metrics,
            identity: None,
            outbox: Position::new(),
            notes: Position::new(),
            expects_notes: false,
            set_aside: true,
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
            outbox = self.take_outbox().await?;
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
            outbox = self.take_outbox().await?;
        }
        if outbox.is_none() && notes.is_empty() {
            return Ok(Step::Idle);
        }
        let ids: Vec<i64> = notes.iter().map(|(id, _)| *id).collect();
        let runs = outbox
            .as_ref()
            .map_or(Vec::new(), |taken| taken.runs.clone());
        let noted = Noted::of(runs, notes);
        if outbox.as_ref().is_some_and(|taken| taken.everything) {
            self.note_everything().await?;
        }
        let apply = Apply {
            store: &self.store,
            history: &self.history,
            metrics: self
                .metrics
                .as_deref()
                .map(|metrics| (metrics, Source::Capture)),
            fence: None,
            forgets: self.set_aside,
        };
        let applied = apply.noted(noted, Held { tx: holding, ids }).await?;
        self.set_aside |= applied.set_aside;
        if applied.tries_again {
            // Those notes are old ones.
            self.notes.restart();
        }
        // What was raised was noted.
        self.expects_notes = true;
        // What the notes led to is committed: now those of the outbox may go, too.
        if let Some(outbox) = outbox {
            outbox.let_go().await?;
        }
        Ok(Step::Worked)
    }

    /// Hears whether anything is set aside. Where another drain did that, it may be mended since, which
    /// this one did not look for.
    pub(super) async fn saw_set_aside(&mut self, any: bool) {
        if any && !self.set_aside {
            // Where the database is away, the next step says so.
            let _ = note::retry_set_aside(&self.store).await;
            self.notes.restart();
        }
        self.set_aside = any;
    }

    async fn take_outbox(&mut self) -> Result<Option<Taken>, CheckError> {
        let identity = self.identity().await?;
        Ok(outbox::take(&self.history, &mut self.outbox, &identity).await?)
    }

    /// The identity of the store, for which the notes of the outbox have to be.
    pub(super) async fn identity(&mut self) -> Result<Arc<str>, StoreError> {
        if let Some(identity) = &self.identity {
            return Ok(Arc::clone(identity));
        }
        let identity: Arc<str> = identity::of(&self.store).await?.into();
        self.identity = Some(Arc::clone(&identity));
        Ok(identity)
    }

    /// In PostgreSQL the notes are locked, so that no other drain does the same work meanwhile; in
    /// SQLite that would lock out every writer, and where there is but one connection, ourselves. Where
    /// none are expected, a transaction for them would be three requests instead of one.
    async fn take_notes(&mut self) -> Result<(Option<Tx>, Vec<(i64, Note)>), StoreError> {
        let (behind, _) = self.notes.next(Instant::now());
        let expected = std::mem::take(&mut self.expects_notes);
        let (holding, notes) = match &self.store {
            Store::Postgres(pool, _) if expected && pool.options().get_max_connections() > 1 => {
                let mut tx = self.store.begin().await?;
                let notes = note::take(tx.conn(), behind, NOTES).await?;
                ((!notes.is_empty()).then_some(tx), notes)
            }
            _ => (None, note::look(&self.store, behind, NOTES).await?),
        };
        let last = notes.last().map(|(id, _)| *id);
        let more = last.filter(|_| notes.len() >= NOTES as usize);
        self.notes
            .read(notes.iter().map(|(id, _)| *id), more, Instant::now());
        Ok((holding, notes))
    }

    async fn note_everything(&self) -> Result<(), StoreError> {
        with_retries(async || {
            let mut tx = self.store.begin().await?;
            note::everything(&mut tx).await?;
            tx.commit().await
        })
        .await
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
