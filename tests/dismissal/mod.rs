//! Dismissal: what a user removed stays removed until its next use.

mod hidden;
mod history;
mod races;
mod swept;

use hyper::body::Bytes;

use crate::support::Server;
use crate::support::client::list_path;

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
