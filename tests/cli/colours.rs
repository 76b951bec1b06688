//! Colours: on a terminal, for those who want them (no-color.org).

use std::process::Command;

use crate::support::cluster::temp_dir;
use crate::support::command::run;

/// What a command says on a terminal with this environment. util-linux's `script` is one.
fn on_a_terminal(args: &str, environment: &[(&str, &str)]) -> String {
    let dir = temp_dir();
    let mut script = Command::new("script");
    script
        .args(["--quiet", "--return", "--command"])
        .arg(format!("{} {args}", env!("CARGO_BIN_EXE_recents")))
        .arg("/dev/null")
        .current_dir(dir.path())
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("TERM", "xterm")
        .envs(environment.iter().copied());
    run(&mut script).out
}

#[test]
fn nothing_is_coloured_for_those_who_want_no_colours() {
    // It logs, and ends because there is no such directory.
    let serve = "serve --database-url sqlite://none/here.db --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0";
    let is_coloured = |args: &str, environment: &[_]| {
        let said = on_a_terminal(args, environment);
        assert!(said.len() > 100, "{args}: {said}");
        said.contains("\x1b[")
    };
    assert!(is_coloured(serve, &[]), "the control");
    assert!(
        is_coloured(serve, &[("NO_COLOR", "")]),
        "an empty one is none"
    );
    for environment in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        for args in [serve, "--help", "serve --nonsense"] {
            assert!(
                !is_coloured(args, &[environment]),
                "{args}, {environment:?}"
            );
        }
    }
}
