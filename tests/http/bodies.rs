//! Bodies: declared as JSON, 1 MiB at the most.

use hyper::body::Bytes;
use serde_json::json;

use crate::support::raw::statuses;
use crate::support::{Backend, Server, TestDb};

const MIB: usize = 1024 * 1024;

fn runs() -> Bytes {
    json!({"runs": [{"workspace": "w", "published_run": "p"}]})
        .to_string()
        .into()
}

async fn server() -> (TestDb, Server) {
    let db = TestDb::migrated(Backend::Sqlite).await;
    let server = Server::start(&db).await;
    (db, server)
}

#[tokio::test]
async fn a_body_that_is_not_declared_as_json_is_415() {
    let (db, server) = server().await;
    let post = async |headers: &[(&str, &str)]| {
        server
            .public
            .send("POST", "/v1/runs", headers, runs())
            .await
    };
    let refused = [
        ("none", post(&[]).await),
        ("text", post(&[("content-type", "text/plain")]).await),
        (
            "a form",
            post(&[("content-type", "application/x-www-form-urlencoded")]).await,
        ),
        (
            "nearly",
            post(&[("content-type", "application/jsonx")]).await,
        ),
        ("empty", post(&[("content-type", "")]).await),
        (
            "packed",
            post(&[
                ("content-type", "application/json"),
                ("content-encoding", "gzip"),
            ])
            .await,
        ),
    ];
    for (what, answer) in &refused {
        assert_eq!(
            (answer.status.as_u16(), answer.problem().as_str()),
            (415, "unsupported_media_type"),
            "{what}"
        );
    }
    assert_eq!(db.rows().await.len(), 0);
    for kind in [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        "application/json ;x=y",
    ] {
        post(&[("content-type", kind)]).await.expect(200);
    }
}

#[tokio::test]
async fn a_body_of_more_than_1_mib_is_413_and_of_1_mib_is_read() {
    let (db, server) = server().await;
    // Spaces are JSON.
    let padded = |bytes: usize| [runs(), " ".repeat(bytes - runs().len()).into()].concat();
    server
        .public
        .post_text("/v1/runs", padded(MIB))
        .await
        .expect(200);
    assert_eq!(db.rows().await.len(), 1);

    let head = "POST /v1/runs HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n";
    // Told by its length before it is sent.
    let declared = server
        .public
        .raw(format!("{head}Content-Length: {}\r\n\r\n", MIB + 1))
        .await;
    let asked = format!(
        "{head}Expect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        MIB + 1
    );
    let asked = server.public.raw(asked).await;
    // Found out on the way.
    let chunk = format!("{:x}\r\n{}\r\n0\r\n\r\n", MIB + 1, " ".repeat(MIB + 1));
    let chunked = server
        .public
        .raw(format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunk}"))
        .await;
    for (what, answer) in [
        ("declared", &declared),
        ("asked before", &asked),
        ("chunked", &chunked),
    ] {
        assert_eq!(statuses(answer), [413], "{what}: {answer}");
        assert!(
            answer.contains("urn:recents:problem:body_too_large"),
            "{what}: {answer}"
        );
    }
}

#[tokio::test]
async fn a_client_that_asks_before_sending_is_told_to_go_on() {
    let (db, server) = server().await;
    let head = "POST /v1/runs HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n";
    let body = String::from_utf8(runs().to_vec()).expect("UTF-8");
    let asked = format!(
        "{head}Expect: 100-continue\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    assert_eq!(statuses(&server.public.raw(asked).await), [100, 200]);
    assert_eq!(db.rows().await.len(), 1);
}

#[tokio::test]
async fn a_body_that_ends_early_changes_nothing() {
    use tokio::io::AsyncWriteExt;
    let (db, server) = server().await;
    let body = String::from_utf8(runs().to_vec()).expect("UTF-8");
    // A whole document, and a length that says there is more of it.
    let request = format!(
        "POST /v1/runs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len() + 10
    );
    let mut stream = server.public.open(request).await;
    stream.shutdown().await.expect("closed");
    let mut answer = Vec::new();
    let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut answer).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(!statuses(&answer).contains(&200), "{answer}");
    assert_eq!(db.rows().await.len(), 0);
}
