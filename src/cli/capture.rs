//! `recents capture`: the triggers that follow the history.

use std::error::Error;

use clap::{Args, Subcommand};
use serde_json::json;
use sqlx::PgPool;

use super::backfill::{configured, connect};
use super::output::{chain, lacks_a_right, print, thousands};
use super::{Done, Failure, Json, migrated, open, open_existing};
use crate::capture::error::{CaptureError, these_mend_it};
use crate::capture::install::{self, Capture};
use crate::capture::rights;
use crate::capture::status::{self, Status};
use crate::capture::uninstall;
use crate::config::{Config, HistoryConfig};
use crate::history::{self, History, HistoryError};
use crate::jobs::BACKFILL;
use crate::store::{identity, job};

#[derive(Debug, Subcommand)]
pub(super) enum CaptureCommand {
    /// Install the triggers on the history's table and its partitions
    Install(InstallArgs),
    /// Tell whether every change of the history is noted, and what waits
    Status(Json),
    /// Remove the triggers and every trace of them
    Uninstall(UninstallArgs),
}

impl CaptureCommand {
    /// Whether there is nothing to do with a mapping that is refused or does not fit.
    pub(super) fn needs_mapping(&self) -> bool {
        matches!(self, Self::Install(_))
    }
}

#[derive(Debug, Args)]
pub(super) struct InstallArgs {
    #[command(flatten)]
    print: Print,
    /// Also where the changes are noted for another store, which misses them from then on
    #[arg(long)]
    take_over: bool,
}

#[derive(Debug, Args)]
pub(super) struct UninstallArgs {
    #[command(flatten)]
    print: Print,
    /// Also where the changes are noted for another store
    #[arg(long)]
    take_over: bool,
}

#[derive(Debug, Args)]
pub(super) struct Print {
    /// Only print the SQL
    #[arg(long)]
    print: bool,
}

pub(super) async fn run(config: &Config, command: &CaptureCommand) -> Result<Done, Failure> {
    match command {
        CaptureCommand::Install(args) => install(config, args).await,
        CaptureCommand::Status(args) => status(config, args).await,
        CaptureCommand::Uninstall(args) => uninstall(config, args).await,
    }
}

async fn install(config: &Config, args: &InstallArgs) -> Result<Done, Failure> {
    let history = connect(config).await?;
    let store = match migrated(config, args.print.print).await {
        Err(Failure::Failed(error)) if lacks_a_right(&*error) => {
            return Err(with_grants(config, &history, error).await);
        }
        store => store?,
    };
    let done = async {
        let capture = Capture::of(&history, &store, args.take_over);
        let capture = capture.await.map_err(failure)?;
        if args.print.print {
            return Ok(print(capture.install_sql().await.map_err(failure)?)?);
        }
        match capture.install().await.map_err(failure)? {
            true => {
                // A backfill only raises and adds: deletes and moves of a time in which nothing was noted
                // for this store are not its to find.
                let before = match job::last_filled(&store, BACKFILL).await? {
                    None => "What was there before is the backfill's: recents backfill",
                    Some(_) => "What changed before, and nobody noted: recents verify --repair",
                };
                eprintln!("installed; from now on every change of the history is noted. {before}");
            }
            false => eprintln!("it is installed already, on the table and all its partitions"),
        }
        Ok::<_, Failure>(())
    };
    let done = done.await;
    store.close().await;
    history.close().await;
    done.map(|()| Done::Complete)
}

/// The same error, with all that the role lacks for an installation where it may not even look at the table.
async fn with_grants(
    config: &Config,
    history: &History,
    error: Box<dyn Error + Send + Sync>,
) -> Failure {
    let mut grants = Vec::new();
    if let Ok(store) = open(config) {
        grants = rights::to_read(&store).await.unwrap_or_default();
        store.close().await;
    }
    grants.extend(install::missing_grants(history).await.unwrap_or_default());
    match grants.is_empty() {
        true => Failure::Failed(error),
        false => Failure::failed(format!("{}; {}", chain(&*error), these_mend_it(&grants))),
    }
}

/// Whatever the mapping: it may no longer fit, and the triggers with it.
async fn uninstall(config: &Config, args: &UninstallArgs) -> Result<Done, Failure> {
    let (_, pool) = connect_postgres(config).await?;
    let done = async {
        let store = uninstall::owner(&pool).await?;
        if let Some(store) = store.filter(|_| !args.take_over)
            && identity(config).await.is_some_and(|own| own != store)
        {
            return Err(Failure::failed(format!(
                "the changes are noted for another store, {store}; --take-over removes that all the same"
            )));
        }
        if args.print.print {
            return Ok(print(uninstall::uninstall_sql(&pool).await?)?);
        }
        match uninstall::uninstall(&pool).await? {
            true => eprintln!("removed; changes of the history are no longer noted"),
            false => eprintln!("there is nothing to remove"),
        }
        Ok::<_, Failure>(())
    };
    let done = done.await;
    pool.close().await;
    done.map(|()| Done::Complete)
}

/// Which store this is; nobody knows where it cannot be asked.
async fn identity(config: &Config) -> Option<String> {
    let store = open_existing(config).await.ok()?;
    let identity = identity::of(&store).await.ok();
    store.close().await;
    identity
}

