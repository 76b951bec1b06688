//! `recents verify`.

use clap::Args;
use serde_json::{Value, json};

use super::backfill::connect;
use super::output::{counted, print, thousands};
use super::progress::Progress;
use super::unmappable::Told;
use super::{Done, Failure, Json, open_existing};
use crate::check::{self, Difference, Limits};
use crate::config::Config;
use crate::model::Id;

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// Only this workspace
    #[arg(long, value_parser = |text: &str| Id::new(text))]
    workspace: Option<Id>,
    /// Compute the rows that differ again; the exit code is 3 all the same
    #[arg(long)]
    repair: bool,
    #[command(flatten)]
    json: Json,
}

pub(super) async fn run(config: &Config, args: &VerifyArgs) -> Result<Done, Failure> {
    let history = connect(config).await?;
    let store = open_existing(config).await?;
    let (mut progress, mut told) = (Progress::start(), Told::default());
    let total = history
        .about_how_many()
        .await?
        .filter(|_| args.workspace.is_none());
    let as_json = args.json.json;
    let verified = check::verify(
        &store,
        &history,
        args.workspace.as_ref(),
        args.repair,
        Limits::default(),
        |difference| print(line(difference, as_json)),
        |summary| {
            told.name(&progress, &summary.unmappable);
            progress.show(summary.tally.scanned, total, summary.tally.scanned);
        },
    )
    .await;
    progress.end();
    told.end();
    store.close().await;
    history.close().await;
    let summary = verified?;
    let (runs, rows, differences) = (summary.tally.scanned, summary.rows, summary.differences);
    let waiting = summary.waiting;
    let (unmappable, seconds) = (summary.unmappable.count(), summary.elapsed.as_secs_f64());
    if as_json {
        let summary = json!({
            "runs": runs, "rows": rows, "differences": differences, "waiting": waiting,
            "at_most": summary.at_most, "unmappable": unmappable,
            "repaired": args.repair,
            "seconds": (seconds * 1000.0).round() / 1000.0,
        });
        print(format_args!("{summary}\n"))?;
    } else {
        print(format_args!(
            "{} runs, {} rows, {} differences, {seconds:.1} s\n",
            thousands(runs),
            thousands(rows),
            counted(differences, summary.at_most)
        ))?;
    }
    if unmappable > 0 {
        eprintln!(
            "{} runs cannot be mapped: of the rows that name them nothing is known",
            thousands(unmappable)
        );
    }
    if waiting > 0 && !args.repair {
        eprintln!(
            "of the rows that differ, {} have notes about them that nobody works off: run `recents serve`, or \
             `recents verify --repair`",
            thousands(waiting)
        );
    }
    if args.repair && differences > 0 {
        eprintln!("the rows that differed were computed again; another verify proves it");
    }
    Ok(match differences {
        0 => Done::Complete,
        _ => Done::Drift,
    })
}

/// A difference as a line.
fn line(difference: &Difference, as_json: bool) -> String {
    let json = difference.to_json();
    match as_json {
        true => format!("{json}\n"),
        false => told(&json),
    }
}

/// A difference for people, with the reason where it has one.
pub(super) fn told(difference: &Value) -> String {
    let text = |name: &str| difference[name].as_str().map(escaped);
    let use_of = |side: &str| match difference[side]["last_used_at"].as_str() {
        Some(at) => format!(
            "{at} (run {})",
            escaped(difference[side]["run"].as_str().unwrap_or("-"))
        ),
        None => "nothing".into(),
    };
    let user = text("uid").map_or(String::new(), |uid| format!(" user {uid}"));
    let reason = text("reason").map_or(String::new(), |reason| format!("; {reason}"));
    format!(
        "{:<8} workspace {}{user} published run {}: history {}, table {}{reason}\n",
        text("kind").unwrap_or_default(),
        text("workspace").unwrap_or_default(),
        text("published_run").unwrap_or_default(),
        use_of("history"),
        use_of("table")
    )
}

/// A text without what moves a terminal's cursor or ends the line: an id of a row that someone's SQL wrote
/// may have it.
fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    shown
}
