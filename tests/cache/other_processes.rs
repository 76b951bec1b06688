//! Commands beside a server change the same table.

use super::{came_by, hears};
use crate::support::client::list_path;
use crate::support::uses::body_of;
use crate::support::{Server, TestDb, Use, both, recents, until};

both!(a_server_hears_what_a_command_changes);

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
