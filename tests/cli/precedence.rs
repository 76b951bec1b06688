//! Flag > environment > file > default.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::cluster::temp_dir;
use crate::support::command::{command, run};
use crate::support::log::Log;
use crate::support::server::Server;
use crate::support::{Backend, TestDb};

const FILE: &str = "database_url = 'sqlite://file.db'\npool_size = 1\n[log]\nlevel = 'warn'\n";

fn directory() -> TempDir {
    let dir = temp_dir();
    fs::write(dir.path().join("recents.toml"), FILE).expect("a file");
    dir
}

/// What `recents config check --json` says of `key`: its value and where it came from.
fn explained(
    dir: &TempDir,
    key: &str,
    environment: &[(&str, &str)],
    flags: &[&str],
) -> (String, String) {
    let mut command = command(dir.path());
    command
        .args(["config", "check", "--json"])
        .args(flags)
        .envs(environment.iter().copied());
    let ended = run(&mut command).expect(0);
    let values: Value = serde_json::from_str(&ended.out).expect("JSON");
    let text = |part: &str| values[key][part].as_str().expect("text").to_owned();
    (text("value"), text("origin"))
}

#[track_caller]
fn is(found: (String, String), value: &str, origin: &str) {
    assert_eq!(found, (value.into(), origin.into()));
}

/// An orchestrator names variables after its services; a typing error looks the same.
#[tokio::test]
async fn variables_that_are_no_keys_are_told_and_do_not_stop_a_start() {
    let dir = temp_dir();
    let mut serve = command(dir.path());
    let serve = serve
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--admin-listen",
            "127.0.0.1:0",
        ])
        .envs([
            ("RECENTS_PORT", "80"),
            ("RECENTS_POOLSIZE", "3"),
            ("RECENTS_LOG_FORMAT", "json"),
        ])
        .stderr(Stdio::piped());
    let mut serving = serve.spawn().expect("recents runs");
    let log = Log::follow(serving.stderr.take().expect("its standard error"));
    log.message("ready").await;
    let told: Vec<_> = log
        .events()
        .into_iter()
        .filter(|event| event["message"] == "not a key of the configuration; it has no effect")
        .map(|event| event["name"].clone())
        .collect();
    serving.kill().expect("it is there");
    serving.wait().expect("its end");
    assert_eq!(told, ["RECENTS_POOLSIZE", "RECENTS_PORT"]);
}

/// A command would work on the default database, and say so nowhere.
#[test]
fn a_variable_that_is_no_key_is_told_by_every_command() {
    let dir = temp_dir();
    for args in [&["migrate"][..], &["list", "w"], &["config", "check"]] {
        let mut misspelt = command(dir.path());
        let misspelt = misspelt
            .args(args)
            .env("RECENTS_DATABASE_URI", "sqlite://other.db");
        let ended = run(misspelt).expect(0);
        let told = "RECENTS_DATABASE_URI is not a key of the configuration; it has no effect\n";
        assert!(ended.err.starts_with(told), "{args:?}: {ended:?}");
    }
}

#[test]
fn a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default() {
    let found =
        |dir: &_, environment: &[_], flags: &[_]| explained(dir, "pool_size", environment, flags);
    is(found(&temp_dir(), &[], &[]), "8", "default");
    let dir = directory();
    is(found(&dir, &[], &[]), "1", "file recents.toml");
    let environment = &[("RECENTS_POOL_SIZE", "2")];
    is(
        found(&dir, environment, &[]),
        "2",
        "environment RECENTS_POOL_SIZE",
    );
    is(found(&dir, environment, &["--pool-size", "3"]), "3", "flag");
}

#[test]
fn dots_are_underscores_in_the_environment_and_dashes_in_flags() {
    let dir = directory();
    let environment = explained(&dir, "log.level", &[("RECENTS_LOG_LEVEL", "debug")], &[]);
    is(environment, "debug", "environment RECENTS_LOG_LEVEL");
    is(
        explained(&dir, "log.level", &[], &["--log-level", "trace"]),
        "trace",
        "flag",
    );
}

