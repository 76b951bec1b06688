//! `recents capture`: the triggers that follow the history.

use clap::{Args, Subcommand};
use serde_json::json;

use super::backfill::connect;
use super::output::{print, thousands};
use super::{Done, Failure, Json, open_existing};
use crate::capture::error::CaptureError;
use crate::capture::install::Capture;
use crate::capture::status::{self, Status};
use crate::config::Config;

#[derive(Debug, Subcommand)]
pub(super) enum CaptureCommand {
    /// Install the triggers on the history's table and its partitions
    Install(Print),
    /// Tell whether every change of the history is noted, and what waits
    Status(Json),
    /// Remove the triggers and every trace of them
    Uninstall(Print),
}

#[derive(Debug, Args)]
pub(super) struct Print {
    /// Only print the SQL
    #[arg(long)]
    print: bool,
}

pub(super) async fn run(config: &Config, command: &CaptureCommand) -> Result<Done, Failure> {
    let history = connect(config).await?;
    let done = async {
        let capture = Capture::of(&history).map_err(failure)?;
        match command {
            CaptureCommand::Install(Print { print: true }) => {
                print(capture.install_sql().await.map_err(failure)?)?
            }
            CaptureCommand::Uninstall(Print { print: true }) => {
                print(capture.uninstall_sql().await?)?;
            }
            CaptureCommand::Install(_) => match capture.install().await.map_err(failure)? {
                true => eprintln!(
                    "installed; from now on every change of the history is noted. What was there \
                     before is the backfill's: recents backfill"
                ),
                false => eprintln!("it is installed already, on the table and all its partitions"),
            },
            CaptureCommand::Uninstall(_) => match capture.uninstall().await? {
                true => eprintln!("removed; changes of the history are no longer noted"),
                false => eprintln!("there is nothing to remove"),
            },
            CaptureCommand::Status(args) => {
                let store = open_existing(config).await?;
                let status = status::of(&store, &history).await;
                store.close().await;
                return show(&status?, args.json);
            }
        }
        Ok(Done::Complete)
    };
    let done = done.await;
    history.close().await;
    done
}

fn show(status: &Status, as_json: bool) -> Result<Done, Failure> {
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
            "tables": tables,
            "backlog_rows": status.backlog_rows,
            "overfull": status.is_overfull,
            "lag_seconds": status.lag.as_secs_f64(),
            "notes": status.notes,
            "set_aside": status.set_aside,
            "index": status.index,
        });
        print(format_args!("{line}\n"))?;
    } else {
        print(lines(status))?;
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

fn lines(status: &Status) -> String {
    let coverage = &status.coverage;
    let mut text = format!(
        "installed  {}\n",
        match (coverage.installed, coverage.current) {
            (false, _) => "no",
            (true, true) => "yes",
            (true, false) => "by another version or for another key; install it again",
        }
    );
    for covered in &coverage.tables {
        let state = covered.problem.as_deref().unwrap_or("covered");
        text += &format!("table      {}: {state}\n", covered.table);
    }
    text += &format!(
        "waiting    {} rows of the outbox, the oldest for {:.1} s; {} notes of the table\n",
        thousands(status.backlog_rows),
        status.lag.as_secs_f64(),
        thousands(status.notes),
    );
    text += &format!(
        "set aside  {} whose mapping fails\n",
        thousands(status.set_aside)
    );
    for (what, error) in &status.examples {
        text += &format!("           {what}: {error}\n");
    }
    if let Some(index) = &status.index {
        text += &format!(
            "advice     computing one row again reads the whole history; this index ends that:\n\
             \x20          {index}\n"
        );
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
