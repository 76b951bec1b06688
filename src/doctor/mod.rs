//! The doctor: looks at everything that can be wrong around a table, changes nothing, and says what
//! mends each fault.

mod history;
mod operation;
mod postgres;
mod sessions;
mod store;

use serde::Serialize;

use crate::config::Config;
use crate::store::{PoolSettings, Store};
use crate::telemetry::chain as said;

/// Connections that the doctor takes.
const CONNECTIONS: u32 = 2;

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

/// What was found so far.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn ok(&mut self, check: &'static str, detail: impl ToString) {
        self.add(check, Verdict::Ok, detail, None);
    }

    fn warn(&mut self, check: &'static str, detail: impl ToString, mend: impl ToString) {
        self.add(check, Verdict::Warning, detail, Some(mend.to_string()));
    }

    fn fail(&mut self, check: &'static str, detail: impl ToString, mend: impl ToString) {
        self.add(check, Verdict::Failure, detail, Some(mend.to_string()));
    }

    /// A check that could not be made.
    fn unknown(&mut self, check: &'static str, error: &(dyn std::error::Error + 'static)) {
        let detail = format!("could not be looked at: {}", said(error));
        let mend = "see what the database says";
        self.add(check, Verdict::Warning, detail, Some(mend.into()));
    }

    fn add(
        &mut self,
        check: &'static str,
        verdict: Verdict,
        detail: impl ToString,
        mend: Option<String>,
    ) {
        self.0.push(Finding {
            check,
            verdict,
            detail: detail.to_string(),
            mend,
        });
    }
}

/// Looks at everything, one thing after the other. What cannot be looked at because of an earlier failure
/// is left out.
pub async fn examine(config: &Config) -> Vec<Finding> {
    let mut findings = Findings::default();
    configuration(config, &mut findings);
    if let Some(store) = open(config, &mut findings).await {
        if let Store::Postgres(pool, _) = &store {
            postgres::privileges(pool, &mut findings).await;
        }
        if store::schema(&store, &mut findings).await {
            operation::examine(config, &store, &mut findings).await;
            if let Store::Postgres(pool, _) = &store {
                postgres::examine(config, pool, &mut findings).await;
                sessions::examine(config, &store, &mut findings).await;
            }
        }
        history::examine(config, &store, &mut findings).await;
        store.close().await;
    }
    findings.0
}

fn configuration(config: &Config, findings: &mut Findings) {
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

async fn open(config: &Config, findings: &mut Findings) -> Option<Store> {
    let settings = PoolSettings {
        size: CONNECTIONS,
        statement_timeout: config.statement_timeout,
        behind_pooler: config.transaction_pooler,
    };
    match Store::open(&config.database_url, settings) {
        Ok(store) => store::connection(config, &store, findings)
            .await
            .then_some(store),
        Err(error) => {
            findings.fail("connection", said(&error), "mend database_url");
            None
        }
    }
}
