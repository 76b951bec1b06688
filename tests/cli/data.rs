//! Commands that print data: on standard output, and nothing else there.

use std::collections::BTreeSet;
use std::process::Stdio;

use recents::http::problem::Code;
use serde_json::{Value, json};

use crate::promises::fold::{record, recorder};
use crate::support::client::list_path;
use crate::support::cluster::temp_dir;
use crate::support::command::{Ended, command};
use crate::support::{Backend, Server, TestDb, Use, both, recents};

both!(list_prints_a_table_or_json, migrate_says_what_it_did,);

async fn list_prints_a_table_or_json(db: TestDb) {
    let uses = [
        Use::new("w/1", "88", 123_456).by("u").run("991"),
        Use::new("w/1", "a longer name", 2_000_000),
        Use::new("w/1", "é", 1_000_000).run("7"),
    ];
    record(&recorder(&db), &uses).await;
    let list = |args: &[&str]| {
        recents(&[&["list", "w/1", "--database-url", &db.url], args].concat()).expect(0)
    };
    let table = list(&[]);
    let expected = [
        "published run  last used at                 run",
        "a longer name  2023-11-14T22:13:22.000000Z    -",
        "é              2023-11-14T22:13:21.000000Z    7",
        "88             2023-11-14T22:13:20.123456Z  991",
    ];
    assert_eq!(table.out.lines().collect::<Vec<_>>(), expected);
    assert_eq!(table.err, "");
    let one = list(&["--limit", "1", "--json"]);
    let expected =
        json!([{"published_run": "a longer name", "last_used_at": "2023-11-14T22:13:22.000000Z"}]);
    assert_eq!(
        serde_json::from_str::<Value>(&one.out).expect("JSON"),
        expected
    );
    let users = list(&["--uid", "u", "--json"]);
    let expected = json!([{"published_run": "88", "last_used_at": "2023-11-14T22:13:20.123456Z", "run": "991"}]);
    assert_eq!(
        serde_json::from_str::<Value>(&users.out).expect("JSON"),
        expected
    );
    let nobody = list(&["--uid", "nobody", "--json"]);
    assert_eq!(
        serde_json::from_str::<Value>(&nobody.out).expect("JSON"),
        json!([])
    );
}

async fn migrate_says_what_it_did(db: TestDb) {
    let fresh = TestDb::empty(db.backend).await;
    let migrate = |db: &TestDb| recents(&["migrate", "--database-url", &db.url]).expect(0);
    let count = std::fs::read_dir("migrations/sqlite")
        .expect("the migrations")
        .count();
    let did = format!("applied {count} migration(s); the schema is up to date\n");
    assert_eq!(migrate(&fresh).err, did);
    assert_eq!(migrate(&fresh).err, "the schema is up to date\n");
    assert_eq!(migrate(&db).err, "the schema is up to date\n");
    assert_eq!(migrate(&db).out, "", "messages stand on standard error");
}

#[test]
fn messages_that_nobody_reads_are_no_panic() {
    let dir = temp_dir();
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut migrate = command(dir.path());
    let migrate = migrate.arg("migrate").stderr(writer);
    assert_eq!(migrate.status().expect("recents runs").code(), Some(0));
}

#[test]
fn a_command_that_only_reads_makes_no_database() {
    let dir = temp_dir();
    for args in [
        &["list", "w"][..],
        &["dismiss", "w"],
        &["forget", "--uid", "u"],
        &["backfill", "--dry-run", "--from", "a.csv"],
        &["backfill", "--migrate-on-start", "false", "--from", "a.csv"],
    ] {
        let ended = command(dir.path())
            .args(args)
            .output()
            .expect("recents runs");
        let ended = Ended::from(ended).expect(1);
        assert!(
            ended.one_line().contains("`recents migrate` makes one"),
            "{ended:?}"
        );
    }
    let files = std::fs::read_dir(dir.path()).expect("the directory");
    assert_eq!(files.count(), 0);
}

#[test]
fn data_that_nobody_reads_is_no_failure() {
    let dir = temp_dir();
    // As in `recents openapi | true`.
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut openapi = command(dir.path());
    let openapi = openapi.arg("openapi").stdout(writer).stderr(Stdio::piped());
    let ended = Ended::from(
        openapi
            .spawn()
            .expect("recents runs")
            .wait_with_output()
            .expect("its end"),
    );
    assert_eq!(ended.expect(0).err, "");
}

#[tokio::test]
async fn the_description_of_the_api_is_whole() {
    let printed = recents(&["openapi"]).expect(0);
    assert_eq!(printed.err, "");
    let description: Value = serde_json::from_str(&printed.out).expect("JSON");
    assert!(
        description["openapi"]
            .as_str()
            .is_some_and(|version| version.starts_with("3.1"))
    );
    let paths: BTreeSet<_> = description["paths"]
        .as_object()
        .expect("paths")
        .keys()
        .map(String::as_str)
        .collect();
    for path in [
        "/v1/runs",
        "/v1/workspaces/{workspace}/recent-workflows",
        "/v1/workspaces/{workspace}/users/{uid}/recent-workflows",
        "/v1/recent-workflows/batch",
        "/livez",
        "/readyz",
        "/metrics",
        "/openapi.json",
    ] {
        assert!(paths.contains(path), "{path} is not described");
    }
    let codes = description["components"]["responses"]["Problem"]["description"]
        .as_str()
        .expect("the codes");
    for code in Code::ALL {
        let line = format!("`{}` ({})", code.urn(), code.status().as_u16());
        assert!(codes.contains(&line), "{line} is missing in:\n{codes}");
    }
    for (path, item) in description["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            let problem = &operation["responses"]["default"]["$ref"];
            assert_eq!(problem, "#/components/responses/Problem", "{method} {path}");
            assert!(
                operation["summary"].is_string(),
                "{method} {path} says what it is for"
            );
        }
    }
    references_resolve(&description, &description);

    let db = TestDb::migrated(Backend::Sqlite).await;
    let server = Server::start(&db).await;
    assert_eq!(
        server.admin.get("/openapi.json").await.expect(200).json(),
        description
    );
    server.public.get(&list_path("w", None)).await.expect(200);
}

/// Whatever the description points at is there.
fn references_resolve(whole: &Value, part: &Value) {
    match part {
        Value::Object(object) => {
            if let Some(target) = object.get("$ref").and_then(Value::as_str) {
                let pointer = target
                    .strip_prefix('#')
                    .expect("a reference within the document");
                assert!(
                    whole.pointer(pointer).is_some(),
                    "{target} points at nothing"
                );
            }
            object
                .values()
                .for_each(|inner| references_resolve(whole, inner));
        }
        Value::Array(items) => items
            .iter()
            .for_each(|inner| references_resolve(whole, inner)),
        _ => {}
    }
}
