//! Details: what a list shows of each item beside its use, such as a title and an icon, by the
//! application's own query `details.query`.
//!
//! The query is given ids as `$1` and returns a row for each published run that may be shown: its
//! `published_run`, and any other columns, which become the details object. A published run without a
//! row (deleted, private, archived) does not belong into a list; one whose details could not be loaded
//! does. [`Details::of`] tells the two apart, [`Details::fill`] makes pages of them.

mod cards;
mod fill;
mod loads;
mod source;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::config::DetailsConfig;
use crate::settings::{DetailsMode, Settings};
use crate::telemetry::{Metrics, Repeated, chain};
use cards::Cards;
use loads::Loads;
use source::Source;

pub use fill::{Candidate, Candidates, Filled, Refill};

/// Ids of one statement at the most: a page of a hundred lists is some statements then, and one of
/// them fails for few others.
const MAX_IDS: usize = 1_000;
/// Statements at once in this process, which the application's database serves beside its own work.
const MAX_STATEMENTS: u32 = 4;
/// How long after the database was away it is asked again whether it understands the query.
const CHECK_AGAIN: Duration = Duration::from_secs(2);

/// What is known of the details of one published run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Detail {
    /// Its details: a JSON object, ready to be sent.
    Card(Arc<str>),
    /// The query ran, and had no row for it.
    Gone,
    /// It was not asked, failed, or took too long.
    Unknown,
}

impl Detail {
    fn of(card: Option<Arc<str>>) -> Self {
        card.map_or(Self::Gone, Self::Card)
    }
}

/// What is known of the published runs that were asked for.
#[derive(Debug, Clone, Default)]
pub struct Answers(HashMap<Arc<str>, Detail>);

impl Answers {
    /// What is known of one; of one that was not asked for, nothing.
    pub fn get(&self, published_run: &str) -> &Detail {
        self.0.get(published_run).unwrap_or(&Detail::Unknown)
    }
}

/// Why there are no details.
#[derive(Debug, thiserror::Error)]
pub enum DetailsError {
    /// The database does not understand the query.
    #[error(
        "details.query: {0} (it takes $1, an array of texts, in SQLite a JSON array, and returns \
         published_run and the columns of the details)"
    )]
    Refused(String),
    /// The role may not read what the query reads; somebody may grant it any time.
    #[error("details.query: {0}; grant the role select on it, and usage on its schema")]
    Denied(String),
    /// The database does not answer.
    #[error("the database of the details is out of reach")]
    Database(#[source] sqlx::Error),
}

/// Asks the database once whether it understands the query.
///
/// # Errors
/// [`DetailsError`] with what it says instead.
pub(crate) async fn try_query(config: &DetailsConfig) -> Result<(), DetailsError> {
    Source::open(config)?.check().await
}

/// The details of published runs.
///
/// Known ones are remembered for `details.ttl`, also that there are none, so that they are that old at
/// the most; the rest is loaded in few statements. Whoever asks for what is being loaded waits for that
/// load. Nothing is ever an error: what cannot be loaded within two seconds is unknown.
#[derive(Debug)]
pub struct Details {
    loads: Arc<Loads<Source>>,
    settings: Arc<Settings>,
}

impl Details {
    /// Connects when it is first asked.
    ///
    /// # Errors
    /// [`DetailsError::Refused`] where the URL is malformed.
    pub fn open(
        config: &DetailsConfig,
        settings: Arc<Settings>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, DetailsError> {
        let source = Source::open(config)?;
        Ok(Self {
            loads: Loads::new(source, Cards::new(config.ttl), metrics),
            settings,
        })
    }

    /// Asks the database whether it understands the query. One that is away is waited for, and so is a right:
    /// lists come without details meanwhile.
    ///
    /// # Errors
    /// [`DetailsError::Refused`] with what it says instead.
    pub async fn check(&self) -> Result<(), DetailsError> {
        let mut said = Repeated::default();
        loop {
            match self.loads.source().check().await {
                Ok(()) => {
                    tracing::info!("the query of the details was tried");
                    return Ok(());
                }
                Err(refused @ DetailsError::Refused(_)) => return Err(refused),
                Err(error) => {
                    let error = chain(&error);
                    if said.is_news(&error) {
                        tracing::warn!(
                            error,
                            "the query of the details cannot be tried yet; trying again"
                        );
                    }
                }
            }
            tokio::time::sleep(CHECK_AGAIN).await;
        }
    }

    /// The details of these published runs, each of which may be named several times. Those that are
    /// not remembered take ⌈their number / 1,000⌉ statements, at most four at once, two seconds
    /// altogether; in the mode `per_item` one each; in the mode `off` all are unknown.
    pub async fn of(&self, published_runs: &[&str]) -> Answers {
        match self.settings.details_mode() {
            DetailsMode::Batched => self.loads.batched(published_runs).await,
            DetailsMode::PerItem => self.loads.one_by_one(published_runs).await,
            DetailsMode::Off => Answers::default(),
        }
    }

    /// Fills one page of each list with `limit` items, where so many may be shown, and finds out which is the
    /// last, where `to_the_end` asks for that. `lists` are what the pages begin with; `held` gives what is at
    /// hand behind that of a list, by its place; `more` reads on in some of them, all in one go, and answers
    /// for each, in their order. For a batch, fill all of its lists in one call, so that their details are
    /// loaded together.
    ///
    /// # Errors
    /// What `more` fails of.
    pub async fn fill<T, E, F>(
        &self,
        limit: usize,
        to_the_end: bool,
        lists: Vec<Candidates<T>>,
        held: impl FnMut(usize) -> Option<Candidates<T>>,
        more: impl FnMut(Vec<Refill<T>>) -> F,
    ) -> Result<Vec<Filled<T>>, E>
    where
        T: Candidate + Clone,
        F: Future<Output = Result<Vec<Candidates<T>>, E>>,
    {
        fill::fill(self, limit, to_the_end, lists, held, more).await
    }

    /// Forgets what is known of a published run: whoever asks from now on sees what the query says
    /// from now on.
    pub fn forget(&self, published_run: &str) {
        self.loads.forget(published_run);
    }

    /// Forgets everything, as [`Details::forget`] does one.
    pub fn forget_all(&self) {
        self.loads.forget_all();
    }
}
