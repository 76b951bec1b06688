//! The lists that are read: many home pages, among many more.

use std::time::Duration;

use recents::cache::Answer;
use recents::model::{Id, Scope};
use recents::read::page::{DEFAULT_LIMIT, MAX_LIMIT};
use recents::read::{Page, PageRequest, pages};
use recents::store::lists::MAX_SCOPES;
use recents::store::{PoolSettings, Store};

use super::redis;
use crate::Failure;
use crate::http::get;
use crate::server::{Server, run};

/// Lists that are read,
pub(crate) const LISTS: u64 = 1_000;
/// of so many, so that the table's index has some depth,
pub(crate) const OF: u64 = 20_000;
/// of so many items each.
pub(crate) const ITEMS: u64 = 10;
/// The first of the workspaces, which no other part has.
pub(crate) const FIRST: u64 = 30_000_000;

pub(crate) const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);

/// The name of one of the workspaces.
pub(crate) fn workspace(at: u64) -> String {
    (FIRST + at).to_string()
}

/// The request for the top four of a workspace.
pub(crate) fn request(workspace: &str, query: &str) -> Vec<u8> {
    get(&format!(
        "/v1/workspaces/{workspace}/recent-workflows{query}"
    ))
}

/// The details of items, each a row of a table of the application's.
pub(crate) const CARDS: &str =
    "select published_run, title, icon from card where published_run = any($1)";

/// Writes all lists into the table. Their items were used in another order than their names have.
pub(crate) async fn fill(server: &Server) -> Result<(), Failure> {
    let mut conn = server.connect().await?;
    let fill = format!(
        "insert into recents.recent_workflow (workspace, uid, published_run, last_used_at, run)
         select ({FIRST} + list)::text, '', item::text,
                timestamptz '2025-01-01 00:00:00Z' + (hashint8(item) & 16777215) * interval '1.000001 s',
                (7000000 + item)::text
         from generate_series(0, {OF} - 1) as list,
              generate_series(list * {ITEMS}, list * {ITEMS} + {ITEMS} - 1) as item"
    );
    run(&mut conn, &fill).await?;
    let cards = format!(
        "create table card (published_run text primary key, title text not null, icon text not null);
         insert into card select item::text, 'The workflow ' || item, 'icon-' || item % 100
         from generate_series(0, {OF} * {ITEMS} - 1) as item"
    );
    run(&mut conn, &cards).await?;
    run(&mut conn, "vacuum analyze card").await?;
    run(&mut conn, "vacuum analyze recents.recent_workflow").await
}

/// The lists that are read, each ready to send.
pub(crate) async fn answers(url: &str) -> Result<Vec<(String, Answer)>, Failure> {
    let pages = read(url, DEFAULT_LIMIT).await?.into_iter();
    Ok(pages
        .map(|(name, page)| (name, Answer::of(&page)))
        .collect())
}

/// Writes those that are read into Redis.
pub(crate) async fn fill_redis(url: &str, redis: &redis::Redis) -> Result<(), Failure> {
    let mut connection = redis::Connection::open(&redis.socket()).await?;
    for (name, page) in read(url, MAX_LIMIT).await? {
        let mut command = vec![b"ZADD".to_vec(), name.into_bytes()];
        for item in page.recent_workflows {
            command.push(item.last_used_at.micros().to_string().into_bytes());
            command.push(item.published_run.as_bytes().to_vec());
        }
        let command: Vec<&[u8]> = command.iter().map(Vec::as_slice).collect();
        connection.send(&command).await?;
    }
    Ok(())
}

async fn read(url: &str, limit: u32) -> Result<Vec<(String, Page)>, Failure> {
    let settings = PoolSettings {
        size: 1,
        statement_timeout: STATEMENT_TIMEOUT,
        behind_pooler: false,
    };
    let store = Store::open(url, settings)?;
    let names: Vec<String> = (0..LISTS).map(workspace).collect();
    let mut lists = Vec::new();
    for names in names.chunks(MAX_SCOPES) {
        let mut requests = Vec::new();
        for name in names {
            let scope = Scope {
                workspace: Id::new(name.as_str())?,
                uid: None,
            };
            requests.push(PageRequest {
                scope,
                cursor: None,
            });
        }
        let read = pages(&store, requests, limit).await?;
        lists.extend(names.iter().cloned().zip(read));
    }
    store.close().await;
    Ok(lists)
}
