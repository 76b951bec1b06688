//! How the table is kept: its backfill, its audit, its jobs, what reads beside it.

use std::time::Duration;

use super::Findings;
use crate::config::Config;
use crate::details;
use crate::jobs::{BACKFILL, RESYNC};
use crate::model::Time;
use crate::settings;
use crate::store::job::{self, State};
use crate::store::{PoolSettings, Store, audit};

/// A pass of the audit over the longest measured history takes a quarter of an hour.
const OLD_AUDIT: Duration = Duration::from_secs(24 * 3_600);

/// Jobs that are looked at.
const NEWEST_JOBS: u32 = 100;

pub(super) async fn examine(config: &Config, store: &Store, findings: &mut Findings) {
    settings(config, store, findings).await;
    if config.history.is_some() {
        backfill(store, findings).await;
        audited(config, store, findings).await;
        jobs(store, findings).await;
    }
    replica(config, findings).await;
    details(config, findings).await;
}

async fn settings(config: &Config, store: &Store, findings: &mut Findings) {
    match settings::load(store, &config.settings).await {
        Ok(effective) => {
            let detail = format!(
                "lists are read from: {}; details: {}",
                effective.read_path.name(),
                effective.details_mode.name()
            );
            findings.ok("settings", detail);
        }
        Err(error) => findings.unknown("settings", &error),
    }
}

async fn backfill(store: &Store, findings: &mut Findings) {
    match job::last_success(store, BACKFILL).await {
        Ok(Some(time)) => findings.ok("backfill", format!("the last one ended {time}")),
        Ok(None) => findings.warn(
            "backfill",
            "the table was never filled from the history; until then `auto` reads the history",
            "recents backfill",
        ),
        Err(error) => findings.unknown("backfill", &error),
    }
}

async fn audited(config: &Config, store: &Store, findings: &mut Findings) {
    if !config.audit {
        let detail = "turned off: what fires no trigger and calls no hook stays wrong in silence";
        return findings.warn(
            "audit",
            detail,
            "audit = true, or recents verify now and then",
        );
    }
    match audit::passed_at(store).await {
        Ok(Some(time)) if time.saturating_add(OLD_AUDIT) < Time::now() => findings.warn(
            "audit",
            format!("everything was last looked at {time}; no service seems to audit"),
            "start recents serve with this history, or recents verify",
        ),
        Ok(Some(time)) => findings.ok("audit", format!("everything was last looked at {time}")),
        Ok(None) => findings.warn(
            "audit",
            "the table was never held against the whole history",
            "recents verify, or wait for the first pass of recents serve",
        ),
        Err(error) => findings.unknown("audit", &error),
    }
}

async fn jobs(store: &Store, findings: &mut Findings) {
    let newest = match job::list(store, None, None, NEWEST_JOBS).await {
        Ok(newest) => newest,
        Err(error) => return findings.unknown("jobs", &error),
    };
    // The newest of each kind: what failed before is over.
    let mut failed = false;
    for kind in [BACKFILL, RESYNC] {
        let Some(job) = newest.iter().find(|job| job.kind == kind) else {
            continue;
        };
        if job.state == State::Failed {
            failed = true;
            let error = job.error.as_deref().unwrap_or("for an unknown reason");
            let detail = format!("the last {kind} failed: {error}");
            let mend = match (kind, &job.workspace) {
                (RESYNC, Some(workspace)) => format!("recents resync --workspace {workspace}"),
                (RESYNC, None) => "recents resync --all".into(),
                _ => "recents backfill".into(),
            };
            findings.warn("jobs", detail, mend);
        }
    }
    if !failed {
        findings.ok("jobs", "none of the last ones failed");
    }
}

async fn replica(config: &Config, findings: &mut Findings) {
    let Some(url) = &config.read_database_url else {
        return;
    };
    let check = "replica";
    let settings = PoolSettings {
        size: 1,
        statement_timeout: config.statement_timeout,
        behind_pooler: config.transaction_pooler,
    };
    let replica = match Store::open(url, settings) {
        Ok(replica) => replica,
        Err(error) => return findings.fail(check, super::said(&error), "mend read_database_url"),
    };
    let Store::Postgres(pool, _) = &replica else {
        return;
    };
    let asked = sqlx::query_as::<_, (bool, Option<f64>)>(
        "select pg_is_in_recovery(),
                extract(epoch from clock_timestamp() - pg_last_xact_replay_timestamp())::float8",
    );
    match asked.fetch_one(pool).await {
        Ok((true, behind)) => {
            let behind = behind.unwrap_or(0.0);
            let detail = format!("a standby; the last change it has is {behind:.0} s old");
            findings.ok(check, detail);
        }
        Ok((false, _)) => findings.warn(
            check,
            "not a standby: reads of it may be older than a token allows to know",
            "name a streaming replica in read_database_url, or none",
        ),
        Err(error) => {
            let mend = "mend read_database_url; until then the primary answers";
            findings.fail(check, super::said(&error), mend);
        }
    }
    replica.close().await;
}

async fn details(config: &Config, findings: &mut Findings) {
    let Some(details) = &config.details else {
        return;
    };
    match details::try_query(details).await {
        Ok(()) => findings.ok("details", "the database understands the query"),
        Err(error) => findings.fail("details", super::said(&error), "mend details.query"),
    }
}
