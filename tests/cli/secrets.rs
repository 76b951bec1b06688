//! A password is never shown: not by help, checks, errors, logs or answers.

use std::fs;

use crate::support::cluster::temp_dir;
use crate::support::command::{Ended, command, run};
use crate::support::{Backend, Server, TestDb, recents};

const PASSWORD: &str = "hunter2";

#[track_caller]
fn hides(ended: Ended) -> Ended {
    let said = format!("{}{}", ended.out, ended.err);
    assert!(!said.contains(PASSWORD), "{said}");
    ended
}

#[test]
fn no_command_shows_a_password() {
    let dir = temp_dir();
    let urls = [
        format!("postgres://user@127.0.0.1:1/db?passwort={PASSWORD}"),
        format!("postgres://user:{PASSWORD}@127.0.0.1:1/db"),
        format!("postgres://user:{PASSWORD}@127.0.0.1:1/db?application_name=x"),
        format!("postgres://user@127.0.0.1:1/db?password={PASSWORD}"),
        format!("postgres://user:{PASSWORD}@h@127.0.0.1:1/db"),
        format!("postgresql://:{PASSWORD}@127.0.0.1:1/db"),
    ];
    for url in urls {
        for args in [
            &["config", "check"][..],
            &["config", "check", "--json"],
            &["--help"],
            &["help", "serve"],
        ] {
            let mut check = command(dir.path());
            check
                .args(args)
                .env("RECENTS_DATABASE_URL", &url)
                .env("DATABASE_URL", &url);
            hides(run(&mut check)).expect(0);
        }
    }
    for url in [
        "mysql://user:hunter2@h/db",
        "postgres://user:hunter2@h:port/db",
        "hunter2",
    ] {
        hides(recents(&["config", "check", "--database-url", url]).expect(2)).one_line();
    }
    let out_of_reach = format!("postgres://user:{PASSWORD}@127.0.0.1:1/db");
    hides(recents(&["migrate", "--database-url", &out_of_reach]))
        .expect(1)
        .one_line();
}

#[test]
fn a_password_that_was_written_unencoded_is_not_shown_either() {
    for password in [
        "hunter2/x",
        "12/hunter2",
        "hunter2?x",
        "x?hunter2",
        "x#hunter2",
        "hunter2@x",
        "x@y?hunter2@z",
        "x?y@hunter2/z",
    ] {
        let url = format!("postgres://user:{password}@localhost/db");
        hides(recents(&["config", "check", "--database-url", &url]));
        // An address of nobody's, so that it ends after its first line.
        let listen = ["--listen", "192.0.2.1:1", "--allow-unauthenticated", "true"];
        let serve = recents(&[&["serve", "--database-url", &url][..], &listen].concat());
        assert_ne!(hides(serve).code, Some(0));
    }
}

#[test]
fn a_broken_file_is_refused_without_being_quoted() {
    let dir = temp_dir();
    for text in [
        format!("database_url = 'postgres://u:{PASSWORD}@h/d"),
        format!("database_url = 'postgres://u:{PASSWORD}@h/d' pool_size = 1"),
        format!("database_url = ['postgres://u:{PASSWORD}@h/d']"),
        format!("[history]\nurl = 'redis://u:{PASSWORD}@h/d'\ntable = 'a'\nkey = 'b'\nquery = 'c'"),
    ] {
        fs::write(dir.path().join("recents.toml"), text).expect("a file");
        hides(run(command(dir.path()).args(["config", "check"])))
            .expect(2)
            .one_line();
    }
}

#[tokio::test]
async fn neither_logs_nor_answers_show_a_password() {
    let db = TestDb::migrated(Backend::Postgres).await;
    // The cluster trusts everyone, so any password is a right one.
    let url = db
        .url
        .replacen("//postgres@", &format!("//postgres:{PASSWORD}@"), 1);
    assert!(url.contains(PASSWORD), "{url}");
    let mut server = Server::with(&url, &["--log-level", "trace"]).await;
    let metrics = server.admin.get("/metrics").await.expect(200);
    let openapi = server.admin.get("/openapi.json").await.expect(200);
    let health = server.admin.get("/readyz").await.expect(200);
    server.terminate();
    assert_eq!(server.ended().await.code(), Some(0));
    for answer in [metrics, openapi, health] {
        assert!(!answer.text().contains(PASSWORD));
    }
    let first = server
        .log
        .events()
        .into_iter()
        .find(|event| event.get("store").is_some());
    let store = first.expect("the line about the store")["store"].to_string();
    assert!(store.contains("//postgres:***@"), "{store}");
    assert!(
        !server.log.text().contains(PASSWORD),
        "{}",
        server.log.text()
    );
}
