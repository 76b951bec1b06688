//! A wrong configuration stops every command with one clear line and exit code 2.

use std::fs;
use std::path::Path;

use crate::support::cluster::temp_dir;
use crate::support::command::{Ended, command, run};
use crate::support::recents;

fn in_dir(dir: &Path, args: &[&str], environment: &[(&str, &str)]) -> Ended {
    let mut command = command(dir);
    command.args(args).envs(environment.iter().copied());
    run(&mut command)
}

/// `recents config check` with this `recents.toml`.
fn with_file(text: &str) -> Ended {
    let dir = temp_dir();
    fs::write(dir.path().join("recents.toml"), text).expect("a file");
    in_dir(dir.path(), &["config", "check"], &[])
}

#[test]
fn a_file_with_a_mistake_is_refused_in_one_line_that_names_it() {
    let mistakes = [
        ("pool_sise = 4", "recents.toml: unknown key `pool_sise`"),
        (
            "[log]\nlevle = 'info'",
            "recents.toml: unknown key `log.levle`",
        ),
        (
            "[listen]\nport = 1",
            "recents.toml: unknown key `listen.port`",
        ),
        ("[histroy]", "recents.toml: unknown key `histroy`"),
        (
            "[history.querry]\n[log]",
            "recents.toml: unknown key `history.querry`",
        ),
        ("[listen]", "recents.toml: listen: is neither text"),
        (
            "database_url = 'sqlite://a.db'\ndatabase_url_file = 'url'",
            "database_url: is given twice (from file recents.toml): itself, and by database_url_file",
        ),
        (
            "pool_size_file = 'x'",
            "recents.toml: unknown key `pool_size_file`",
        ),
        (
            "listen = ['a']",
            "recents.toml: listen: is neither text, a whole number, true nor false",
        ),
        (
            "pool_size = 0",
            "pool_size: `0` (from file recents.toml) is not between 1 and 1000",
        ),
        (
            "database_url = 'postgres://pooler/app'\ntransaction_pooler = true\n[history]\n\
             table = 't'\nkey = 'id'\nquery = 'select 1'",
            "history.url: needs a direct connection where transaction_pooler is true; name one in \
             listen_url",
        ),
        (
            "database_url = 'postgres://pooler/app'\ntransaction_pooler = true\n[details]\n\
             query = 'select $1'",
            "details.query: needs a direct connection where transaction_pooler is true; name one in \
             listen_url",
        ),
        (
            "pool_size = 'many'",
            "pool_size: `many` (from file recents.toml) is not a whole number",
        ),
        (
            "auth = 'magic'",
            "auth: `magic` (from file recents.toml) is not ",
        ),
        (
            "statement_timeout = '5 parsecs'",
            "statement_timeout: `5 parsecs` (from file recents.toml) is not a time such as",
        ),
        (
            "shutdown_grace = '0s'",
            "shutdown_grace: `0s` (from file recents.toml) is not a time such as",
        ),
        (
            "log.format = 'xml'",
            "log.format: `xml` (from file recents.toml) is not text or json",
        ),
        (
            "log.level = 'a=b=c'",
            "log.level: `a=b=c` (from file recents.toml) is not error, warn",
        ),
        (
            "migrate_on_start = 'perhaps'",
            "migrate_on_start: `perhaps` (from file recents.toml) is not true or false",
        ),
        (
            "listen = 'localhost'",
            "listen: `localhost` (from file recents.toml) is not an address such as",
        ),
        (
            "read_path = 'table'",
            "read_path: `table` (from file recents.toml) is not auto, materialized, shadow or history",
        ),
        (
            "force_read_path = 'auto'",
            "force_read_path: `auto` (from file recents.toml) is not materialized, shadow or history",
        ),
        (
            "read_path = 'shadow'",
            "read_path: `shadow` (from file recents.toml) is not possible without a [history]",
        ),
        (
            "force_read_path = 'history'",
            "force_read_path: `history` (from file recents.toml) is not possible without a [history]",
        ),
        (
            "[details]\nmode = 'on'",
            "details.mode: `on` (from file recents.toml) is not batched, per_item or off",
        ),
        (
            "[details]\nttl = '0s'",
            "details.ttl: `0s` (from file recents.toml) is not a time such as",
        ),
        (
            "database_url = 'mysql://h/d'",
            "database_url: `(not shown)` (from file recents.toml) is not a postgres:// or sqlite:// URL",
        ),
        ("listen = \n", "recents.toml: line 1: "),
        (
            "[log]\nformat = 'text'\n\nformat = 'json'",
            "recents.toml: line 4: ",
        ),
        ("[history]\nurl = 'sqlite://h.db'", "history: "),
        (
            "[history]\ntable = 'runs'\nkey = 'id'",
            "history.query: is missing",
        ),
    ];
    for (text, message) in mistakes {
        let ended = with_file(text).expect(2);
        let line = ended.one_line();
        assert!(line.starts_with(message), "{text}\n{line}");
        assert_eq!(ended.out, "", "messages stand on standard error");
    }
    with_file("pool_size = 4\n[log]\nformat = 'json'\n").expect(0);
    // Nothing is set, and nothing unknown said.
    with_file("[history]\n[details]\n[log]\n").expect(0);
}

