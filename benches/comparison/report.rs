//! The report: Markdown, ready to be pasted into `docs/BENCHMARKS.md`.

use std::fmt::Write;
use std::fs::read_to_string;

use recents::model::Time;

use crate::Failure;
use crate::server::{Server, text};

/// What was found so far.
pub(crate) struct Report(String);

impl Report {
    pub(crate) async fn begin(server: &Server, runs: u64) -> Result<Self, Failure> {
        let mut conn = server.connect().await?;
        let version = text(&mut conn, "current_setting('server_version')").await?;
        let version = version.split(' ').next().unwrap_or_default().to_owned();
        let buffers = text(&mut conn, "current_setting('shared_buffers')").await?;
        let fsync = text(&mut conn, "current_setting('fsync')").await?;
        let cores = std::thread::available_parallelism()?;
        let memory = memory().unwrap_or_else(|| "unknown memory".into());
        let processor = processor().unwrap_or_else(|| "unknown processor".into());
        let now = Time::now().to_string();
        let mut report = Self(String::new());
        report.line(&format!(
            "{} runs on {cores} cores ({processor}) for everything, {memory}; PostgreSQL {version}, \
             shared_buffers {buffers}, fsync {fsync}, everything warm; recents {}, {}.",
            grouped(runs),
            env!("CARGO_PKG_VERSION"),
            now.split('T').next().unwrap_or_default(),
        ));
        Ok(report)
    }

    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    pub(crate) fn heading(&mut self, text: &str) {
        let _ = write!(self.0, "## {text}\n\n");
    }

    /// A paragraph.
    pub(crate) fn line(&mut self, text: &str) {
        eprintln!("{text}");
        let _ = write!(self.0, "{text}\n\n");
    }

    /// A table; the first row is its header.
    pub(crate) fn table(&mut self, rows: &[Vec<String>]) {
        for (at, row) in rows.iter().enumerate() {
            eprintln!("{}", row.join(" | "));
            let _ = writeln!(self.0, "| {} |", row.join(" | "));
            if at == 0 {
                let _ = writeln!(self.0, "|{}", "---|".repeat(row.len()));
            }
        }
        self.0.push('\n');
    }
}

/// A target and whether it was met.
pub(crate) fn target(what: &str, met: bool) -> String {
    format!("{what}: {}", if met { "met" } else { "**missed**" })
}

/// The median of some figures; they are sorted by it.
pub(crate) fn median(figures: &mut [f64]) -> f64 {
    percentile(figures, 0.5)
}

pub(crate) fn percentile(figures: &mut [f64], part: f64) -> f64 {
    figures.sort_by(f64::total_cmp);
    let last = figures.len().saturating_sub(1);
    // In range: a part of the number of figures.
    let at = (last as f64 * part).round() as usize;
    figures.get(at).copied().unwrap_or(f64::NAN)
}

/// Seconds as a reader takes them in: three digits and a unit.
pub(crate) fn time(seconds: f64) -> String {
    let (figure, unit) = match seconds {
        ..1e-3 => (seconds * 1e6, "µs"),
        ..1.0 => (seconds * 1e3, "ms"),
        _ => (seconds, "s"),
    };
    format!("{} {unit}", digits(figure))
}

/// Three digits, or all before the point.
pub(crate) fn digits(figure: f64) -> String {
    match figure {
        ..10.0 => format!("{figure:.2}"),
        ..100.0 => format!("{figure:.1}"),
        ..1000.0 => format!("{figure:.0}"),
        _ => grouped(figure.round() as u64),
    }
}

pub(crate) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let groups: Vec<_> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(String::from_utf8_lossy)
        .collect();
    groups.join(",")
}

fn memory() -> Option<String> {
    let info = read_to_string("/proc/meminfo").ok()?;
    let kib: f64 = info.split_whitespace().nth(1)?.parse().ok()?;
    Some(format!("{:.0} GiB", kib / 1024.0 / 1024.0))
}

fn processor() -> Option<String> {
    let info = read_to_string("/proc/cpuinfo").ok()?;
    let line = info.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(": ")?.1.to_owned())
}
