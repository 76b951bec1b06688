//! An application changes the types of its columns while a service runs: it goes on with the new ones, and
//! loses nothing.

use std::sync::Arc;

use recents::history::{self, HistoryError, Lookup, Range, Unmappable, windows};
use recents::model::RawUse;

use super::followed::{Followed, serve_with};
use crate::support::client::list_path;
use crate::support::history::layout::{Layout, POSTGRES};
use crate::support::history::{History, Setup};
use crate::support::{Backend, TestDb, until};

/// Ids as applications begin with them.
const SMALL: Layout = Layout {
    name: "small numbers",
    key_type: "int",
    id_type: "integer",
    ..POSTGRES
};

/// Greater than an `int` can be.
const GREAT: &str = "3000000000";

async fn setup(seed: u64, runs: usize) -> Setup {
    let history = History::random(SMALL, seed, runs);
    Setup::of(TestDb::migrated(Backend::Postgres).await, history).await
}

fn alter(column: &str, becomes: &str) -> String {
    format!("alter table saved_run alter {column} type {becomes} using {column}::{becomes}")
}

/// Inserts a run of the published run 7.
fn insert(key: &str, workspace: &str, second: u32) -> String {
    format!(
        "insert into saved_run_version values (1000, 7) on conflict do nothing;
         insert into saved_run values
             ('{key}', '{workspace}', 'u1', 1000, timestamptz '2024-01-01 00:00:00Z' + interval '{second} s')"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workspace_that_grew_beyond_its_old_type_keeps_its_rows() {
    let followed = Followed::start(setup(51, 200).await).await;
    // It has looked at the history with the types of its start.
    followed.app(&insert("2000000", "5", 1)).await;
    followed.quiet().await;
    followed.app(&alter("workspace_id", "bigint")).await;
    followed.app(&insert("2000001", GREAT, 2)).await;
    followed.app(&insert("2000002", GREAT, 3)).await;
    followed.assert_exact("both runs are there").await;
    followed
        .app("delete from saved_run where id = 2000002")
        .await;
    followed.assert_exact("one run remains").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_was_migrated_under_a_running_service_is_followed() {
    let followed = Followed::start(setup(52, 200).await).await;
    followed.app(&insert("2000000", "5", 1)).await;
    followed.quiet().await;
    for step in ["uninstall", "install"] {
        followed.setup.recents(&["capture", step]).expect(0);
        if step == "uninstall" {
            followed.app(&alter("id", "bigint")).await;
        }
    }
    followed.setup.recents(&["verify", "--repair"]).expect(0);
    followed.app(&insert(GREAT, "5", 2)).await;
    followed.assert_exact("its runs are found").await;
    let delete = format!("delete from saved_run where id = {GREAT}");
    followed.app(&delete).await;
    followed.assert_exact("and go").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_that_become_texts_and_numbers_again_do_not_stop_the_drain() {
    let followed = Followed::start(setup(53, 200).await).await;
    followed.app(&insert("2000000", "5", 1)).await;
    followed.quiet().await;
    // The first of them is one that the old type has, too.
    for (becomes, key, workspace) in [("text", "2000001", "77"), ("bigint", "2000002", GREAT)] {
        followed.app(&alter("workspace_id", becomes)).await;
        followed.app(&insert(key, workspace, 2)).await;
        followed.assert_exact(becomes).await;
        // Its rows are looked for by what they are of.
        let delete = format!("delete from saved_run where id = {key}");
        followed.app(&delete).await;
        followed.assert_exact(becomes).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_that_are_read_from_the_history_follow_its_types() {
    let setup = setup(54, 100).await;
    let server = serve_with(
        &setup,
        &["--force-read-path", "history", "--cache-capacity", "0"],
    )
    .await;
    let app = setup.source();
    let items = async |workspace: &str| {
        let answer = server.public.get(&list_path(workspace, None)).await;
        let list = answer.expect(200).json();
        list["recent_workflows"].as_array().map_or(0, Vec::len)
    };
    assert_eq!(items(GREAT).await, 0, "there is none");
    app.execute(&alter("workspace_id", "bigint")).await;
    app.execute(&insert("2000001", GREAT, 2)).await;
    assert_eq!(items(GREAT).await, 1, "read as a greater number");
    app.execute(&alter("workspace_id", "text")).await;
    assert_eq!(items(GREAT).await, 1, "read as a text");
    assert_eq!(items("no number").await, 0, "which may be any");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_audit_goes_on_with_the_new_types() {
    let setup = setup(55, 200).await;
    setup.recents(&["backfill"]).expect(0);
    let server = serve_with(&setup, &["--audit", "true"]).await;
    const PASS: &str = "recents_verify_last_success_timestamp_seconds";
    until("a pass ended", async || {
        (server.metric(PASS).await > 0.0).then_some(())
    })
    .await;
    for (becomes, workspace) in [("bigint", GREAT), ("text", "a text")] {
        setup
            .source()
            .execute(&alter("workspace_id", becomes))
            .await;
        let key = if becomes == "text" {
            "2000001"
        } else {
            "2000002"
        };
        // Nobody notes it: capture is not installed.
        setup.source().execute(&insert(key, workspace, 2)).await;
        until("the audit found the run", async || {
            let rows = setup.store.rows().await;
            let key = (workspace.into(), String::new(), "7".into());
            rows.contains_key(&key).then_some(())
        })
        .await;
    }
}

/// What the history says of a workspace, read in every way, beginning with one of them.
async fn read(of: &history::History, runs: &[String], first: usize) -> [Vec<String>; 4] {
    let mut read: [Vec<String>; 4] = Default::default();
    for way in (first..first + 4).map(|way| way % 4) {
        let read = &mut read[way];
        let take = |raw: RawUse<'_>| {
            if let Ok(usage) = raw.check()
                && usage.workspace == "5"
            {
                read.push(format!("{usage:?}"));
            }
        };
        let done = match way {
            0 => of.scan(Range::All, take).await,
            1 => of.look_up(Lookup::Runs(runs), take).await,
            2 => of.look_up(Lookup::Workspace("5", None), take).await,
            _ => {
                let published: Vec<String> = (0..15).map(|id: u8| id.to_string()).collect();
                let pairs: Vec<_> = published.iter().map(|id| ("5", id.as_str())).collect();
                of.look_up(Lookup::Pairs(&pairs, None), take).await
            }
        };
        done.expect("it is read");
        read.sort_unstable();
    }
    read
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_type_becomes_every_reading_says_the_same() {
    let setup = setup(56, 300).await;
    let of = history::connect(&setup.config()).await.expect("it opens");
    let runs: Vec<String> = setup
        .history
        .runs
        .iter()
        .map(|run| run.key.clone())
        .collect();
    let expected = read(&of, &runs, 0).await;
    assert!(expected[0].len() > 10, "{expected:?}");
    let mut first = 0;
    for column in ["id", "workspace_id"] {
        for becomes in [
            "bigint",
            "text",
            "text collate \"C\"",
            "smallint",
            "varchar(90)",
            "text collate \"und-x-icu\"",
            "text",
            "integer",
        ] {
            setup.source().execute(&alter(column, becomes)).await;
            first += 1;
            let now = read(&of, &runs, first).await;
            assert!(
                now == expected,
                "{column} as {becomes}: {now:?}, {expected:?}"
            );
        }
    }
    assert!(
        expected.iter().all(|way| *way == expected[0]),
        "{expected:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_walk_never_goes_on_in_another_order() {
    let setup = setup(57, 5_000).await;
    let of = Arc::new(history::connect(&setup.config()).await.expect("it opens"));
    let last = setup.history.runs.first().map(|run| run.key.clone());
    let walk = |cursor| {
        let (of, last) = (Arc::clone(&of), last.clone().expect("runs"));
        windows::walk(of, cursor, last, 100, Unmappable::default())
    };
    let mut stretches = walk(None);
    let first = stretches.next().await.expect("it is read");
    let cursor = first.expect("a window").cursor;
    setup.source().execute(&alter("id", "text")).await;
    let ended = loop {
        match stretches.next().await {
            Ok(Some(_)) => {}
            ended => break ended,
        }
    };
    assert!(matches!(ended, Err(HistoryError::Reordered)), "{ended:?}");
    // Numbers among themselves have one order.
    setup.source().execute(&alter("id", "integer")).await;
    let mut stretches = walk(cursor.clone());
    // Known as texts, until it is read.
    let ended = stretches.next().await;
    assert!(matches!(ended, Err(HistoryError::Reordered)), "{ended:?}");
    let mut stretches = walk(cursor);
    let (mut scanned, mut altered) = (0, false);
    while let Some(stretch) = stretches.next().await.expect("it goes on") {
        scanned += stretch.tally.scanned;
        if !std::mem::replace(&mut altered, true) {
            setup.source().execute(&alter("id", "bigint")).await;
        }
    }
    assert_eq!(scanned, 4_900);
}
