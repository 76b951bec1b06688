//! Behind a transaction pooler, which passes no notifications on and shares sessions.

use super::{came_by, hears};
use crate::support::client::list_path;
use crate::support::uses::body_of;
use crate::support::{Cluster, Server, Use, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_transaction_pooler_everything_is_as_it_is_without() {
    let cluster = Cluster::start();
    let pooler = cluster.pooler();
    let pooled = ["--transaction-pooler", "true"];
    let direct = [&pooled[..], &["--listen-url", &cluster.url]].concat();
    let [a, b] = [
        Server::with(&pooler.url, &direct).await,
        Server::with(&pooler.url, &direct).await,
    ];
    for server in [&a, &b] {
        hears(server).await;
    }
    let path = list_path("w", None);
    let sessions: Vec<_> = (0..4)
        .map(|session: i64| {
            let (a, b, path) = (a.public, b.public, path.clone());
            tokio::spawn(async move {
                for round in 0..100 {
                    let run = format!("p{session}-{round}");
                    let body =
                        serde_json::json!({"runs": [{"workspace": "w", "published_run": run}]});
                    let written = a.post("/v1/runs", &body).await.expect(200);
                    let token = written.header("recents-session-token").expect("a token");
                    let token = [("recents-session-token", token)];
                    let read = b.get_with(&(path.clone() + "?limit=100"), &token).await;
                    assert!(read.expect(200).published_runs().contains(&run), "{run}");
                }
            })
        })
        .collect();
    for session in sessions {
        session.await.expect("every write is seen");
    }
    until("the list is kept", async || {
        let hits = came_by(&b, "hit").await;
        b.public.get(&path).await.expect(200);
        (came_by(&b, "hit").await > hits).then_some(())
    })
    .await;

    // Through the pooler nothing can be heard: it says so, and the database is asked.
    let deaf = Server::with(&pooler.url, &pooled).await;
    let told = |event: &serde_json::Value| {
        let text = event.to_string();
        text.contains("set listen_url to a direct connection")
    };
    deaf.log.event("it says what to do", told).await;
    for after in 0..20 {
        let use_of = Use::new("v", &format!("p{after}"), after);
        a.public
            .post("/v1/runs", &body_of(&[use_of]))
            .await
            .expect(200);
        let list = deaf.public.get(&list_path("v", None)).await.expect(200);
        assert_eq!(list.published_runs()[0], format!("p{after}"));
    }
    assert_eq!(came_by(&deaf, "hit").await, 0.0);
}