#[test]
fn a_file_that_is_named_must_be_there_and_readable() {
    let dir = temp_dir();
    let missing = in_dir(
        dir.path(),
        &["config", "check", "--config", "missing.toml"],
        &[],
    )
    .expect(2);
    assert!(
        missing
            .one_line()
            .starts_with("missing.toml: cannot be read: "),
        "{}",
        missing.err
    );
    let by_environment = [("RECENTS_CONFIG", "missing.toml")];
    let missing = in_dir(dir.path(), &["config", "check"], &by_environment).expect(2);
    assert!(
        missing
            .one_line()
            .starts_with("missing.toml: cannot be read: "),
        "{}",
        missing.err
    );
    fs::create_dir(dir.path().join("recents.toml")).expect("a directory in the file's place");
    let unreadable = in_dir(dir.path(), &["config", "check"], &[]).expect(2);
    assert!(
        unreadable
            .one_line()
            .starts_with("recents.toml: cannot be read: "),
        "{}",
        unreadable.err
    );
    let not_utf8 = dir.path().join("latin1.toml");
    fs::write(&not_utf8, b"listen = '\xe9'").expect("a file");
    in_dir(
        dir.path(),
        &["config", "check", "--config", "latin1.toml"],
        &[],
    )
    .expect(2)
    .one_line();
}

#[test]
fn a_wrong_value_of_the_environment_is_refused_and_named() {
    let dir = temp_dir();
    let wrong = in_dir(
        dir.path(),
        &["config", "check"],
        &[("RECENTS_POOL_SIZE", "-1")],
    )
    .expect(2);
    assert!(
        wrong
            .one_line()
            .contains("(from environment RECENTS_POOL_SIZE)"),
        "{}",
        wrong.err
    );
    let twice = in_dir(
        dir.path(),
        &["config", "check"],
        &[
            ("RECENTS_DATABASE_URL", "sqlite://a.db"),
            ("RECENTS_DATABASE_URL_FILE", "url"),
        ],
    )
    .expect(2);
    assert!(
        twice
            .one_line()
            .contains("given twice (from environment RECENTS_DATABASE_URL_FILE)"),
        "{}",
        twice.err
    );
    let wrong = in_dir(
        dir.path(),
        &["config", "check"],
        &[("RECENTS_LOG_FORMAT", "xml")],
    )
    .expect(2);
    assert!(
        wrong
            .one_line()
            .contains("(from environment RECENTS_LOG_FORMAT)"),
        "{}",
        wrong.err
    );
}

#[test]
fn every_command_that_needs_a_configuration_refuses_a_wrong_one() {
    for command in [
        &["serve"][..],
        &["migrate"],
        &["list", "w"],
        &["config", "check"],
    ] {
        let args = [command, &["--pool-size", "none"]].concat();
        let ended = recents(&args).expect(2);
        assert!(
            ended
                .one_line()
                .starts_with("pool_size: `none` (from flag)"),
            "{command:?}: {}",
            ended.err
        );
    }
}

#[test]
fn nobody_from_outside_gets_in_without_being_asked_for_on_purpose() {
    for (flag, key) in [("--listen", "listen"), ("--admin-listen", "admin_listen")] {
        for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
            let refused = recents(&["serve", flag, address]).expect(2);
            let line = refused.one_line();
            assert!(line.starts_with(&format!("{key}: `{address}`")), "{line}");
            assert!(
                line.contains("allow_unauthenticated"),
                "it says what to do: {line}"
            );
            recents(&[
                "config",
                "check",
                flag,
                address,
                "--allow-unauthenticated",
                "true",
            ])
            .expect(0);
        }
    }
    recents(&[
        "config",
        "check",
        "--listen",
        "127.9.9.9:0",
        "--admin-listen",
        "[::1]:0",
    ])
    .expect(0);
}
