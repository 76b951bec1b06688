//! The edits of a repository's files, as runs of workflows. Where `RECENTS_TEST_EDIT_HISTORY` does
//! not name a real history, one of the same shape is made up.

use std::io::Read;
use std::path::PathBuf;

use flate2::read::MultiGzDecoder;

use crate::support::Use;
use crate::support::cluster::temp_dir;
use crate::support::history::file::{csv, gzip};
use crate::support::uses::T0;

/// The gzipped file, and what keeps it while it is a made-up one.
pub(super) fn file() -> (PathBuf, Option<tempfile::TempDir>) {
    if let Some(path) = std::env::var_os("RECENTS_TEST_EDIT_HISTORY") {
        return (path.into(), None);
    }
    let dir = temp_dir();
    let path = dir.path().join("edits.csv.gz");
    std::fs::write(&path, gzip(csv(&made_up()))).expect("the file is written");
    (path, Some(dir))
}

/// Commits of many files at once, in directories, by people who come and go; some paths are as long
/// as an id may be.
fn made_up() -> Vec<Use> {
    let mut rng = fastrand::Rng::with_seed(100);
    let mut uses = Vec::new();
    let (mut second, mut user) = (0, 0);
    while uses.len() < 20_000 {
        second += rng.i64(0..100_000);
        user = if rng.u8(..3) == 0 {
            rng.u32(..200)
        } else {
            user
        };
        for _ in 0..rng.usize(1..30) {
            let (workspace, file) = (rng.u8(..40), rng.u16(..1_500));
            let workspace = if workspace == 0 {
                "(root)".into()
            } else {
                format!("dir{workspace}")
            };
            let long = "é/".repeat(usize::from(file % 40));
            let published_run = format!("{long:.40}{file:05}.rs");
            let usage = Use::new(&workspace, &published_run, second * 1_000_000);
            let run = (uses.len() + 1).to_string();
            uses.push(usage.by(&format!("{user:012x}")).run(&run));
        }
    }
    uses
}

/// The uses of the file, read without the product.
pub(super) fn read(path: &PathBuf) -> Vec<Use> {
    let file = std::fs::File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut text = String::new();
    MultiGzDecoder::new(file)
        .read_to_string(&mut text)
        .expect("gzipped text");
    let mut lines = text.lines();
    assert_eq!(
        lines.next(),
        Some("run,workspace,uid,published_run,last_used_at")
    );
    let uses = lines.map(|line| {
        let fields: Vec<_> = line.split(',').collect();
        let [run, workspace, uid, published_run, time] = fields[..] else {
            panic!("not five fields: {line}")
        };
        assert!(!line.contains('"'), "not as plain as this reader: {line}");
        Use::new(workspace, published_run, micros(time) - T0)
            .by(uid)
            .run(run)
    });
    uses.collect()
}

/// `2014-06-25T15:36:54[.123456]Z`, by the calendar.
fn micros(time: &str) -> i64 {
    let number = |text: &str| {
        text.parse::<i64>()
            .unwrap_or_else(|e| panic!("{time}: {e}"))
    };
    let (year, month, day) = (
        number(&time[..4]),
        number(&time[5..7]),
        number(&time[8..10]),
    );
    // Days since 1970 of a year that begins in March.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let leap_days = year / 4 - year / 100 + year / 400;
    let days = year * 365 + leap_days + (month * 153 + 2) / 5 + day - 1 - 719_468;
    let seconds =
        number(&time[11..13]) * 3_600 + number(&time[14..16]) * 60 + number(&time[17..19]);
    let fraction = time[19..].trim_end_matches('Z').trim_start_matches('.');
    let fraction = number(&format!("{fraction:0<6}"));
    (days * 86_400 + seconds) * 1_000_000 + fraction
}
