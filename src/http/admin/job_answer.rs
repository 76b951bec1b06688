//! A job, as it is answered.

use serde::Serialize;
use utoipa::ToSchema;

use crate::jobs::Counts;
use crate::model::{Changes, Time};
use crate::store::job::{JobRow, State as JobState};

/// A job.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct JobAnswer {
    id: String,
    /// `backfill` or `resync`.
    kind: String,
    /// `queued`, `running`, `paused`, `succeeded`, `failed` or `cancelled`.
    state: &'static str,
    /// Absent: everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    workspace: Option<String>,
    /// Of a re-sync: `merge` or `rebuild`.
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<String>,
    /// Of a re-sync: whether it only tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    dry_run: Option<bool>,
    progress: Progress,
    result: Done,
    /// When it was first worked at; until then, when it was asked for.
    #[schema(value_type = String, format = DateTime)]
    started_at: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    finished_at: Option<Time>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// What a job did.
#[derive(Debug, Serialize, ToSchema)]
struct Done {
    #[serde(flatten)]
    changes: Changes,
    /// Runs that cannot be mapped: they were passed over, and rows that name them left as they are.
    unmappable: u64,
}

/// How far a job came.
#[derive(Debug, Serialize, ToSchema)]
struct Progress {
    /// Runs of the history, and rows of the table, that were looked at.
    scanned: u64,
    /// About how many there are; null where nobody knows.
    total: Option<u64>,
    percent: Option<f64>,
    /// While it runs.
    eta_seconds: Option<u64>,
}

impl From<JobRow> for JobAnswer {
    fn from(job: JobRow) -> Self {
        let counts = Counts::read(&job.counts);
        let options: serde_json::Value = serde_json::from_str(&job.options).unwrap_or_default();
        Self {
            progress: Progress::of(&job, counts.per_second),
            id: job.id,
            kind: job.kind,
            state: job.state.name(),
            workspace: job.workspace.map(|workspace| workspace.to_string()),
            mode: options["mode"].as_str().map(ToOwned::to_owned),
            dry_run: options["dry_run"].as_bool(),
            result: Done {
                changes: counts.changes,
                unmappable: counts.unmappable(),
            },
            started_at: job.started_at,
            finished_at: job.finished_at,
            error: job.error,
        }
    }
}

impl Progress {
    fn of(job: &JobRow, per_second: f64) -> Self {
        let scanned = job.scanned;
        let percent = match (job.state, job.total) {
            (JobState::Succeeded, _) => Some(100.0),
            (_, Some(total)) if total > 0 => {
                let percent = scanned as f64 * 100.0 / total as f64;
                Some((percent * 10.0).round().min(1_000.0) / 10.0)
            }
            _ => None,
        };
        let left = job.total.map(|total| total.saturating_sub(scanned));
        let left = left.filter(|_| job.state == JobState::Running && per_second > 0.0);
        Self {
            scanned,
            total: job.total,
            percent,
            eta_seconds: left.map(|left| (left as f64 / per_second).ceil() as u64),
        }
    }
}
