//! The history: whether the mapping fits, how fast a run and a row are found, and whether capture
//! follows it.

use sqlx::PgPool;

use super::findings::{Findings, is_no_answer, said};
use super::{CLOSE_WITHIN, STATEMENT_WITHIN, grants};
use crate::capture::{install, status};
use crate::config::{Config, HistoryConfig};
use crate::history::{self, Database, History, HistoryError};
use crate::store::Store;

/// Runs from each end that are mapped.
const SAMPLE: u32 = 100;

/// Where there is no table, there is no `store`.
pub(super) async fn examine(config: &Config, store: Option<&Store>, findings: &mut Findings<'_>) {
    let Some(of) = &config.history else {
        return findings.ok(
            "history",
            "none is configured: the table is what the hook says",
        );
    };
    let history = connect(of, findings).await;
    if let Some(history) = &history {
        let check = "mapping";
        findings
            .within(check, async |f| mapped(history, f).await)
            .await;
        let check = "history's indexes";
        findings
            .within(check, async |f| indexes(history, f).await)
            .await;
        if let Some(query) = &config.resync_pause_while {
            let check = "resync.pause_while";
            let asked = async |f: &mut Findings<'_>| pause_while(history, query, f).await;
            findings.within(check, asked).await;
        }
    }
    let check = "capture";
    let looked = async |f: &mut Findings<'_>| captured(of, store, history.as_ref(), f).await;
    findings.within(check, looked).await;
    if let Some(history) = history {
        history.close().await;
    }
}

async fn connect(of: &HistoryConfig, findings: &mut Findings<'_>) -> Option<History> {
    let mut connected = None;
    let connect =
        async |findings: &mut Findings<'_>| match history::connect_within(of, STATEMENT_WITHIN)
            .await
        {
            Ok(history) => {
                findings.ok("history", format!("{}; the mapping fits", history.place()));
                connected = Some(history);
            }
            Err(error) => unread(of, &error, findings).await,
        };
    findings.within("history", connect).await;
    connected
}

/// Why the history cannot be read.
async fn unread(of: &HistoryConfig, error: &HistoryError, findings: &mut Findings<'_>) {
    let check = "history";
    if is_no_answer(error) {
        let table = of.table.replace('\'', "''");
        return findings.fail(
            check,
            format!(
                "no answer within {} s: {} is locked, or its database does not answer",
                STATEMENT_WITHIN.as_secs(),
                of.table
            ),
            format!(
                "see who holds it: select pid, state, xact_start, query from pg_stat_activity where \
                 pid in (select pid from pg_locks where relation = '{table}'::regclass \
                 and mode = 'AccessExclusiveLock');"
            ),
        );
    }
    // Only asked here, because it is not wrong to read what only some columns may be read of.
    let grants = grants::missing(of).await.unwrap_or_default();
    if !grants.is_empty() {
        let detail = format!("the role may not read all of it: {}", said(error));
        return findings.fail(check, detail, grants.join(" "));
    }
    let mend = match error {
        // It is not the mapping that is wrong.
        error if said(error).contains("bypassrls") => "as it says",
        HistoryError::Refused(_) | HistoryError::Misfit { .. } => "mend [history]",
        _ => "mend history.url, or start its database",
    };
    findings.fail(check, said(error), mend);
}

async fn pause_while(history: &History, query: &str, findings: &mut Findings<'_>) {
    let check = "resync.pause_while";
    match history.says(query).await {
        Ok(true) => findings.warn(
            check,
            "it says true: re-syncs and the audit wait",
            "see what it asks of the history's database",
        ),
        Ok(false) => findings.ok(check, "it says that nothing need wait"),
        Err(HistoryError::Misfit { problem, .. }) => findings.fail(
            check,
            format!("it does not run, so that re-syncs fail and the audit waits: {problem}"),
            "mend resync.pause_while",
        ),
        Err(error) => findings.unknown(check, &error),
    }
}

