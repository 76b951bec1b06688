//! `recents estimate`.

use std::time::Duration;

use serde_json::json;

use super::backfill::connect;
use super::output::{chain, columns, duration, print, thousands};
use super::{Done, Failure, Json};
use crate::config::Config;
use crate::history::estimate::{Estimate, estimate};

/// What the table's own read adds to a round trip, measured (docs/BENCHMARKS.md).
const TABLE_READ: Duration = Duration::from_micros(30);

pub(super) async fn run(config: &Config, args: &Json) -> Result<Done, Failure> {
    let history = connect(config).await?;
    let estimated = estimate(&history).await;
    history.close().await;
    let estimated = estimated.map_err(|error| match error.is_of_the_data() {
        true => Failure::failed(format!(
            "a run cannot be mapped: {}: mend it, or let history.query leave it out; `recents backfill` \
             names such runs, and passes them over",
            chain(&error)
        )),
        false => Failure::from_history(error),
    })?;
    match args.json {
        true => print(format_args!("{}\n", as_json(&estimated)))?,
        false => print(as_text(&estimated))?,
    }
    Ok(Done::Complete)
}

fn with_table(estimated: &Estimate) -> Duration {
    estimated.round_trip + TABLE_READ
}

fn as_text(estimated: &Estimate) -> String {
    let mut rows = vec![
        [
            "workspace",
            "runs",
            "published runs",
            "today",
            "with recents",
        ]
        .map(String::from)
        .to_vec(),
    ];
    for workspace in &estimated.busiest {
        rows.push(vec![
            workspace.workspace.clone(),
            thousands(workspace.runs),
            thousands(workspace.published_runs),
            workspace.today.map_or("over 2 s".into(), duration),
            duration(with_table(estimated)),
        ]);
    }
    format!(
        "About {} runs, of which {} were sampled. The busiest workspaces' newest published runs \
         cost, about:\n\n{}\nThe table would have about {} rows and {} MB; a backfill by windows \
         would take about {}.\n",
        thousands(estimated.runs),
        thousands(estimated.sampled),
        columns(&rows),
        thousands(estimated.rows),
        thousands(estimated.table_bytes.div_ceil(1_000_000)),
        duration(estimated.backfill),
    )
}

fn as_json(estimated: &Estimate) -> serde_json::Value {
    let seconds = |d: Duration| (d.as_secs_f64() * 1e6).round() / 1e6;
    let busiest: Vec<_> = estimated
        .busiest
        .iter()
        .map(|w| {
            json!({
                "workspace": w.workspace, "runs": w.runs, "published_runs": w.published_runs,
                "seconds_today": w.today.map(seconds), "timed_runs": w.timed_runs,
                "seconds_with_recents": seconds(with_table(estimated)),
            })
        })
        .collect();
    json!({
        "runs": estimated.runs, "sampled": estimated.sampled, "busiest": busiest,
        "rows": estimated.rows, "table_bytes": estimated.table_bytes,
        "backfill_seconds": seconds(estimated.backfill),
    })
}
