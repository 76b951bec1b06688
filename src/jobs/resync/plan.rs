//! The plan of a dry run: what would change, and why.

use super::super::counts::Counts;
use crate::check::{Difference, Kind};
use crate::model::Changes;
use crate::store::job::PlanLine;

/// Lines of a plan at the most: about 30 MB beside the jobs for as long as they are kept. What is more is
/// counted; nobody reads so many, and a rebuild is what they call for.
pub(crate) const MAX_LINES: u64 = 100_000;

/// Counts these differences, and makes lines of as many as the plan has room for.
pub(super) fn lines(differences: &[Difference], counts: &mut Counts) -> Vec<PlanLine> {
    let room = MAX_LINES.saturating_sub(counts.kept);
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    let lines: Vec<_> = differences.iter().take(room).map(line).collect();
    counts.kept += lines.len() as u64;
    for difference in differences {
        counts.changes.add(change(difference.kind));
    }
    lines
}

fn change(kind: Kind) -> Changes {
    let mut changes = Changes::default();
    match kind {
        Kind::Missing => changes.added = 1,
        Kind::Stale => changes.raised = 1,
        Kind::Ahead => changes.lowered = 1,
        Kind::Extra => changes.removed = 1,
    }
    changes
}

fn line(difference: &Difference) -> PlanLine {
    let mut line = difference.to_json();
    line["reason"] = difference.reason.to_string().into();
    PlanLine {
        key: difference.key.clone(),
        line: line.to_string(),
    }
}
