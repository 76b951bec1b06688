//! `recents completions`.

use clap::{Args, Command};
use clap_complete::Shell;

use super::output::print;
use super::{Done, Failure};

#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// Which shell
    shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs, mut command: Command) -> Result<Done, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "recents", &mut script);
    print(String::from_utf8_lossy(&script))?;
    Ok(Done::Complete)
}
