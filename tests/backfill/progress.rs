//! What a backfill shows meanwhile: a bar on a terminal, otherwise a plain line every two seconds.

use std::process::Command;
use std::time::Instant;

use crate::support::history::{Gate, Setup, Worker};
use crate::support::{Backend, TestDb};

const WINDOWS: [&str; 3] = ["backfill", "--window-runs", "50"];

/// A backfill that comes to two gates, and waits at each until all before it is written: longer than two
/// seconds, which is how seldom that happens and how seldom a line comes.
async fn through_two_gates(start: impl AsyncFnOnce(&Setup) -> Worker) -> (String, u64) {
    let setup = Gate::setup(TestDb::migrated(Backend::Sqlite).await).await;
    setup.source().execute("analyze").await;
    let gates = [
        (Gate::close(&setup, 400).await, "-350"),
        (Gate::close(&setup, 700).await, "-650"),
    ];
    let started = Instant::now();
    let mut worker = start(&setup).await;
    for (gate, cursor) in gates {
        worker
            .until("the cursor stands before the gate", async || {
                (setup.job("cursor").await == cursor).then_some(())
            })
            .await;
        gate.open().await;
    }
    let ended = worker.ended().await.expect(0);
    assert_eq!(setup.job("state").await, "succeeded");
    (ended.err, started.elapsed().as_secs())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nobody_watches_progress_is_a_plain_line_every_two_seconds() {
    let (said, seconds) = through_two_gates(async |setup| setup.start(&WINDOWS)).await;
    assert!(
        said.is_ascii() && !said.contains(['\r', '\x1b']),
        "{said:?}"
    );
    // `400 runs, 175 runs/s, 40% of about 1,000, 3 s left`
    let lines: Vec<_> = said
        .lines()
        .filter(|line| line.contains(" runs/s, "))
        .collect();
    assert!(!lines.is_empty(), "{said}");
    assert!(lines.len() as u64 <= seconds / 2, "in {seconds} s:\n{said}");
    for line in lines {
        let parts: Vec<_> = line.split(", ").collect();
        let [runs, rate, part, left] = parts[..] else {
            panic!("{line}")
        };
        let number = |text: &str, behind: &str| -> u64 {
            let number = text
                .strip_suffix(behind)
                .and_then(|number| number.parse().ok());
            number.unwrap_or_else(|| panic!("no number: {line}"))
        };
        let runs = number(runs, " runs");
        // Also while what was read is written.
        assert!((350..1_000).contains(&runs), "{line}");
        assert!(number(rate, " runs/s") > 0, "{line}");
        assert_eq!(number(part, "% of about 1,000"), runs / 10, "{line}");
        assert!(left.ends_with(" s left"), "{line}");
    }
}

/// On a terminal, util-linux's `script`; what is shown there comes on standard error.
async fn on_a_terminal(environment: &[(&'static str, &'static str)]) -> String {
    let start = async |setup: &Setup| {
        let own = setup.command(&WINDOWS);
        let mut script = Command::new("sh");
        script
            .args([
                "-c",
                r#"exec script --quiet --return --command "$0" /dev/null >&2"#,
            ])
            .arg(format!(
                "{} {}",
                env!("CARGO_BIN_EXE_recents"),
                WINDOWS.join(" ")
            ))
            .current_dir(setup.dir.path())
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("TERM", "xterm")
            .envs(
                own.get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            )
            .envs(environment.iter().copied());
        Worker::start(script)
    };
    through_two_gates(start).await.0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_terminal_progress_is_a_bar_that_goes_when_it_is_done() {
    let said = on_a_terminal(&[]).await;
    assert!(said.contains("35% 350/1,000 runs, "), "{said:?}");
    assert!(!said.contains("% of about"), "no plain lines: {said:?}");
    // What stays on the last line is what comes behind the last time that it was cleared.
    let (_, last) = said.rsplit_once("\x1b[2K").expect("it was cleared");
    assert!(last.contains("1,000 runs scanned"), "{said:?}");
    assert!(!last.contains('%'), "{said:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bar_is_without_colours_for_those_who_want_none_and_absent_on_a_dumb_terminal() {
    let (uncoloured, dumb) = tokio::join!(
        on_a_terminal(&[("NO_COLOR", "1")]),
        on_a_terminal(&[("TERM", "dumb")])
    );
    assert!(
        uncoloured.contains("35% 350/1,000 runs, "),
        "{uncoloured:?}"
    );
    // Colours are set by sequences that end in `m`; those that move the cursor stay.
    let is_colour = |sequence: &str| {
        let end = sequence.find(|c: char| c.is_ascii_alphabetic());
        end.is_some_and(|end| sequence[end..].starts_with('m'))
    };
    assert!(
        !uncoloured.split("\x1b[").skip(1).any(is_colour),
        "{uncoloured:?}"
    );
    assert!(
        !dumb.contains('\x1b') && dumb.contains("% of about 1,000"),
        "{dumb:?}"
    );
}
