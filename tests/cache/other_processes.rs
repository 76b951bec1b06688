//! Commands beside a server change the same table.

use serde_json::json;

use super::{came_by, hears};
use crate::support::client::list_path;
use crate::support::history::file::{Files, csv};
use crate::support::uses::body_of;
use crate::support::{Backend, Server, TestDb, Use, both, recents, until};

both!(
    a_server_hears_what_a_command_changes,
    what_an_operator_has_forgotten_is_forgotten_in_the_other_process,
);

async fn a_server_hears_what_a_command_changes(db: TestDb) {
    let server = Server::start(&db).await;
    hears(&server).await;
    let client = server.public;
    let path = list_path("w", None);
    let uses: Vec<_> = (0..8).map(|i| Use::new("w", &format!("p{i}"), i)).collect();
    client.post("/v1/runs", &body_of(&uses)).await.expect(200);
    for i in (1..8).rev() {
        let newest = format!("p{i}");
        until("the list is kept", async || {
            let hits = came_by(&server, "hit").await;
            client.get(&path).await.expect(200);
            (came_by(&server, "hit").await > hits).then_some(())
        })
        .await;
        recents(&["dismiss", "w", &newest, "--database-url", &db.url]).expect(0);
        until("the server heard of it", async || {
            let list = client.get(&path).await.expect(200).published_runs();
            (list[0] == format!("p{}", i - 1)).then_some(())
        })
        .await;
    }
}

/// What is changed by hand, a list and a title, where nothing of it is told.
async fn what_an_operator_has_forgotten_is_forgotten_in_the_other_process(db: TestDb) {
    let (listed, untold) = match db.backend {
        Backend::Postgres => ("any($1)", ""),
        Backend::Sqlite => (
            "(select value from json_each($1))",
            "drop trigger recent_workflow_inserted;",
        ),
    };
    let is = if untold.is_empty() { "=" } else { "in" };
    db.execute(
        "create table workflow (id text, title text); insert into workflow values ('p', '')",
    )
    .await;
    let query = format!(
        "select id as published_run, title from workflow where id {is} {listed} or id <> 'p'"
    );
    let for_ever = ["--cache-ttl", "1h", "--details-ttl", "1h"];
    let flags = [&for_ever[..], &["--details-query", &query]].concat();
    let [a, b] = [
        Server::with(&db.url, &flags).await,
        Server::with(&db.url, &flags).await,
    ];
    for server in [&a, &b] {
        hears(server).await;
    }
    let uses = body_of(&[Use::new("w", "p", 0)]);
    a.public.post("/v1/runs", &uses).await.expect(200);
    let told = "recents_cache_invalidations_total{reason=\"other_process\"}";
    until("the other one heard of it", async || {
        (b.metric(told).await > 0.0).then_some(())
    })
    .await;
    db.execute(untold).await;
    let (path, expanded) = (
        list_path("w", None),
        list_path("w", None) + "?expand=details",
    );
    let seen = async || {
        let items = b.public.get(&path).await.expect(200).published_runs();
        let card = b.public.get(&expanded).await.expect(200).json();
        let title = card["recent_workflows"][0]["details"]["title"].clone();
        (items.len(), title)
    };
    for (round, what) in [
        json!({"all": true}),
        json!({"published_run": "p"}),
        json!({"workspace": "w"}),
    ]
    .iter()
    .enumerate()
    {
        until("the list is kept", async || {
            let hits = came_by(&b, "hit").await;
            b.public.get(&path).await.expect(200);
            (came_by(&b, "hit").await > hits).then_some(())
        })
        .await;
        let before = seen().await;
        let by_hand = format!(
            "insert into {{recents}}recent_workflow
                 select workspace, uid, 'old {round}', last_used_at, run
                 from {{recents}}recent_workflow where published_run = 'p';
             insert into workflow values ('old {round}', '');
             update workflow set title = 'title {round}' where id = 'p'"
        );
        db.execute(&by_hand).await;
        assert_eq!(seen().await, before, "nobody told");
        let invalidate = "/admin/v1/cache/invalidate";
        a.admin.post(invalidate, what).await.expect(204);
        let now = (before.0 + 1, format!("title {round}").into());
        until("the other one reads anew", async || {
            (seen().await == now).then_some(())
        })
        .await;
    }
}

/// What was written before may have been written by a process that did not live to tell it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_backfill_and_a_changed_setting_forget_everything() {
    let db = TestDb::migrated(Backend::Postgres).await;
    let server = Server::start(&db).await;
    hears(&server).await;
    let (client, path) = (server.public, list_path("w", None));
    let uses = [Use::new("w", "p", 0)];
    client.post("/v1/runs", &body_of(&uses)).await.expect(200);
    let files = Files::beside(db);
    files.write("a.csv", csv(&uses));
    for (round, is_set) in [(1, false), (2, true)] {
        until("the list is kept", async || {
            let hits = came_by(&server, "hit").await;
            client.get(&path).await.expect(200);
            (came_by(&server, "hit").await > hits).then_some(())
        })
        .await;
        let unheard = format!(
            "insert into {{recents}}recent_workflow select workspace, uid,
                               'unheard {round}', last_used_at, run from {{recents}}recent_workflow
                               where published_run = 'p'"
        );
        files.db.execute(&unheard).await;
        let kept = client.get(&path).await.expect(200).published_runs();
        assert_eq!(kept.len(), round, "nobody told");
        match is_set {
            false => drop(files.backfill("a.csv", &[]).expect(0)),
            true => {
                let settings = json!({"details_mode": "per_item"}).to_string().into();
                let headers = [("content-type", "application/json")];
                let admin = server.admin;
                let patch = admin.send("PATCH", "/admin/v1/settings", &headers, settings);
                patch.await.expect(200);
            }
        }
        until("everything is read anew", async || {
            let read = client.get(&path).await.expect(200).published_runs();
            (read.len() == round + 1).then_some(())
        })
        .await;
    }
}
