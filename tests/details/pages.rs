//! Pages of real lists with real details.

use std::sync::Arc;

use recents::details::{Candidate, Candidates, Refill};
use recents::model::Id;
use recents::read::page::RecentWorkflow;
use recents::read::{Cursor, PageRequest, pages};
use recents::store::StoreError;

use super::{LONG, Setup};
use crate::promises::fold::{record, recorder_on};
use crate::promises::lists::scope;
use crate::support::client::list_path;
use crate::support::uses::body_of;
use crate::support::{Server, TestDb, Use, both};

both!(
    a_list_is_full_though_many_of_its_items_are_gone,
    the_last_page_with_items_is_the_last,
);

#[derive(Debug, Clone)]
struct Item(RecentWorkflow);

impl Candidate for Item {
    fn published_run(&self) -> &str {
        &self.0.published_run
    }
}

const WORKSPACES: usize = 3;

async fn read(
    store: recents::store::Store,
    list: usize,
    after: Option<Item>,
    count: u32,
) -> Result<Candidates<Item>, StoreError> {
    let cursor = after.map(|Item(item)| Cursor {
        last_used_at: item.last_used_at,
        published_run: Id::new(item.published_run).expect("an id"),
    });
    let scope = scope(&format!("w{list}"), None);
    let page = pages(&store, vec![PageRequest { scope, cursor }], count)
        .await?
        .remove(0);
    Ok(Candidates {
        more: page.next_cursor.is_some(),
        items: page.recent_workflows.into_iter().map(Item).collect(),
    })
}

async fn a_list_is_full_though_many_of_its_items_are_gone(db: TestDb) {
    // Workflows 0 to 9 have a row; each workspace used 0 to 99, the highest last.
    let setup = Setup::of(db, 10).await;
    let recorder = recorder_on(&setup.store);
    for workspace in 0..WORKSPACES {
        let usage = |n| Use::new(&format!("w{workspace}"), &format!("{n}"), n);
        record(&recorder, &(0..100).map(usage).collect::<Vec<_>>()).await;
    }
    let (details, store) = (Arc::clone(&setup.details), setup.store.clone());
    // As a handler does: the future goes to another thread.
    let filled = tokio::spawn(async move {
        let mut first = Vec::new();
        for list in 0..WORKSPACES {
            first.push(read(store.clone(), list, None, 5).await?);
        }
        let more = |wanted: Vec<Refill<Item>>| {
            let store = store.clone();
            async move {
                let mut lists = Vec::new();
                for refill in wanted {
                    lists.push(
                        read(store.clone(), refill.list, Some(refill.after), refill.count).await?,
                    );
                }
                Ok::<_, StoreError>(lists)
            }
        };
        details.fill(4, true, first, |_| None, more).await
    });
    let filled = filled.await.expect("no panic").expect("the lists");
    assert_eq!(filled.len(), WORKSPACES);
    for page in filled {
        let shown: Vec<_> = page
            .items
            .iter()
            .map(|(item, _)| &*item.0.published_run)
            .collect();
        assert_eq!(shown, ["9", "8", "7", "6"]);
        assert!(page.items.iter().all(|(_, card)| card.is_some()));
        assert!(!page.unavailable);
        let next = page.next.expect("there are more");
        assert_eq!(&*next.0.published_run, "6");
    }
    // The first items of the lists are the same, and so are those behind them.
    assert_eq!(setup.sent(), 2);
}

async fn the_last_page_with_items_is_the_last(db: TestDb) {
    let query = Setup::query(&db, "id, title");
    // Workflows 0 to 9 have a row; each workspace used 0 to 8, and before them some that have none.
    let setup = Setup::with(db, 10, &query, LONG).await;
    let server = Server::with(&setup.db.url, &["--details-query", &query]).await;
    for gone in [1, 2, 150] {
        let workspace = format!("{gone} gone");
        let usage = |n| Use::new(&workspace, &format!("{}", (n + 100) % (gone + 100)), n);
        let uses: Vec<_> = (0..gone + 9).map(usage).collect();
        let posted = server.public.post("/v1/runs", &body_of(&uses)).await;
        posted.expect(200);
        let path = list_path(&workspace, None) + "?expand=details&limit=";
        for limit in [3, 9, 4] {
            let (mut lengths, mut next) = (Vec::new(), format!("{path}{limit}"));
            loop {
                let page = server.public.get(&next).await.expect(200);
                lengths.push(page.published_runs().len());
                let page = page.json();
                let Some(cursor) = page["next_cursor"].as_str() else {
                    break;
                };
                next = format!("{path}{limit}&cursor={cursor}");
            }
            let shown = [0; 9].chunks(limit).map(<[_]>::len);
            assert_eq!(
                lengths,
                shown.collect::<Vec<_>>(),
                "{workspace}, by {limit}"
            );
        }
    }
}
