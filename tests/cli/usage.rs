//! Usage: exit codes, help, completions.

use recents::config::KEYS;

use crate::support::recents;

#[test]
fn wrong_usage_exits_with_2_and_says_so_on_standard_error() {
    for args in [
        &[][..],
        &["bogus"],
        &["serve", "--bogus"],
        &["serve", "extra"],
        &["list"],
        &["list", ""],
        &["list", "a\nb"],
        &["list", ".."],
        &["list", "w", "--uid", ""],
        &["list", "w", "--limit", "0"],
        &["list", "w", "--limit", "101"],
        &["config"],
        &["completions", "tcsh"],
        &["migrate", "--pool-size"],
        &["migrate", "--pool-size", "1", "--pool-size", "2"],
    ] {
        let ended = recents(args).expect(2);
        assert_eq!(ended.out, "", "{args:?}");
        assert!(!ended.err.is_empty(), "{args:?}");
    }
}

#[test]
fn help_names_the_exit_codes_and_a_flag_for_every_key() {
    let help = recents(&["--help"]).expect(0);
    for code in [
        "0 done",
        "1 failed",
        "2 usage or configuration",
        "3 drift found",
        "4 stopped early and resumable",
    ] {
        assert!(help.out.contains(code), "{code}: {}", help.out);
    }
    let help = recents(&["serve", "--help"]).expect(0).out;
    for key in KEYS {
        let flag = format!("--{} ", key.name.replace(['.', '_'], "-"));
        assert!(help.contains(&flag), "{flag} is missing in:\n{help}");
    }
    let version = recents(&["--version"]).expect(0).out;
    assert_eq!(version, format!("recents {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn each_shell_gets_completions_of_its_own_kind() {
    for (shell, mark) in [
        ("bash", "complete -F"),
        ("zsh", "#compdef recents"),
        ("fish", "complete -c recents"),
    ] {
        let ended = recents(&["completions", shell]).expect(0);
        assert!(ended.out.contains(mark), "{shell}");
        for word in ["serve", "migrate", "database-url"] {
            assert!(ended.out.contains(word), "{shell} completes {word}");
        }
        assert_eq!(ended.err, "");
    }
}
