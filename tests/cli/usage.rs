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
fn a_resync_of_nothing_names_both_that_it_can_be_of() {
    let words = "<--workspace <WORKSPACE>|--all>";
    let ended = recents(&["resync"]).expect(2);
    assert!(ended.err.contains(words), "{ended:?}");
    let ended = recents(&["resync", "--all", "--workspace", "w"]).expect(2);
    assert!(ended.err.contains("cannot be used with"), "{ended:?}");
}

/// A URL of a database where nothing listens.
const NOBODY: &str = "postgres://user:secret@127.0.0.1:1/db";
const HISTORY: [&str; 6] = [
    "--history-table",
    "saved_run",
    "--history-key",
    "id",
    "--history-query",
    "select id as run, w as workspace, null as uid, p as published_run, at as last_used_at from runs",
];

#[test]
fn a_database_that_does_not_answer_is_told_with_where_it_should_be() {
    for args in [
        &["list", "w"][..],
        &["migrate"],
        &["backfill", "--from", "-"],
    ] {
        let ended = recents(&[args, &["--database-url", NOBODY]].concat()).expect(1);
        let words = "the database at postgres://user:***@127.0.0.1:1/db (from flag) is out of reach: nothing answers there";
        assert_eq!(ended.one_line(), words, "{args:?}");
    }
    let missing = "sqlite:///nowhere/recents.db";
    let ended = recents(&["migrate", "--database-url", missing]).expect(1);
    let words = format!("the database at {missing} (from flag) is out of reach: ");
    assert!(ended.one_line().starts_with(&words), "{ended:?}");
    for (url, database) in [
        (&["--history-url", NOBODY][..], "sqlite://x.db"),
        (&[], NOBODY),
    ] {
        let args = [&["verify", "--database-url", database], &HISTORY[..], url].concat();
        let ended = recents(&args).expect(1);
        let words = "the history at postgres://user:***@127.0.0.1:1/db (from flag) cannot be read: nothing answers there";
        assert_eq!(ended.one_line(), words, "{args:?}");
    }
}

#[test]
fn a_command_that_needs_a_history_says_how_to_name_one() {
    for args in [&["verify"][..], &["estimate"], &["capture", "status"]] {
        let ended = recents(args).expect(2);
        let words = "history: is not configured; add [history] with table, key and query";
        assert_eq!(ended.one_line(), words, "{args:?}");
    }
    let ended = recents(&["backfill"]).expect(2);
    assert!(
        ended.one_line().ends_with("query, or give --from FILE"),
        "{ended:?}"
    );
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
