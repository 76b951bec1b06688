//! Progress of long work: a bar on a terminal, otherwise a plain line every two seconds.

use std::fmt::Write;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use super::output::thousands;

/// Lines that nobody watches come this seldom.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// What is shown on standard error meanwhile.
pub(super) enum Progress {
    Bar(ProgressBar),
    Lines { started: Instant, last: Instant },
}

impl Progress {
    pub(super) fn start() -> Self {
        let bar = ProgressBar::no_length();
        // Not every terminal can draw one: a dumb one cannot.
        if !bar.is_hidden() {
            bar.enable_steady_tick(Duration::from_millis(200));
            bar.set_style(style("{spinner} {human_pos} runs, {rate}/s"));
            return Self::Bar(bar);
        }
        let now = Instant::now();
        Self::Lines {
            started: now,
            last: now,
        }
    }

    /// From now on rates are reckoned.
    pub(super) fn begin(&mut self) {
        match self {
            Self::Bar(bar) => bar.reset_elapsed(),
            Self::Lines { started, last } => {
                *started = Instant::now();
                *last = *started;
            }
        }
    }

    /// Says something that stays.
    pub(super) fn say(&self, message: impl std::fmt::Display) {
        match self {
            Self::Bar(bar) => bar.suspend(|| eprintln!("{message}")),
            Self::Lines { .. } => eprintln!("{message}"),
        }
    }

    /// Shows how far the work came: `done` of about `total`, `now` of them since it was started.
    pub(super) fn show(&mut self, done: u64, total: Option<u64>, now: u64) {
        match self {
            Self::Bar(bar) => {
                if let Some(total) = total
                    && bar.length().is_none()
                {
                    bar.set_style(style(
                        "{bar:30} {percent}% {human_pos}/{human_len} runs, {rate}/s, {eta} left",
                    ));
                    // The rate is that of this process.
                    bar.set_position(done - now.min(done));
                    bar.reset_eta();
                    bar.set_length(total.max(done));
                }
                bar.set_position(done);
            }
            Self::Lines { started, last } => {
                if last.elapsed() < LINE_EVERY {
                    return;
                }
                *last = Instant::now();
                let rate = now as f64 / started.elapsed().as_secs_f64().max(0.001);
                let mut line = format!(
                    "{} runs, {} runs/s",
                    thousands(done),
                    thousands(rate as u64)
                );
                if let Some(total) = total.filter(|total| *total > done) {
                    let percent = done as f64 * 100.0 / total as f64;
                    line = format!("{line}, {percent:.0}% of about {}", thousands(total));
                    // Before the first ones nobody knows how long.
                    if now > 0 {
                        line = format!("{line}, {:.0} s left", (total - done) as f64 / rate);
                    }
                }
                eprintln!("{line}");
            }
        }
    }

    pub(super) fn end(self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    // A template that does not parse would show the default bar.
    let style = ProgressStyle::with_template(template);
    style
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .with_key("rate", |state: &ProgressState, out: &mut dyn Write| {
            // Writing to the bar's own buffer does not fail.
            let _ = out.write_str(&thousands(state.per_sec().round() as u64));
        })
}
