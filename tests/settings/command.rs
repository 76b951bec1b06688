//! `recents settings`, on the database alone.

use serde_json::{Value, json};

use super::changed::{patch, settings};
use crate::capture::followed::serve_with;
use crate::support::history::Setup;
use crate::support::{TestDb, both, recents, until};

both!(
    it_shows_what_is_stored_else_what_is_configured,
    a_running_server_follows_what_it_sets,
    reading_a_table_that_was_never_filled_is_warned_of,
    it_refuses_what_cannot_be_set,
);

fn run(setup: &Setup, args: &[&str], code: i32) -> (String, String) {
    let ended = setup.recents(&[&["settings"], args].concat()).expect(code);
    (ended.out, ended.err)
}

fn json_of(setup: &Setup, args: &[&str]) -> Value {
    let (out, _) = run(setup, &[args, &["--json"]].concat(), 0);
    serde_json::from_str(&out).expect("JSON")
}

async fn it_shows_what_is_stored_else_what_is_configured(db: TestDb) {
    let setup = Setup::plain(db, 51, 50).await;
    let configured = ["get", "--read-path", "shadow"];
    let expected = json!({"read_path": "shadow", "details_mode": "batched"});
    assert_eq!(json_of(&setup, &configured), expected);
    let (out, err) = run(&setup, &["set", "read_path", "history"], 0);
    assert_eq!((out.as_str(), err.as_str()), ("history\n", ""));
    assert_eq!(
        json_of(&setup, &["set", "details_mode", "off"]),
        json!({"details_mode": "off"})
    );
    let (out, _) = run(&setup, &configured, 0);
    assert_eq!(out, "read_path     history\ndetails_mode  off\n");
    let (out, _) = run(&setup, &["get", "read_path"], 0);
    assert_eq!(out, "history\n", "for scripts, the value alone");
    let forced = ["get", "--force-read-path", "materialized"];
    assert_eq!(json_of(&setup, &forced)["read_path"], "materialized");
}

async fn a_running_server_follows_what_it_sets(db: TestDb) {
    let setup = Setup::plain(db, 52, 50).await;
    let server = serve_with(&setup, &[]).await;
    run(&setup, &["set", "read_path", "shadow"], 0);
    until("the server follows", async || {
        (settings(&server).await["read_path"] == "shadow").then_some(())
    })
    .await;
    patch(&server, &json!({"read_path": "history"}))
        .await
        .expect(200);
    assert_eq!(
        json_of(&setup, &["get", "read_path"]),
        json!({"read_path": "history"})
    );
}

async fn reading_a_table_that_was_never_filled_is_warned_of(db: TestDb) {
    let setup = Setup::plain(db, 46, 50).await;
    let set = |value| {
        setup
            .recents(&["settings", "set", "read_path", value])
            .expect(0)
    };
    let warned = set("materialized");
    assert!(warned.err.starts_with("warning: "), "{warned:?}");
    assert!(warned.err.contains("recents backfill"), "{warned:?}");
    assert_eq!(warned.out, "materialized\n");
    assert_eq!(set("shadow").err, "");
    setup.recents(&["backfill"]).expect(0);
    assert_eq!(set("materialized").err, "");
}

async fn it_refuses_what_cannot_be_set(db: TestDb) {
    let setup = Setup::plain(db, 53, 50).await;
    for (args, said) in [
        (
            &["set", "read_path", "table"][..],
            "`table` is not auto, materialized, shadow or history",
        ),
        (
            &["set", "details_mode", "auto"],
            "`auto` is not batched, per_item or off",
        ),
        (
            &[
                "set",
                "read_path",
                "shadow",
                "--force-read-path",
                "materialized",
            ],
            "the configuration forces the read path `materialized`",
        ),
        (&["set", "pool_size", "1"], "invalid value 'pool_size'"),
        (&["set", "read_path"], "<VALUE>"),
        (&["get", "nothing"], "invalid value 'nothing'"),
    ] {
        let (out, err) = run(&setup, args, 2);
        assert_eq!(out, "");
        assert!(err.contains(said), "{args:?}: {err}");
    }
    let without = ["settings", "set", "--database-url", &setup.store.url];
    for path in ["history", "shadow"] {
        let ended = recents(&[&without[..], &["read_path", path]].concat()).expect(2);
        let said = format!("`{path}` is not possible without a [history] to read from");
        assert!(ended.err.contains(&said), "{}", ended.err);
    }
    let stored = setup
        .store
        .connect()
        .await
        .texts("select name from {recents}setting")
        .await;
    assert_eq!(stored, Vec::<String>::new());
}
