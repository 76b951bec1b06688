//! The `recents` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    recents::cli::run()
}
