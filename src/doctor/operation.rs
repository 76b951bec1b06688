//! How the table is kept: its backfill, its audit, its jobs, what reads beside it.

use std::time::Duration;

use super::findings::{Findings, said};
use super::replica;
use crate::config::Config;
use crate::details::{self, DetailsError};
use crate::jobs::resync::Options;
use crate::jobs::{BACKFILL, RESYNC};
use crate::model::Time;
use crate::settings::{self, ReadPath};
use crate::store::job::{self, JobRow, State};
use crate::store::{Store, StoreError, audit, recent};

/// A pass of the audit over the longest measured history takes a quarter of an hour.
const OLD_AUDIT: Duration = Duration::from_secs(24 * 3_600);

/// Jobs that are looked at.
const NEWEST_JOBS: u32 = 100;

pub(super) async fn examine(config: &Config, store: &Store, findings: &mut Findings<'_>) {
    let mut read_path = None;
    let look = async |f: &mut Findings<'_>| read_path = settings(config, store, f).await;
    findings.within("settings", look).await;
    if config.history.is_some() {
        let look = async |f: &mut Findings<'_>| backfill(config, store, read_path, f).await;
        findings.within("backfill", look).await;
        let look = async |f: &mut Findings<'_>| audited(config, store, f).await;
        findings.within("audit", look).await;
        let look = async |f: &mut Findings<'_>| jobs(store, f).await;
        findings.within("jobs", look).await;
    }
    let look = async |f: &mut Findings<'_>| times(config, store, f).await;
    findings.within("times", look).await;
    let look = async |f: &mut Findings<'_>| replica::examine(config, store, f).await;
    findings.within("replica", look).await;
    let look = async |f: &mut Findings<'_>| details(config, f).await;
    findings.within("details", look).await;
}

/// Returns where lists are read from.
async fn settings(config: &Config, store: &Store, findings: &mut Findings<'_>) -> Option<ReadPath> {
    let check = "settings";
    let loaded = async {
        let unknown = settings::unknown(store).await?;
        Ok::<_, StoreError>((unknown, settings::load(store, &config.settings).await?))
    };
    let (unknown, effective) = match loaded.await {
        Ok(loaded) => loaded,
        Err(error) => {
            findings.unknown(check, &error);
            return None;
        }
    };
    let detail = format!(
        "lists are read from: {}; details: {}",
        effective.read_path.name(),
        effective.details_mode.name()
    );
    findings.ok(check, detail);
    for unknown in unknown {
        let (name, value) = (unknown.name, unknown.value);
        findings.warn(
            check,
            format!("{name} is `{value}`, which this version does not know: it counts as not set"),
            format!("recents settings set {name} {}", unknown.first),
        );
    }
    Some(effective.read_path)
}

async fn backfill(
    config: &Config,
    store: &Store,
    read_path: Option<ReadPath>,
    findings: &mut Findings<'_>,
) {
    let check = "backfill";
    match job::last_filled(store, BACKFILL).await {
        Ok(Some(time)) => findings.ok(check, format!("the last one ended {time}")),
        Ok(None) if read_path == Some(ReadPath::Materialized) => {
            let otherwise = match config.settings.force_read_path {
                Some(_) => "start without force_read_path",
                None => "recents settings set read_path auto",
            };
            findings.fail(
                check,
                "lists are read from the table, which was never filled from the history: they lack \
                 what was used before",
                format!("recents backfill, or {otherwise}"),
            );
        }
        Ok(None) => findings.warn(
            check,
            "the table was never filled from the history; until then `auto` reads the history",
            "recents backfill",
        ),
        Err(error) => findings.unknown(check, &error),
    }
}

async fn audited(config: &Config, store: &Store, findings: &mut Findings<'_>) {
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
            "the table was not held against the whole history yet, or not since capture was installed",
            "recents verify, or wait for the first pass of recents serve",
        ),
        Err(error) => findings.unknown("audit", &error),
    }
}

async fn jobs(store: &Store, findings: &mut Findings<'_>) {
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
            let mend = match kind {
                RESYNC => resync_of(job),
                _ => "recents backfill".into(),
            };
            findings.warn("jobs", detail, mend);
        }
    }
    if !failed {
        findings.ok("jobs", "none of the last ones failed");
    }
}

/// The command that does again what a re-sync did.
fn resync_of(job: &JobRow) -> String {
    let scope = match &job.workspace {
        Some(workspace) => format!("--workspace {workspace}"),
        None => "--all".into(),
    };
    let options = Options::read(&job.options).unwrap_or_default();
    let dry_run = if options.dry_run { " --dry-run" } else { "" };
    format!(
        "recents resync {scope} --mode {}{dry_run}",
        options.mode.name()
    )
}

/// What the clock has yet to reach stays on top of its lists until then.
async fn times(config: &Config, store: &Store, findings: &mut Findings<'_>) {
    let check = "times";
    let now = Time::now().saturating_add(config.max_clock_skew);
    match recent::furthest_ahead(store, now).await {
        Ok(None) => findings.ok(check, "no row is ahead of the clock"),
        Ok(Some((key, newest))) => {
            let (workspace, _, published_run) = key.parts();
            let time = newest.last_used_at;
            let detail = format!(
                "the furthest ahead of the clock is {time}, of {published_run:?} in workspace {workspace:?}: \
                 it stays on top there until then"
            );
            let mend = match newest.run {
                Some(run) => {
                    let what = format!("mend the time of run {run:?} there, or dismiss the item");
                    match config.history {
                        Some(_) => {
                            format!("recents verify --repair; where the history says so: {what}")
                        }
                        None => what,
                    }
                }
                None => "dismiss it there".into(),
            };
            findings.warn(check, detail, mend);
        }
        Err(error) => findings.unknown(check, &error),
    }
}

async fn details(config: &Config, findings: &mut Findings<'_>) {
    let Some(details) = &config.details else {
        return;
    };
    match details::try_query(details).await {
        Ok(()) => findings.ok("details", "the database understands the query"),
        Err(error @ DetailsError::Database(_)) => findings.unknown("details", &error),
        Err(error) => {
            let mend = match error {
                DetailsError::Denied(_) => "as it says",
                _ => "mend details.query",
            };
            findings.fail("details", said(&error), mend);
        }
    }
}