#[test]
fn another_tools_database_url_beats_the_file_and_is_beaten_by_ours() {
    let found = |dir: &_, environment: &[_], flags: &[_]| {
        explained(dir, "database_url", environment, flags)
    };
    is(
        found(&temp_dir(), &[], &[]),
        "sqlite://recents.db",
        "default",
    );
    let dir = directory();
    is(
        found(&dir, &[], &[]),
        "sqlite://file.db",
        "file recents.toml",
    );
    let (theirs, ours) = (
        ("DATABASE_URL", "sqlite://theirs.db"),
        ("RECENTS_DATABASE_URL", "sqlite://ours.db"),
    );
    is(
        found(&dir, &[theirs], &[]),
        "sqlite://theirs.db",
        "environment DATABASE_URL",
    );
    is(
        found(&dir, &[theirs, ours], &[]),
        "sqlite://ours.db",
        "environment RECENTS_DATABASE_URL",
    );
    let flag = &["--database-url", "sqlite://flag.db"];
    is(
        found(&dir, &[theirs, ours], flag),
        "sqlite://flag.db",
        "flag",
    );
}

#[test]
fn a_variable_of_ours_that_is_not_text_stops_the_start_and_is_named_without_its_value() {
    let dir = temp_dir();
    let value = OsStr::from_bytes(b"sqlite://secret-\xff.db");
    let with = |name: &str, args: &[&str]| run(command(dir.path()).args(args).env(name, value));
    for name in [
        "DATABASE_URL",
        "RECENTS_DATABASE_URL",
        "RECENTS_DATABASE_URL_FILE",
        "RECENTS_POOL_SIZE",
    ] {
        for args in [&["serve"][..], &["migrate"], &["config", "check"]] {
            let ended = with(name, args).expect(2);
            assert_eq!(ended.one_line(), format!("{name}: is not UTF-8"));
        }
    }
    let made = dir.path().read_dir().expect("the directory").count();
    assert_eq!(made, 0, "no other database is made");
    for name in ["RECENTS_PORT", "OTHER_DATABASE_URL", "RECENTS_LISTEN_FILE"] {
        with(name, &["config", "check"]).expect(0);
    }
}

#[test]
fn a_file_can_be_named_by_flag_or_environment() {
    let dir = directory();
    fs::write(dir.path().join("other.toml"), "pool_size = 9").expect("a file");
    fs::write(dir.path().join("third.toml"), "pool_size = 10").expect("a file");
    let environment = &[("RECENTS_CONFIG", "other.toml")];
    is(
        explained(&dir, "pool_size", environment, &[]),
        "9",
        "file other.toml",
    );
    is(
        explained(&dir, "log.level", environment, &[]),
        "info",
        "default",
    );
    let flag = &["--config", "third.toml"];
    is(
        explained(&dir, "pool_size", environment, flag),
        "10",
        "file third.toml",
    );
}

#[test]
fn a_secret_may_stand_in_a_file_of_its_own() {
    let dir = temp_dir();
    fs::write(dir.path().join("url"), "sqlite://from-a-file.db\n").expect("a file");
    fs::write(dir.path().join("recents.toml"), "database_url_file = 'url'").expect("a file");
    let by_file = explained(&dir, "database_url", &[], &[]);
    is(by_file, "sqlite://from-a-file.db", "file recents.toml");
    fs::write(dir.path().join("recents.toml"), "").expect("a file");
    let environment = &[("RECENTS_DATABASE_URL_FILE", "url")];
    let origin = "environment RECENTS_DATABASE_URL_FILE";
    is(
        explained(&dir, "database_url", environment, &[]),
        "sqlite://from-a-file.db",
        origin,
    );

    let mut missing = command(dir.path());
    missing
        .args(["config", "check"])
        .env("RECENTS_DATABASE_URL_FILE", "nowhere");
    let missing = run(&mut missing).expect(2);
    assert!(
        missing
            .one_line()
            .starts_with("database_url_file: cannot read `nowhere`"),
        "{}",
        missing.err
    );
}

#[tokio::test]
async fn the_first_line_of_the_log_says_which_store_and_where_that_came_from() {
    let db = TestDb::migrated(Backend::Sqlite).await;
    let server = Server::spawn(&db.url, &[]).await;
    let first = server
        .log
        .events()
        .into_iter()
        .next()
        .expect("a first line");
    assert_eq!(first["store"], *db.url);
    assert_eq!(first["from"], "environment RECENTS_DATABASE_URL");
    drop(server);
    let other = TestDb::migrated(Backend::Postgres).await;
    let server = Server::spawn(&db.url, &["--database-url", &other.url]).await;
    let first = server
        .log
        .events()
        .into_iter()
        .next()
        .expect("a first line");
    assert_eq!(
        (&first["store"], &first["from"]),
        (&Value::from(other.url.clone()), &Value::from("flag"))
    );
}
