//! `recents backfill`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use super::output::{counted, print, thousands};
use super::progress::Progress;
use super::unmappable::Told;
use super::{Done, Failure, Json, jobs, migrated, no_answer, signals, usage};
use crate::config::{Config, ConfigError, HistoryConfig};
use crate::history::file::{FileSource, OnError};
use crate::history::{self, History, HistoryError, windows};
use crate::jobs::JobError;
use crate::jobs::backfill::{self, Event, Options, Origin, Outcome, Report};

#[derive(Debug, Args)]
pub(super) struct BackfillArgs {
    /// Read a file instead of [history]: .csv, .ndjson or .jsonl, gzipped or not; with another name, and
    /// for `-`, standard input, the content tells. Its columns, by name: workspace, published_run,
    /// last_used_at and, where known, uid and run
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// What a broken line of the file does; a quote that takes in other lines always stops
    #[arg(long, value_enum, default_value = "stop", requires = "from")]
    on_error: OnErrorArg,
    /// Begin anew, whatever an earlier backfill did
    #[arg(long)]
    restart: bool,
    /// Read everything in one query over one snapshot: faster, and it holds back vacuum meanwhile; a run
    /// that cannot be mapped fails it
    #[arg(long, conflicts_with = "from")]
    one_pass: bool,
    /// Runs of a window at the most
    #[arg(long, value_name = "N", default_value_t = windows::RUNS, conflicts_with_all = ["from", "one_pass"],
          value_parser = clap::value_parser!(u32).range(1..=i64::from(windows::MAX_RUNS)))]
    window_runs: u32,
    /// Only tell how many rows would change; at most how many, where they do not fit into memory at once
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    json: Json,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum OnErrorArg {
    /// Pass over it, and count it
    Skip,
    /// Stop, and name it
    Stop,
}

pub(super) async fn run(config: &Config, args: &BackfillArgs) -> Result<Done, Failure> {
    let (origin, history) = origin(config, args).await?;
    let store = migrated(config, args.dry_run).await?;
    let (mut progress, mut began) = (Progress::start(), false);
    let (mut read, mut all_read) = (false, false);
    let mut told = Told::default();
    let options = Options {
        restart: args.restart,
        dry_run: args.dry_run,
        history: history.clone(),
    };
    let stop = signals::stop()?;
    let ran = backfill::run(&store, origin, options, stop, |event| {
        let Event::Progress(report) = event else {
            return jobs::say(&progress, &event);
        };
        if !std::mem::replace(&mut began, true) {
            // The wait for a lease is none of the work.
            progress.begin();
        }
        read |= report.tally.scanned > 0;
        all_read = report.all_read;
        told.name(&progress, &report.unmappable);
        progress.show(report.tally.scanned, report.total, report.scanned_now);
    })
    .await;
    progress.end();
    told.end();
    store.close().await;
    if let Some(history) = history {
        history.close().await;
    }
    let is_reordered = matches!(ran, Err(JobError::History(HistoryError::Reordered)));
    if read && !is_reordered && matches!(ran, Err(JobError::History(_))) {
        eprintln!("{}", how_to_go_on(args, all_read));
    }
    let (outcome, report) = ran?;
    show(args, &outcome, &report)?;
    Ok(jobs::done(&outcome, how_to_go_on(args, all_read)))
}

/// What becomes of work that ended early; where all is read, it looks once more at the rows that it wrote.
fn how_to_go_on(args: &BackfillArgs, all_read: bool) -> &'static str {
    match args.from.as_deref() {
        _ if args.dry_run => "a dry run keeps nothing: the same command begins anew",
        Some(from) if all_read && from == Path::new("-") => {
            "all was read, and its rows are in the table: `recents serve` looks once more at them, or \
             `recents verify --repair`"
        }
        Some(from) if from == Path::new("-") => {
            "standard input cannot be gone on with: send it again"
        }
        _ if args.one_pass && !all_read => {
            "one pass cannot be gone on with: the same command begins anew"
        }
        _ if args.restart => "the same command without --restart goes on from here",
        _ => "the same command goes on from here",
    }
}

async fn origin(
    config: &Config,
    args: &BackfillArgs,
) -> Result<(Origin, Option<Arc<History>>), Failure> {
    // Whatever is read, its rows are held against the history in the end: it must be one.
    let history = match (&args.from, &config.history) {
        (Some(_), None) => None,
        (None, None) => return Err(not_configured(", or give --from FILE")),
        _ => Some(connect(config).await?),
    };
    if let Some(path) = &args.from {
        let on_error = match args.on_error {
            OnErrorArg::Skip => OnError::Skip,
            OnErrorArg::Stop => OnError::Stop,
        };
        let file = FileSource::new(path.clone(), on_error);
        return Ok((Origin::File(file), history));
    }
    let history = match history {
        Some(history) => history,
        None => connect(config).await?,
    };
    let origin = match args.one_pass {
        true => Origin::OnePass(Arc::clone(&history)),
        false => Origin::Windows(Arc::clone(&history), args.window_runs),
    };
    Ok((origin, Some(history)))
}

/// What is configured of the history.
pub(super) fn configured(config: &Config) -> Result<&HistoryConfig, Failure> {
    config.history.as_ref().ok_or_else(|| not_configured(""))
}

/// The configured history, open and checked.
pub(super) async fn connect(config: &Config) -> Result<Arc<History>, Failure> {
    match history::connect(configured(config)?).await {
        Ok(history) => Ok(Arc::new(history)),
        Err(HistoryError::Database(error)) => {
            let (url, origin) = config.explain_history();
            let error = no_answer(&error);
            Err(Failure::failed(format!(
                "the history at {url} (from {origin}) cannot be read: {error}"
            )))
        }
        Err(error) => Err(Failure::from_history(error)),
    }
}

fn not_configured(otherwise: &str) -> Failure {
    usage(ConfigError::new(
        "history",
        format_args!("is not configured; add [history] with table, key and query{otherwise}"),
    ))
}

fn show(args: &BackfillArgs, outcome: &Outcome, report: &Report) -> Result<(), Failure> {
    let tally = &report.tally;
    let seconds = report.elapsed.as_secs_f64();
    let rate = if seconds > 0.0 {
        report.scanned_now as f64 / seconds
    } else {
        0.0
    };
    if args.json.json {
        let reasons: Map<String, Value> = tally
            .reasons()
            .map(|(reason, count)| (reason.into(), count.into()))
            .collect();
        let summary = json!({
            "complete": *outcome == Outcome::Complete,
            "dry_run": args.dry_run,
            "scanned": tally.scanned,
            "skipped": tally.skipped_in_all(),
            "reasons": reasons,
            "applied": report.applied,
            "at_most": report.at_most,
            "runs_per_second": rate.round(),
            "seconds": (seconds * 1000.0).round() / 1000.0,
        });
        print(format_args!("{summary}\n"))?;
        return Ok(());
    }
    let applied = if args.dry_run {
        "would be applied"
    } else {
        "applied"
    };
    print(format_args!(
        "{} runs scanned, {} skipped, {} rows {applied}, {} runs/s, {seconds:.1} s\n",
        thousands(tally.scanned),
        thousands(tally.skipped_in_all()),
        counted(report.applied, report.at_most),
        thousands(rate.round() as u64),
    ))?;
    for (reason, count) in tally.reasons() {
        print(format_args!("  {reason}: {}\n", thousands(count)))?;
    }
    Ok(())
}