async fn mapped(history: &History, findings: &mut Findings<'_>) {
    match history.sample(SAMPLE).await {
        Err(error) if error.is_of_the_data() => findings.warn(
            "mapping",
            format!(
                "a run cannot be mapped, and lists that are read from the history fail in its workspace: {}",
                said(&error)
            ),
            "mend the run, which recents verify names, or let history.query leave it out",
        ),
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

async fn indexes(history: &History, findings: &mut Findings<'_>) {
    match history.key_advice().await {
        Err(error) => return findings.unknown("history's indexes", &error),
        Ok(Some(index)) => {
            return findings.fail(
                "history's indexes",
                "a run is not found by an index: each look reads the whole history",
                one_line(&index),
            );
        }
        Ok(None) => {}
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
            one_line(&index),
        ),
    }
}

fn one_line(statements: &str) -> String {
    statements.replace('\n', " ")
}

async fn captured(
    of: &HistoryConfig,
    store: Option<&Store>,
    history: Option<&History>,
    findings: &mut Findings<'_>,
) {
    let check = "capture";
    if of.url.starts_with("sqlite:") {
        let detail =
            "a SQLite history is not captured: the hook tells of uses, the audit finds the rest";
        return findings.ok(check, detail);
    }
    if let Some(Database::Postgres(pool)) = history.map(|history| &history.database) {
        return capture(of, pool, store, history, findings).await;
    }
    // Whatever the mapping. Where nothing answers, that is told already.
    if let Ok(pool) = history::connect_postgres_within(of, STATEMENT_WITHIN).await {
        capture(of, &pool, store, None, findings).await;
        let _ = tokio::time::timeout(CLOSE_WITHIN, pool.close()).await;
    }
}

async fn capture(
    of: &HistoryConfig,
    pool: &PgPool,
    store: Option<&Store>,
    history: Option<&History>,
    findings: &mut Findings<'_>,
) {
    let check = "capture";
    let mapping = history.map(History::mapping);
    let coverage = match status::coverage(pool, &of.table, mapping.as_deref()).await {
        Ok(coverage) => coverage,
        Err(error) => return findings.unknown(check, &error),
    };
    let command = "recents capture install";
    let problems = coverage.tables.iter().filter_map(|covered| {
        let problem = covered.problem.as_ref()?;
        Some(format!("{}: {problem}", covered.table))
    });
    let problems: Vec<_> = problems.collect();
    if !coverage.installed && problems.is_empty() {
        let detail =
            "not installed: only the hook tells of uses, and deleted runs stay until the audit";
        let obstacle = match mapping.as_deref() {
            Some(mapping) => install::obstacle(pool, mapping).await.ok().flatten(),
            None => None,
        };
        return findings.warn(check, detail, obstacle.as_deref().unwrap_or(command));
    }
    let grants = match coverage.installed {
        true => status::missing_grants(pool).await.unwrap_or_default(),
        false => Vec::new(),
    };
    let status = match store.filter(|_| grants.is_empty()) {
        Some(store) => match status::of(store, pool, &of.table, history).await {
            Ok(status) => Some(status),
            Err(error) => return findings.unknown(check, &error),
        },
        // Told already, with what waits for it; or below.
        None => None,
    };
    if let Some(another) = status
        .as_ref()
        .and_then(|status| status.another_store.as_ref())
    {
        let detail = format!("the changes are noted for another store, {another}");
        return findings.fail(check, detail, "recents capture install --take-over");
    }
    // For which key, only a mapping that fits tells.
    let is_current = coverage.current || history.is_none();
    match (is_current, problems.is_empty()) {
        (_, false) => {
            let told = problems.join("; ");
            let mend = match told.contains("capture install`") {
                true => command,
                false => "as it says",
            };
            findings.fail(check, told, mend);
        }
        (true, true) if coverage.tables.is_empty() => {
            findings.fail(check, "installed, and on no table", command);
        }
        (true, true) => findings.ok(check, "installed, on the table and all its partitions"),
        (false, true) => findings.fail(
            check,
            "of another version, changed by hand, or for another key",
            command,
        ),
    }
    if !grants.is_empty() {
        let detail = "the role may not take notes from it, so that nothing is drained";
        return findings.fail("outbox", detail, grants.join(" "));
    }
    let Some(status) = status.filter(|status| status.coverage.installed) else {
        return;
    };
    let lag = status.lag.as_secs_f64();
    let waiting = format!(
        "{} rows wait, the oldest for {lag:.1} s",
        status.backlog_rows
    );
    match status.nobody_drains() {
        true => findings.fail(
            "outbox",
            waiting,
            "see to it that recents serve runs with this history; one that does is far behind",
        ),
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
