//! The doctor: looks at everything that can be wrong around a table, changes nothing, and says what
//! mends each fault.

mod asked;
mod findings;
mod grants;
mod history;
mod operation;
mod postgres;
mod replica;
mod rights;
mod sessions;
mod store;

use std::time::Duration;

use serde::Serialize;

use crate::config::{Config, HistoryConfig};
use crate::store::{PoolSettings, Store};
pub(crate) use findings::MEND_GONE;
use findings::{Findings, said};

/// Connections that the doctor takes.
const CONNECTIONS: u32 = 2;
/// The longest that one statement may take: each of them takes milliseconds, unless it waits for a lock.
const STATEMENT_WITHIN: Duration = Duration::from_secs(3);
/// A check asks a few statements. After so long it is given up, whatever it waits for.
const CHECK_WITHIN: Duration = Duration::from_secs(10);
/// How long a connection that does not answer is waited for at the end.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// How a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, and will not be pleasant.
    Warning,
    /// Something does not work.
    Failure,
}

impl Verdict {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failure => "failure",
        }
    }
}

/// What was found of one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: &'static str,
    /// How it is.
    pub verdict: Verdict,
    /// What was seen.
    pub detail: String,
    /// A statement, a command or a setting that mends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

/// Looks at everything, one thing after the other, and tells of each at once. What cannot be looked at
/// because of an earlier failure is left out.
pub async fn examine(config: &Config, mut tell: impl FnMut(&Finding)) -> Vec<Finding> {
    let mut findings = Findings::told(&mut tell);
    configuration(config, &mut findings);
    let store = open(config, &mut findings).await;
    let migrated = match &store {
        Some(store) => table(config, store, &mut findings).await,
        None => false,
    };
    // In the same database it is as far away as the table.
    let elsewhere = |of: &HistoryConfig| of.url != config.database_url;
    if store.is_some() || config.history.as_ref().is_some_and(elsewhere) {
        let store = store.as_ref().filter(|_| migrated);
        history::examine(config, store, &mut findings).await;
    }
    if let Some(store) = store {
        let _ = tokio::time::timeout(CLOSE_WITHIN, store.close()).await;
    }
    findings.all()
}

/// The table and what is around it; returns whether it is there.
async fn table(config: &Config, store: &Store, findings: &mut Findings<'_>) -> bool {
    let mut listens = true;
    if let Store::Postgres(pool, _) = store {
        listens = rights::writing(pool, findings).await;
        rights::privileges(pool, findings).await;
    }
    let mut migrated = false;
    let look = async |f: &mut Findings<'_>| migrated = store::schema(store, f).await;
    findings.within("schema", look).await;
    if migrated {
        operation::examine(config, store, findings).await;
        if let Store::Postgres(pool, _) = store {
            postgres::examine(config, pool, findings).await;
            sessions::examine(config, store, listens, findings).await;
        }
    }
    migrated
}

fn configuration(config: &Config, findings: &mut Findings<'_>) {
    let (url, origin) = config.explain_store();
    findings.ok(
        "configuration",
        format!("the table is at {url}, from {origin}"),
    );
    for name in &config.unknown_environment {
        let detail = format!("{name} is set, and is not a key of the configuration");
        findings.warn("configuration", detail, format!("unset {name}"));
    }
}

async fn open(config: &Config, findings: &mut Findings<'_>) -> Option<Store> {
    let settings = PoolSettings {
        size: CONNECTIONS,
        statement_timeout: STATEMENT_WITHIN,
        behind_pooler: config.transaction_pooler,
    };
    let store = match Store::open(&config.database_url, settings) {
        Ok(store) => store,
        Err(error) => {
            findings.fail("connection", said(&error), "mend database_url");
            return None;
        }
    };
    let mut answers = false;
    let look = async |f: &mut Findings<'_>| answers = store::connection(config, &store, f).await;
    findings.within("connection", look).await;
    answers.then_some(store)
}
