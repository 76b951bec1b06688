//! A real history is the same from its file, from its tables, and as computed without the product.

use std::collections::BTreeMap;

use recents::model::{Id, Scope};
use recents::read::{Cursor, PageRequest, pages};
use recents::store::Store;

use super::edits::{file, read};
use crate::support::history::layout::Layout;
use crate::support::history::setup::{last_json, same};
use crate::support::history::{At, History, Run, Setup, maximum};
use crate::support::uses::Rows;
use crate::support::{TestDb, Use, both};

both!(a_real_history_is_the_same_from_its_file_and_from_its_table);

/// The same history as tables: each published run of a version of its own.
fn tables(layout: Layout, uses: &[Use]) -> History {
    let mut numbers = BTreeMap::new();
    for usage in uses {
        let next = numbers.len() as i64;
        numbers.entry(usage.published_run.clone()).or_insert(next);
    }
    let runs = uses.iter().map(|usage| Run {
        key: usage.run.clone().expect("each has one"),
        workspace: Some(usage.workspace.clone()),
        uid: usage.uid.clone(),
        version: Some(numbers[&usage.published_run]),
        at: Some(At::Micros(usage.micros)),
    });
    let runs = runs.collect();
    let versions = numbers
        .into_iter()
        .map(|(published_run, n)| (n, Some(published_run)));
    History {
        layout,
        runs,
        versions: versions.collect(),
    }
}

/// All lists of these scopes as clients see them, page by page, each checked for its order.
async fn lists(store: &Store, scopes: &[Scope]) -> Rows {
    let mut rows = Rows::new();
    let first = |scope: &Scope| PageRequest {
        scope: scope.clone(),
        cursor: None,
    };
    let mut requests: Vec<_> = scopes.iter().map(first).collect();
    let mut last = BTreeMap::new();
    while !requests.is_empty() {
        let rest = requests.split_off(requests.len().min(100));
        let asked: Vec<_> = requests
            .iter()
            .map(|request| request.scope.clone())
            .collect();
        let answers = pages(store, requests, 7).await.expect("pages");
        requests = rest;
        for (scope, page) in asked.into_iter().zip(answers) {
            for item in page.recent_workflows {
                let position = (item.last_used_at, item.published_run.to_string());
                let before = last.insert(scope.clone(), position.clone());
                assert!(
                    before.is_none_or(|before| before > position),
                    "{scope:?} at {position:?}"
                );
                let key = (
                    scope.workspace.to_string(),
                    scope.uid_column().to_owned(),
                    position.1,
                );
                let newest = (item.last_used_at.micros(), item.run.map(Into::into));
                assert_eq!(
                    rows.insert(key, newest),
                    None,
                    "an item came twice in {scope:?}"
                );
            }
            if let Some(next) = page.next_cursor {
                let cursor = Cursor::decode(&scope, &next).expect("a cursor of this list");
                requests.push(PageRequest {
                    scope,
                    cursor: Some(cursor),
                });
            }
        }
    }
    rows
}

async fn a_real_history_is_the_same_from_its_file_and_from_its_table(db: TestDb) {
    let (path, _dir) = file();
    let uses = read(&path);
    assert!(uses.len() >= 20_000, "{} runs", uses.len());
    let expected = maximum(&uses);
    let mut scopes: Vec<_> = expected
        .keys()
        .map(|(workspace, uid, _)| Scope {
            workspace: Id::new(workspace.as_str()).expect("an id"),
            uid: Id::new(uid.as_str()).ok(),
        })
        .collect();
    scopes.dedup();

    let from_file = Setup::of(
        TestDb::migrated(db.backend).await,
        tables(Layout::of(db.backend), &uses),
    )
    .await;
    let path = path.to_str().expect("a path in UTF-8");
    let summary = from_file
        .recents(&["backfill", "--from", path, "--json"])
        .expect(0);
    let summary = last_json(&summary);
    let counts = ["scanned", "skipped"].map(|name| summary[name].as_u64());
    assert_eq!(counts, [Some(uses.len() as u64), Some(0)]);
    // A row that rises between two checkpoints counts twice.
    let applied = summary["applied"].as_u64();
    assert!(applied >= Some(expected.len() as u64), "{summary}");
    same(
        &lists(&from_file.store.store(), &scopes).await,
        &expected,
        "from the file",
    );
    same(
        &from_file.store.rows().await,
        &expected,
        "from the file, rows of no list",
    );
    // The file and the tables are one history.
    let again = from_file.json(&["backfill", "--window-runs", "5000"], 0);
    assert_eq!(
        (&again["applied"], &again["scanned"]),
        (&0.into(), &uses.len().into())
    );
    from_file.recents(&["verify"]).expect(0);

    let from_tables = Setup::of(db, tables(Layout::of(from_file.store.backend), &uses)).await;
    from_tables.backfill(&["--window-runs", "5000"]).await;
    same(
        &lists(&from_tables.store.store(), &scopes).await,
        &expected,
        "from the tables",
    );
    let verified = from_tables.json(&["verify"], 0);
    assert_eq!(
        (&verified["runs"], &verified["rows"]),
        (&uses.len().into(), &expected.len().into())
    );
}
