//! `recents demo`: the first command of the README, to its end.

use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::client::Client;
use crate::support::cluster::temp_dir;
use crate::support::command::{command, run};
use crate::support::log::Log;
use crate::support::until;

/// The sample's mapping.
const QUERY: &str = "select r.id as run, r.workspace_id as workspace, r.uid,
    r.published_run_id as published_run, r.updated_at as last_used_at from runs r";

#[test]
fn the_demo_compares_the_ways_and_leaves_a_table_that_its_history_proves() {
    let dir = temp_dir();
    let demo = || run(command(dir.path()).args(["demo", "--no-serve", "--runs", "1000"]));
    // The second is written over the first.
    demo().expect(0);
    let ended = demo().expect(0);
    let row = |name: &str| -> Vec<&str> {
        let mut rows = ended.out.lines().map(str::split_whitespace);
        let row = rows.find_map(|mut row| (row.next() == Some(name)).then(|| row.collect()));
        row.unwrap_or_else(|| panic!("no row {name}: {ended:?}"))
    };
    assert!(row("workspace").ends_with(&["recents", "faster"]));
    for (name, published_runs) in [
        ("5", "1"),
        ("232791", "3"),
        ("3206451", "1"),
        ("3764345", "3"),
        ("3466675", "10"),
    ] {
        let row = row(name);
        assert_eq!(row[1], published_runs, "{row:?}");
        let faster = row.last().and_then(|last| last.strip_suffix('x'));
        assert!(faster.is_some(), "{row:?}");
    }
    let mut demo = command(dir.path());
    let ended = run(demo.args(["demo", "--no-serve", "--runs", "1000", "--json"])).expect(0);
    let told: Value = serde_json::from_str(&ended.out).expect("JSON");
    assert_eq!(told[4]["published_runs"], 10, "{told}");
    assert!(told[4]["recents_seconds"].as_f64() > Some(0.0), "{told}");
    let mut verify = command(dir.path());
    verify.args(["verify", "--json"]).envs([
        (
            "RECENTS_DATABASE_URL",
            "sqlite://recents-demo/demo-recents.db",
        ),
        (
            "RECENTS_HISTORY_URL",
            "sqlite://recents-demo/demo-history.db",
        ),
        ("RECENTS_HISTORY_TABLE", "saved_run"),
        ("RECENTS_HISTORY_KEY", "id"),
        ("RECENTS_HISTORY_QUERY", QUERY),
    ]);
    let summary: Value = serde_json::from_str(&run(&mut verify).expect(0).out).expect("JSON");
    let runs = summary["runs"].as_u64().expect("a number");
    assert!((900..1_100).contains(&runs), "{summary}");
}

/// A running demo, killed when dropped.
struct Demo(Child);

impl Drop for Demo {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What stands between two texts.
#[track_caller]
fn between<'a>(text: &'a str, before: &str, behind: &str) -> &'a str {
    let rest = text.split_once(before).map(|(_, rest)| rest);
    let found = rest.and_then(|rest| rest.split_once(behind));
    found
        .unwrap_or_else(|| panic!("no {before}…{behind}: {text}"))
        .0
}

/// A demo, with what it says on standard output and on standard error.
fn start(dir: &TempDir, runs: &str) -> (Demo, Log, Log) {
    let mut demo = command(dir.path());
    let free = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    demo.args(["demo", "--runs", runs]).args(free);
    demo.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut demo = Demo(demo.spawn().expect("recents runs"));
    let out = Log::follow(demo.0.stdout.take().expect("its standard output"));
    let err = Log::follow(demo.0.stderr.take().expect("its standard error"));
    (demo, out, err)
}

/// The end of a demo that is interrupted when it says this: its code, and the last that it said.
async fn interrupted(runs: &str, says: &str) -> (Option<i32>, String) {
    let dir = temp_dir();
    let (mut demo, _, err) = start(&dir, runs);
    until("it says how far it is", async || {
        err.text().contains(says).then_some(())
    })
    .await;
    let kill = Command::new("kill")
        .args(["-s", "INT", &demo.0.id().to_string()])
        .status();
    assert!(kill.expect("kill runs").success());
    let ended = until("it ended", async || demo.0.try_wait().expect("its state")).await;
    err.ended().await;
    (ended.code(), err.lines().pop().unwrap_or_default())
}

#[tokio::test]
async fn an_interrupt_ends_a_demo_that_serves_well_and_one_that_does_not_yet_as_failed() {
    let (code, _) = interrupted("1000", ": ready").await;
    assert_eq!(code, Some(0));
    let said = "recents: stopped before it was done; the same command begins anew";
    for says in ["writing a history", "backfilling the table"] {
        let (code, last) = interrupted("200000", says).await;
        assert_eq!((code, last.as_str()), (Some(1), said), "{says}");
    }
}

#[tokio::test]
async fn the_lines_that_the_demo_prints_make_an_item_jump_to_the_top() {
    let dir = temp_dir();
    let (_demo, out, err) = start(&dir, "1000");
    until("it serves", async || {
        err.text().contains("Serving until Ctrl-C").then_some(())
    })
    .await;
    let lines: Vec<_> = until("both lines are printed", async || {
        let mut lines = out.lines();
        lines.retain(|line| line.starts_with("curl "));
        (lines.len() == 2).then_some(lines)
    })
    .await;
    let address = between(&lines[0], "http://", "/")
        .parse()
        .expect("an address");
    let path = |line: &str, end: &str| format!("/v1/{}", between(line, "/v1/", end));
    let (hook, list) = (
        path(&lines[0], " -H"),
        path(&format!("{}\n", lines[1]), "\n"),
    );
    let body: Value = serde_json::from_str(between(&lines[0], "-d '", "'")).expect("JSON");
    let item = body["runs"][0]["published_run"].as_str().expect("an id");
    let client = Client(address);
    let before = client.get(&list).await.expect(200).published_runs();
    assert_eq!(before.last().map(String::as_str), Some(item), "{before:?}");
    client.post(&hook, &body).await.expect(200);
    let after = client.get(&list).await.expect(200).published_runs();
    assert_eq!(after[0], item);
    assert_eq!(after[1..], before[..3]);
}
