//! The plan of a dry run: what would change, and why.

use super::super::counts::Counts;
use crate::check::{Difference, Kind};
use crate::model::Changes;
use crate::store::job::PlanLine;

/// Lines of a plan at the most: about 30 MB beside the jobs for as long as they are kept. What is more is
/// counted; nobody reads so many, and a rebuild is what they call for.
pub(super) const MAX_LINES: u64 = 100_000;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Reason;
    use crate::model::Key;

    #[test]
    fn what_a_plan_has_no_room_for_is_counted_all_the_same() {
        let difference = |kind, published_run: &str| Difference {
            kind,
            reason: Reason::NoRun,
            key: Key::new("w", "", published_run),
            history: None,
            table: None,
        };
        let differences = [
            difference(Kind::Extra, "a"),
            difference(Kind::Ahead, "b"),
            difference(Kind::Extra, "c"),
        ];
        let mut counts = Counts {
            kept: MAX_LINES - 2,
            ..Counts::default()
        };
        let kept = lines(&differences, &mut counts);
        let kept: Vec<_> = kept.iter().map(|line| line.key.parts().2).collect();
        assert_eq!(kept, ["a", "b"]);
        assert_eq!((counts.changes.removed, counts.changes.lowered), (2, 1));
        assert!(lines(&differences, &mut counts).is_empty());
        assert_eq!((counts.changes.in_all(), counts.kept), (6, MAX_LINES));
    }
}
