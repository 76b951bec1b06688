//! `recents resync`.

use std::io::{BufRead, IsTerminal};

use clap::{ArgGroup, Args, ValueEnum};
use serde_json::json;

use super::backfill::connect;
use super::output::{print, thousands};
use super::progress::Progress;
use super::unmappable::Told;
use super::verify::told;
use super::{Done, Failure, Json, jobs, open_existing, signals};
use crate::config::Config;
use crate::jobs::resync::{self, Event, Mode, Options, Report, With};
use crate::jobs::{JobError, Outcome};
use crate::model::{Id, Key};
use crate::store::{Store, job};

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true))]
pub(super) struct ResyncArgs {
    /// Only this workspace
    #[arg(long, group = "what", value_parser = |text: &str| Id::new(text))]
    workspace: Option<Id>,
    /// Everything
    #[arg(long, group = "what")]
    all: bool,
    /// `merge` only raises and adds; `rebuild` lowers and removes too
    #[arg(long, value_enum, default_value = "merge")]
    mode: ModeArg,
    /// Only tell which rows would change, and why
    #[arg(long)]
    dry_run: bool,
    /// Do not ask before a rebuild of everything
    #[arg(long)]
    yes: bool,
    /// Begin anew, whatever an earlier re-sync that was stopped did
    #[arg(long)]
    restart: bool,
    #[command(flatten)]
    json: Json,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ModeArg {
    Merge,
    Rebuild,
}

pub(super) async fn run(config: &Config, args: &ResyncArgs) -> Result<Done, Failure> {
    let options = Options {
        mode: match args.mode {
            ModeArg::Merge => Mode::Merge,
            ModeArg::Rebuild => Mode::Rebuild,
        },
        dry_run: args.dry_run,
    };
    if args.all && options.mode == Mode::Rebuild && !options.dry_run && !args.yes {
        ask()?;
    }
    let history = connect(config).await?;
    let store = open_existing(config).await?;
    let with = With {
        store,
        history,
        metrics: None,
        pause_while: config.resync_pause_while.clone(),
        settles: true,
    };
    let done = resync(&with, args, options).await;
    with.store.close().await;
    with.history.close().await;
    done
}

/// Asks whoever sits there whether every row may be changed.
fn ask() -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Usage(
            "a rebuild of everything lowers and removes rows: say --yes, where nobody can be asked"
                .into(),
        ));
    }
    eprintln!(
        "A rebuild looks at every row of the table, and lowers or removes those that the history does \
         not support (--dry-run tells which). Go on? [y/N]"
    );
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::failed("nothing was changed")),
    }
}

async fn resync(with: &With, args: &ResyncArgs, options: Options) -> Result<Done, Failure> {
    let (mut progress, mut began) = (Progress::start(), false);
    let mut told = Told::default();
    let workspace = args.workspace.as_ref();
    let stop = signals::stop()?;
    let ran = resync::run(with, workspace, options, args.restart, stop, |event| {
        let Event::Progress(report) = event else {
            return jobs::say(&progress, &event);
        };
        if !std::mem::replace(&mut began, true) {
            // The wait for a lease is none of the work.
            progress.begin();
        }
        if report.is_held_up {
            progress.say(
                "resync.pause_while says true, or gets no answer: waiting until it says false",
            );
        }
        told.name(&progress, &report.passed_over);
        progress.show(report.scanned(), report.total, report.scanned_now);
    })
    .await;
    progress.end();
    told.end();
    let (outcome, report) = ran.map_err(|error| match error {
        JobError::History(error) => Failure::from_history(error),
        error => Failure::failed(error),
    })?;
    if args.dry_run && outcome == Outcome::Complete {
        print_plan(&with.store, &report, args.json.json).await?;
    }
    show(args, options, &outcome, &report)?;
    Ok(jobs::done(&outcome, "the same command goes on from here"))
}

/// Lines of the plan that are read together.
const LINES: u32 = 1_000;

async fn print_plan(store: &Store, report: &Report, as_json: bool) -> Result<(), Failure> {
    let mut after: Option<Key> = None;
    loop {
        let lines = job::plan_after(store, &report.job, after.as_ref(), LINES).await?;
        let Some(last) = lines.last() else { break };
        after = Some(last.key.clone());
        for line in &lines {
            match as_json {
                true => print(format_args!("{}\n", line.line))?,
                false => print(told(&serde_json::from_str(&line.line)?))?,
            }
        }
    }
    if report.omitted > 0 {
        eprintln!("{} more rows would change", thousands(report.omitted));
    }
    Ok(())
}

fn show(
    args: &ResyncArgs,
    options: Options,
    outcome: &Outcome,
    report: &Report,
) -> Result<(), Failure> {
    let changes = &report.changes;
    let seconds = report.elapsed.as_secs_f64();
    if args.json.json {
        let summary = json!({
            "job": report.job,
            "complete": *outcome == Outcome::Complete,
            "mode": options.mode.name(),
            "dry_run": options.dry_run,
            "scanned": report.tally.scanned,
            "skipped": report.tally.skipped_in_all(),
            "unmappable": report.unmappable,
            "rows": report.rows,
            "added": changes.added,
            "raised": changes.raised,
            "lowered": changes.lowered,
            "removed": changes.removed,
            "seconds": (seconds * 1000.0).round() / 1000.0,
        });
        print(format_args!("{summary}\n"))?;
        return Ok(());
    }
    let words = match options.dry_run {
        true => ["to add", "to raise", "to lower", "to remove"],
        false => ["added", "raised", "lowered", "removed"],
    };
    let counts = [
        changes.added,
        changes.raised,
        changes.lowered,
        changes.removed,
    ];
    let changed = counts.into_iter().zip(words);
    let changed: Vec<_> = changed
        .map(|(n, word)| format!("{} {word}", thousands(n)))
        .collect();
    print(format_args!(
        "{} runs, {} rows, {}, {seconds:.1} s\n",
        thousands(report.tally.scanned),
        thousands(report.rows),
        changed.join(", "),
    ))?;
    if report.unmappable > 0 {
        let runs = thousands(report.unmappable);
        print(format_args!("  unmappable: {runs}\n"))?;
    }
    Ok(())
}
