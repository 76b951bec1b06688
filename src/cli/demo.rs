//! `recents demo`: the whole way, embedded, on a sample history.

mod questions;
mod sample;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::sync::watch;

use super::output::{columns, duration, print, thousands};
use super::progress::Progress;
use super::{Done, Failure, Json, open, serve, signals, usage};
use crate::config::Config;
use crate::history::{self, windows};
use crate::jobs::backfill::{self, Event, Options, Origin, Outcome};
use crate::model::{Id, Scope};
use crate::read::{PageRequest, pages};
use crate::store::Store;

/// The workspace that the curl lines play with: it has ten workflows.
const PLAYGROUND: &str = "3466675";

#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Runs of the sample history
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..=50_000_000))]
    runs: u64,
    /// Where its two databases are written, over those of an earlier demo
    #[arg(long, value_name = "DIR", default_value = "recents-demo")]
    dir: PathBuf,
    /// Do not serve at the end
    #[arg(long)]
    no_serve: bool,
    #[command(flatten)]
    json: Json,
}

/// Runs the demo; `flags` may name other addresses to listen on.
pub(super) fn run(args: &DemoArgs, flags: Vec<(&'static str, String)>) -> Result<Done, Failure> {
    let config = configure(&args.dir, flags)?;
    // Before the work: a busy port is told at once.
    let bound = if args.no_serve {
        None
    } else {
        Some(serve::Bound::new(&config)?)
    };
    let listen = bound.as_ref().map(serve::Bound::address).transpose()?;
    let done = super::wait_for(async {
        let mut stop = signals::stop()?;
        tokio::select! {
            done = seed(&config, args, listen, stop.clone()) => done,
            // No code of its own for what can be gone on with: it cannot.
            _ = stop.wait_for(|stop| *stop) => Err(stopped()),
        }
    })?;
    match bound {
        Some(bound) => {
            eprintln!("\nServing until Ctrl-C.");
            serve::run_on(&config, bound)
        }
        None => Ok(done),
    }
}

fn stopped() -> Failure {
    Failure::failed("stopped before it was done; the same command begins anew")
}

/// The demo stands for itself: whatever is configured for real is not touched by it.
fn configure(dir: &Path, mut flags: Vec<(&'static str, String)>) -> Result<Config, Failure> {
    std::fs::create_dir_all(dir)
        .map_err(|error| Failure::failed(format!("{}: {error}", dir.display())))?;
    flags.retain(|(name, _)| *name != "database_url");
    flags.push((
        "database_url",
        format!("sqlite://{}", dir.join("demo-recents.db").display()),
    ));
    let nothing = Path::new("/dev/null");
    Config::load(&flags, &BTreeMap::new(), Some(nothing)).map_err(usage)
}

async fn seed(
    config: &Config,
    args: &DemoArgs,
    listen: Option<SocketAddr>,
    stop: watch::Receiver<bool>,
) -> Result<Done, Failure> {
    for name in ["demo-recents.db", "demo-history.db"] {
        for suffix in ["", "-wal", "-shm"] {
            // There may be none yet; where one cannot be removed, opening it says why.
            let _ = std::fs::remove_file(args.dir.join(format!("{name}{suffix}")));
        }
    }
    let path = args.dir.join("demo-history.db");
    eprintln!(
        "writing a history of about {} runs to {}",
        thousands(args.runs),
        path.display()
    );
    let samples = sample::write(&path, args.runs).await?;

    let history = Arc::new(history::connect(&sample::history(&path)).await?);
    let store = open(config)?;
    store.migrate().await?;
    eprintln!("backfilling the table from it");
    let mut progress = Progress::start();
    let origin = Origin::Windows(Arc::clone(&history), windows::RUNS);
    let filled = backfill::run(&store, origin, Options::default(), stop, |event| {
        if let Event::Progress(report) = event {
            progress.show(report.tally.scanned, Some(args.runs), report.scanned_now);
        }
    })
    .await;
    progress.end();
    let (outcome, report) = filled?;
    if outcome != Outcome::Complete {
        return Err(stopped());
    }
    eprintln!(
        "{} runs read, {} rows written, in {}\n",
        thousands(report.tally.scanned),
        thousands(report.applied),
        duration(report.elapsed)
    );
    let mut rows = vec![
        [
            "workspace",
            "runs",
            "workflows",
            "DISTINCT ON",
            "skip scan",
            "recents",
            "faster",
        ]
        .map(String::from)
        .to_vec(),
    ];
    let mut lines = Vec::new();
    let seconds = |took: Duration| (took.as_secs_f64() * 1e6).round() / 1e6;
    for workspace in &samples {
        let times = questions::ask(&path, &store, workspace).await?;
        let faster = times.distinct_on.as_secs_f64() / times.table.as_secs_f64().max(1e-9);
        rows.push(vec![
            workspace.name.into(),
            thousands(workspace.runs),
            workspace.published_runs.to_string(),
            duration(times.distinct_on),
            duration(times.skip_scan),
            duration(times.table),
            format!("{}x", thousands(faster as u64)),
        ]);
        lines.push(json!({
            "workspace": workspace.name,
            "runs": workspace.runs,
            "published_runs": workspace.published_runs,
            "distinct_on_seconds": seconds(times.distinct_on),
            "skip_scan_seconds": seconds(times.skip_scan),
            "recents_seconds": seconds(times.table),
        }));
    }
    if args.json.json {
        print(serde_json::to_string_pretty(&lines)? + "\n")?;
        store.close().await;
        history.close().await;
        return Ok(Done::Complete);
    }
    print(format_args!(
        "The last four workflows of a workspace, in process:\n\n{}",
        columns(&rows)
    ))?;
    print(questions::FOOTNOTE)?;
    if let Some(listen) = listen {
        show_curl(listen, &store).await?;
    }
    store.close().await;
    history.close().await;
    Ok(Done::Complete)
}

/// Two lines to try: a run of the last item of the page, and the page again.
async fn show_curl(listen: SocketAddr, store: &Store) -> Result<(), Failure> {
    let scope = Scope {
        workspace: Id::new(PLAYGROUND)?,
        uid: None,
    };
    let page = pages(
        store,
        vec![PageRequest {
            scope,
            cursor: None,
        }],
        4,
    )
    .await?
    .pop();
    let items = page.map(|page| page.recent_workflows).unwrap_or_default();
    let Some(last) = items.last() else {
        return Ok(());
    };
    print(format_args!(
        "\nMake workflow {item} jump to the top, and look:\n\n\
         curl -s -X POST http://{listen}/v1/runs -H 'Content-Type: application/json' \
         -d '{{\"runs\":[{{\"workspace\":\"{PLAYGROUND}\",\"published_run\":\"{item}\"}}]}}'\n\
         curl -s http://{listen}/v1/workspaces/{PLAYGROUND}/recent-workflows\n",
        item = last.published_run,
    ))?;
    Ok(())
}
