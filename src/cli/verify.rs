//! `recents verify`.

use clap::Args;
use serde_json::json;

use super::backfill::connect;
use super::output::{print, thousands};
use super::progress::Progress;
use super::{Done, Failure, Json, open_existing};
use crate::check::{self, Difference};
use crate::config::Config;
use crate::model::{Id, Newest};

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
    let mut progress = Progress::start();
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
        |difference| print(line(difference, as_json)),
        |summary| progress.show(summary.tally.scanned, total, summary.tally.scanned),
    )
    .await;
    progress.end();
    store.close().await;
    history.close().await;
    let summary = verified?;
    let (runs, rows, differences) = (summary.tally.scanned, summary.rows, summary.differences);
    let seconds = summary.elapsed.as_secs_f64();
    if as_json {
        let summary = json!({
            "runs": runs, "rows": rows, "differences": differences, "repaired": args.repair,
            "seconds": (seconds * 1000.0).round() / 1000.0,
        });
        print(format_args!("{summary}\n"))?;
    } else {
        print(format_args!(
            "{} runs, {} rows, {} differences, {seconds:.1} s\n",
            thousands(runs),
            thousands(rows),
            thousands(differences)
        ))?;
    }
    if args.repair && differences > 0 {
        eprintln!("the rows that differed were computed again; another verify proves it");
    }
    Ok(if differences > 0 {
        Done::Drift
    } else {
        Done::Complete
    })
}

/// A difference as a line.
fn line(difference: &Difference, as_json: bool) -> String {
    let (workspace, uid, published_run) = difference.key.parts();
    let (history, table) = (&difference.history, &difference.table);
    if as_json {
        let use_of = |newest: &Option<Newest>| {
            newest
                .as_ref()
                .map(|n| json!({"last_used_at": n.last_used_at, "run": n.run}))
        };
        let line = json!({
            "kind": difference.kind.to_string(),
            "workspace": workspace,
            "uid": Some(uid).filter(|uid| !uid.is_empty()),
            "published_run": published_run,
            "history": use_of(history),
            "table": use_of(table),
        });
        return format!("{line}\n");
    }
    let use_of = |newest: &Option<Newest>| match newest {
        Some(n) => format!(
            "{} (run {})",
            n.last_used_at,
            n.run.as_deref().unwrap_or("-")
        ),
        None => "nothing".into(),
    };
    let user = if uid.is_empty() {
        String::new()
    } else {
        format!(" user {uid}")
    };
    format!(
        "{:<8} workspace {workspace}{user} published run {published_run}: history {}, table {}\n",
        difference.kind,
        use_of(history),
        use_of(table)
    )
}
