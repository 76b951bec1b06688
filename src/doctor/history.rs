//! The history: whether the mapping fits, how fast a run and a row are found, and whether capture
//! follows it.

use std::time::Duration;

use super::{Findings, said};
use crate::capture::status;
use crate::config::{Config, HistoryConfig};
use crate::history::{self, History, HistoryError};
use crate::store::Store;

/// Runs from each end that are mapped.
const SAMPLE: u32 = 100;
/// Notes that wait for longer are not drained.
const OLD_NOTES: Duration = Duration::from_secs(60);

pub(super) async fn examine(config: &Config, store: &Store, findings: &mut Findings) {
    let Some(of) = &config.history else {
        return findings.ok(
            "history",
            "none is configured: the table is what the hook says",
        );
    };
    let history = match history::connect(of).await {
        Ok(history) => history,
        Err(error) => {
            let mend = match error {
                HistoryError::Refused(_) | HistoryError::Misfit { .. } => "mend [history]",
                _ => "mend history.url, or start its database",
            };
            return findings.fail("history", said(&error), mend);
        }
    };
    findings.ok("history", format!("{}; the mapping fits", history.place()));
    mapped(&history, findings).await;
    indexes(&history, findings).await;
    capture(of, store, &history, findings).await;
    history.close().await;
}

async fn mapped(history: &History, findings: &mut Findings) {
    match history.sample(SAMPLE).await {
        Err(error) => findings.unknown("mapping", &error),
        Ok((0, _)) => findings.ok("mapping", "there are no runs yet"),
        Ok((runs, 0)) => findings.warn(
            "mapping",
            format!("none of {runs} runs that were tried is a use"),
            "look at what history.query returns for a run",
        ),
        Ok((runs, uses)) => {
            findings.ok(
                "mapping",
                format!("{uses} of {runs} runs that were tried are uses"),
            );
        }
    }
}

async fn indexes(history: &History, findings: &mut Findings) {
    match history.scans_for_a_run().await {
        Err(error) => return findings.unknown("history's indexes", &error),
        Ok(true) => {
            let (table, key) = (&history.mapping.table, &history.mapping.key);
            return findings.fail(
                "history's indexes",
                "a run is not found by an index: each look reads the whole history",
                format!("create unique index concurrently on {table} ({key});"),
            );
        }
        Ok(false) => {}
    }
    match history.index_advice().await {
        Err(error) => findings.unknown("history's indexes", &error),
        Ok(None) => findings.ok(
            "history's indexes",
            "runs are found without reading everything",
        ),
        Ok(Some(index)) => findings.warn(
            "history's indexes",
            "computing a row again reads the whole history",
            index,
        ),
    }
}

async fn capture(of: &HistoryConfig, store: &Store, history: &History, findings: &mut Findings) {
    let check = "capture";
    let crate::history::Database::Postgres(pool) = &history.database else {
        let detail =
            "a SQLite history is not captured: the hook tells of uses, the audit finds the rest";
        return findings.ok(check, detail);
    };
    let status = match status::of(store, pool, &of.table, Some(history)).await {
        Ok(status) => status,
        Err(error) => return findings.unknown(check, &error),
    };
    let install = "recents capture install";
    if !status.coverage.installed {
        let detail =
            "not installed: only the hook tells of uses, and deleted runs stay until the audit";
        return findings.warn(check, detail, install);
    }
    if let Some(another) = &status.another_store {
        let detail = format!("the changes are noted for another store, {another}");
        return findings.fail(check, detail, "recents capture install --take-over");
    }
    let problems = status.coverage.tables.iter().filter_map(|covered| {
        let problem = covered.problem.as_ref()?;
        Some(format!("{}: {problem}", covered.table))
    });
    let problems: Vec<_> = problems.collect();
    match (status.coverage.is_whole(), problems.is_empty()) {
        (true, _) => findings.ok(check, "installed, on the table and all its partitions"),
        (false, true) => findings.fail(check, "of another version or for another key", install),
        (false, false) => findings.fail(check, problems.join("; "), install),
    }
    let lag = status.lag.as_secs_f64();
    let waiting = format!(
        "{} rows wait, the oldest for {lag:.1} s",
        status.backlog_rows
    );
    match status.is_overfull || status.lag > OLD_NOTES {
        true => findings.fail("outbox", waiting, "start recents serve with this history"),
        false => findings.ok("outbox", waiting),
    }
    if let Some((what, error)) = status.examples.first() {
        findings.warn(
            "set aside",
            format!(
                "{} notes cannot be mapped, such as {what}: {error}",
                status.set_aside
            ),
            "mend the run, or history.query; they are tried again every ten minutes",
        );
    }
}
