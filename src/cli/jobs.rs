//! What commands say about the job that they work at.

use super::Done;
use super::output::thousands;
use super::progress::Progress;
use crate::jobs::{Event, Outcome};

/// Says what comes before the work.
pub(super) fn say<R>(progress: &Progress, event: &Event<R>) {
    match event {
        Event::Waiting {
            kind,
            job,
            remaining,
        } => progress.say(format_args!(
            "{kind} {job} is in the way, and nobody may be at work at it: waiting up to {} s to see",
            remaining.as_secs() + 1
        )),
        Event::Resumed { scanned } => progress.say(format_args!(
            "going on behind {} runs (--restart begins anew)",
            thousands(*scanned)
        )),
        Event::Progress(_) => {}
    }
}

/// Says how the work ended, where it ended early.
pub(super) fn done(outcome: &Outcome, how_to_go_on: &str) -> Done {
    match outcome {
        Outcome::Complete => return Done::Complete,
        Outcome::Stopped => eprintln!("stopped; {how_to_go_on}"),
        Outcome::Paused { job } => eprintln!(
            "an operator paused job {job}; once it is resumed (POST /admin/v1/jobs/{job}/resume), \
             {how_to_go_on}"
        ),
        Outcome::Cancelled { job } => {
            eprintln!("an operator cancelled job {job}; the same command begins anew");
        }
    }
    Done::Resumable
}