async fn status(config: &Config, args: &Json) -> Result<Done, Failure> {
    let (of, pool) = connect_postgres(config).await?;
    let (history, misfit) = match history::connect(of).await {
        Ok(history) => (Some(history), None),
        Err(error @ (HistoryError::Misfit { .. } | HistoryError::Refused(_))) => {
            (None, Some(error.to_string()))
        }
        Err(error) => return Err(Failure::from_history(error)),
    };
    let store = open_existing(config).await?;
    let status = status::of(&store, &pool, &of.table, history.as_ref()).await;
    store.close().await;
    if let Some(history) = history {
        history.close().await;
    }
    pool.close().await;
    show(&status?, misfit.as_deref(), args.json)
}

/// The history's database, whatever the mapping.
async fn connect_postgres(config: &Config) -> Result<(&HistoryConfig, PgPool), Failure> {
    let history = configured(config)?;
    if history.url.starts_with("sqlite:") {
        return Err(failure(CaptureError::NotPostgres));
    }
    let pool = history::connect_postgres(history).await;
    Ok((history, pool.map_err(Failure::from_history)?))
}

fn show(status: &Status, misfit: Option<&str>, as_json: bool) -> Result<Done, Failure> {
    let coverage = &status.coverage;
    if as_json {
        let tables: Vec<_> = coverage
            .tables
            .iter()
            .map(|covered| {
                json!({
                    "table": covered.table,
                    "covered": covered.problem.is_none(),
                    "problem": covered.problem,
                })
            })
            .collect();
        let line = json!({
            "installed": coverage.installed,
            "current": coverage.current,
            "covered": coverage.is_whole(),
            "misfit": misfit,
            "another_store": status.another_store,
            "tables": tables,
            "backlog_rows": status.backlog_rows,
            "overfull": status.is_overfull,
            "lag_seconds": status.lag.as_secs_f64(),
            "notes": status.notes,
            "set_aside": status.set_aside,
            "index": status.index,
            "merge_is_untold": coverage.merge_is_untold,
        });
        print(format_args!("{line}\n"))?;
    } else {
        print(lines(status, misfit))?;
    }
    if misfit.is_some() {
        return Err(Failure::failed(match coverage.installed {
            true => {
                "the mapping does not fit the history, so that nobody drains; and where the key \
                     column is not what it was, the application cannot write: mend the mapping, or \
                     `recents capture uninstall`"
            }
            false => "the mapping does not fit the history, and capture is not installed",
        }));
    }
    if let Some(store) = &status.another_store {
        return Err(Failure::failed(format!(
            "the changes are noted for another store, {store}; `recents capture install --take-over` \
             has this one take them"
        )));
    }
    match coverage.is_whole() {
        true if status.is_overfull => Err(Failure::failed(
            "the outbox is overfull, nobody seems to drain it: start `recents serve` with this \
             history, or `recents capture uninstall`",
        )),
        true => Ok(Done::Complete),
        false => Err(Failure::failed(match coverage.installed {
            true => "not every change of the history is noted; see above",
            false => "capture is not installed: recents capture install",
        })),
    }
}

fn lines(status: &Status, misfit: Option<&str>) -> String {
    let coverage = &status.coverage;
    let mut text = format!(
        "installed  {}\n",
        match (coverage.installed, coverage.current, misfit) {
            (false, ..) => "no",
            // Of what is as it should be there, only that one can tell.
            _ if status.another_store.is_some() => "for another store",
            (true, true, _) => "yes",
            (true, false, None) => {
                "by another version, changed by hand, for another key or for no store; install it again"
            }
            (true, false, Some(_)) => "for what key, only a mapping that fits tells",
        }
    );
    if let Some(misfit) = misfit {
        text += &format!("mapping    {misfit}\n");
    }
    if let Some(store) = &status.another_store {
        text += &format!("store      another one, {store}\n");
    }
    let of_ours = coverage.tables.iter();
    for covered in of_ours.filter(|_| status.another_store.is_none()) {
        let state = covered.problem.as_deref().unwrap_or("covered");
        text += &format!("table      {}: {state}\n", covered.table);
    }
    text += &format!(
        "waiting    {} rows of the outbox, the oldest for {:.1} s; {} notes of the table\n",
        thousands(status.backlog_rows),
        status.lag.as_secs_f64(),
        thousands(status.notes),
    );
    if status.nobody_drains() {
        text += "           nobody works them off, or whoever does is far behind: see to it that\n\
                 \x20          `recents serve` runs with this history\n";
    }
    text += &format!(
        "set aside  {} whose mapping fails\n",
        thousands(status.set_aside)
    );
    for (what, error) in &status.examples {
        text += &format!("           {what}: {error}\n");
    }
    if let Some(index) = &status.index {
        text += &format!(
            "advice     a run is found, or a row computed, by reading the whole history; this ends that:\n\
             \x20          {}\n",
            index.replace('\n', "\n           ")
        );
    }
    if coverage.merge_is_untold {
        text += "hint       a MERGE that moves rows between partitions is told to no trigger: write an UPDATE,\n\
                 \x20          or `recents verify --repair` behind it\n";
    }
    text
}

/// A history that capture cannot follow is a configuration to mend.
fn failure(error: CaptureError) -> Failure {
    match error {
        CaptureError::NotPostgres | CaptureError::NoTable(_) => Failure::Usage(error.to_string()),
        error => Failure::failed(error),
    }
}
