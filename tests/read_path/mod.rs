//! Where lists are read from: the table, the history, or both.

mod history;
mod shadow;
mod switched;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::capture::followed::serve_with;
use crate::support::client::list_path;
use crate::support::history::Setup;
use crate::support::uses::Rows;
use crate::support::{Server, Use};

/// A server whose read path nothing changes.
async fn forced(setup: &Setup, path: &str) -> Server {
    serve_with(setup, &["--force-read-path", path]).await
}

/// Items of a list: published run, microseconds, run.
type Items = Vec<(String, i64, Option<String>)>;

/// Every list that these rows make, by workspace and user.
fn lists_of(rows: &Rows) -> BTreeMap<(String, String), Items> {
    let mut lists: BTreeMap<_, Items> = BTreeMap::new();
    for ((workspace, uid, published_run), (micros, run)) in rows {
        let list = lists.entry((workspace.clone(), uid.clone())).or_default();
        list.push((published_run.clone(), *micros, run.clone()));
    }
    for items in lists.values_mut() {
        items.sort_by(|a, b| (b.1, &b.0).cmp(&(a.1, &a.0)));
    }
    lists
}

/// Items as an answer shows them.
fn shown(items: &[(String, i64, Option<String>)]) -> Vec<Value> {
    let shown = items.iter().map(|(published_run, micros, run)| {
        let at = Use::new("", "", 0).at(*micros).time().to_string();
        json!({"published_run": published_run, "last_used_at": at, "run": run})
    });
    shown.collect()
}

fn scope_json(workspace: &str, uid: &str) -> Value {
    match uid {
        "" => json!({"workspace": workspace}),
        uid => json!({"workspace": workspace, "uid": uid}),
    }
}

/// Every list is what these rows make: read page by page, and all of them at once.
async fn assert_lists(server: &Server, rows: &Rows, when: &str) {
    let lists = lists_of(rows);
    for ((workspace, uid), items) in &lists {
        let path = list_path(workspace, Some(uid.as_str()).filter(|uid| !uid.is_empty()));
        let (mut found, mut next) = (Vec::new(), String::new());
        loop {
            let page = server.public.get(&format!("{path}?limit=4{next}")).await;
            let page = page.expect(200).json();
            let items = page["recent_workflows"].as_array().expect("a list");
            found.extend(items.clone());
            match page["next_cursor"].as_str() {
                Some(cursor) => next = format!("&cursor={cursor}"),
                None => break,
            }
        }
        assert_eq!(found, shown(items), "{when}: {path}");
    }
    let all: Vec<_> = lists.iter().collect();
    for lists in all.chunks(100) {
        let scopes: Vec<_> = lists.iter().map(|((w, u), _)| scope_json(w, u)).collect();
        let body = json!({"scopes": scopes, "limit": 100});
        let answer = server
            .public
            .post("/v1/recent-workflows/batch", &body)
            .await;
        let answer = answer.expect(200).json();
        for (at, (_, items)) in lists.iter().enumerate() {
            let found = &answer["lists"][at]["recent_workflows"];
            assert_eq!(*found, Value::from(shown(items)), "{when}: {}", scopes[at]);
        }
    }
}
