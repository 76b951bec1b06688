//! What is there and what is not.

use hyper::body::Bytes;

use crate::support::client::Answer;
use crate::support::snapshot::{assert_snapshot, sections};
use crate::support::{Backend, Server, TestDb};

#[tokio::test]
async fn what_is_not_there_is_404_and_what_is_not_allowed_is_405_with_allow() {
    let db = TestDb::migrated(Backend::Sqlite).await;
    let server = Server::start(&db).await;
    let public = async |method, path| server.public.send(method, path, &[], Bytes::new()).await;
    let admin = async |method, path| server.admin.send(method, path, &[], Bytes::new()).await;
    let list = "/v1/workspaces/w/recent-workflows";
    let answers: [(&str, Answer); 12] = [
        ("public GET /", public("GET", "/").await),
        ("public GET /metrics", public("GET", "/metrics").await),
        (
            "public GET a workspace without a name",
            public("GET", "/v1/workspaces//recent-workflows").await,
        ),
        (
            "public GET a list with a slash too many",
            public("GET", "/v1/workspaces/w/recent-workflows/").await,
        ),
        ("public GET /v1/runs", public("GET", "/v1/runs").await),
        ("public PUT a list", public("PUT", list).await),
        ("public OPTIONS a list", public("OPTIONS", list).await),
        (
            "public PATCH a batch",
            public("PATCH", "/v1/recent-workflows/batch").await,
        ),
        ("public an unknown method", public("BREW", list).await),
        ("admin GET /v1/runs", admin("GET", "/v1/runs").await),
        ("admin POST /livez", admin("POST", "/livez").await),
        ("admin DELETE /metrics", admin("DELETE", "/metrics").await),
    ];
    let shown = answers.map(|(heading, answer)| (heading, answer.shown()));
    assert_snapshot("resources", &sections(shown));
}
