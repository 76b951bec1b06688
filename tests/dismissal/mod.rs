//! Dismissal: what a user removed stays removed until its next use.

mod bounded;
mod costs;
mod hidden;
mod history;
mod races;
mod retractions;
mod swept;
mod together;

use hyper::body::Bytes;

use crate::support::client::list_path;
use crate::support::{Backend, Server, TestDb, until};

/// The published runs of a list, page by page.
async fn walk(server: &Server, workspace: &str, uid: Option<&str>, limit: u32) -> Vec<String> {
    let mut items = Vec::new();
    let mut next = String::new();
    loop {
        let path = format!("{}?limit={limit}{next}", list_path(workspace, uid));
        let page = server.public.get(&path).await.expect(200).json();
        let page_items = page["recent_workflows"].as_array().expect("items");
        items.extend(page_items.iter().map(|item| {
            let name = item["published_run"].as_str();
            name.expect("a published run").to_owned()
        }));
        match page["next_cursor"].as_str() {
            None => return items,
            Some(cursor) => {
                assert_eq!(page_items.len(), limit as usize, "a full page");
                next = format!("&cursor={cursor}");
            }
        }
    }
}

/// Dismisses what is at a path.
async fn delete(server: &Server, path: &str) {
    let answer = server.public.send("DELETE", path, &[], Bytes::new()).await;
    assert_eq!(answer.expect(204).body.len(), 0);
}

/// SQL that dismisses so many items of a workspace's list which it does not have.
fn watermarks(backend: Backend, workspace: &str, count: u32) -> String {
    let now = match backend {
        Backend::Postgres => "now()",
        Backend::Sqlite => "unixepoch() * 1000000",
    };
    format!(
        "with recursive n (i) as (select 1 union all select i + 1 from n where i < {count})
         insert into {{recents}}dismissal (workspace, uid, published_run, until)
         select '{workspace}', '', 'gone' || i, {now} from n where true on conflict do nothing"
    )
}

/// SQL that dismisses those items of a workspace's list that are so, and sweeps nothing.
fn hide_rows(workspace: &str, is_so: &str) -> String {
    format!(
        "insert into {{recents}}dismissal (workspace, uid, published_run, until)
         select workspace, uid, published_run, last_used_at from {{recents}}recent_workflow
         where workspace = '{workspace}' and uid = '' and published_run {is_so} on conflict do nothing"
    )
}

/// How many rows of the table are hidden.
async fn hidden(db: &TestDb) -> usize {
    let visible = "select published_run from {recents}recent_workflows";
    let visible = db.connect().await.texts(visible).await.len();
    db.rows().await.len() - visible
}

/// A server that has swept what it found at its start: what is swept later was asked for.
async fn serve(db: &TestDb) -> Server {
    let server = Server::with(&db.url, &["--log-level", "info,recents::dismiss=debug"]).await;
    server.log.message("swept what stays hidden").await;
    server
}

/// Waits until no row is hidden.
async fn swept(db: &TestDb) {
    until("what is hidden is swept", async || {
        (hidden(db).await == 0).then_some(())
    })
    .await;
}
