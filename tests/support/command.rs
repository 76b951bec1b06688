//! The command, as a user runs it.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;

use super::cluster::temp_dir;
use super::wait::PATIENCE;

/// The program in an empty environment and directory, so that only what a test says counts.
pub(crate) fn command(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_recents"));
    command.env_clear().current_dir(dir).stdin(Stdio::null());
    command
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("output in UTF-8");
        Self {
            code: output.status.code(),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }
}

impl Ended {
    /// The run, which ended with this code.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }

    /// The one line that it said on standard error, without the program's name before it.
    #[track_caller]
    pub(crate) fn one_line(&self) -> &str {
        let lines: Vec<_> = self.err.lines().collect();
        assert_eq!(lines.len(), 1, "not one line: {}", self.err);
        lines[0]
            .strip_prefix("recents: ")
            .expect("the program's name")
    }
}

/// Runs a command to its end.
///
/// # Panics
/// Where it has not ended within [`PATIENCE`].
pub(crate) fn run(command: &mut Command) -> Ended {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("recents runs");
    let (ended, end) = mpsc::channel();
    let id = child.id();
    let output = std::thread::spawn(move || {
        let status = child.wait_with_output();
        // Nobody listens where it took too long.
        let _ = ended.send(());
        status
    });
    if end.recv_timeout(PATIENCE).is_err() {
        let _ = Command::new("kill")
            .arg("-KILL")
            .arg(id.to_string())
            .status();
        panic!("{command:?} did not end within {PATIENCE:?}");
    }
    output
        .join()
        .expect("the thread")
        .expect("its output")
        .into()
}

/// Runs it with these arguments to its end.
pub(crate) fn recents(args: &[&str]) -> Ended {
    let dir = temp_dir();
    run(command(dir.path()).args(args))
}
