//! What no proper client sends.

use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;

use crate::support::raw::statuses;
use crate::support::wait::PATIENCE;
use crate::support::{Backend, Server, TestDb};

const LIST: &str = "GET /v1/workspaces/w/recent-workflows HTTP/1.1\r\n";
const RUNS: &str = r#"{"runs":[{"workspace":"w","published_run":"p"}]}"#;

async fn server() -> (TestDb, Server) {
    let db = TestDb::migrated(Backend::Sqlite).await;
    let server = Server::start(&db).await;
    (db, server)
}

#[tokio::test]
async fn a_header_that_does_not_arrive_is_dropped_after_10_seconds() {
    let (_db, server) = server().await;
    let started = Instant::now();
    let mut half = server
        .public
        .open(format!("{LIST}Host: x\r\nX-Slow: "))
        .await;
    let mut silent = server.public.open("").await;
    for stream in [&mut half, &mut silent] {
        let mut answer = Vec::new();
        let closed = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        closed
            .expect("the connection is dropped")
            .expect("and closed");
        assert!(!statuses(&String::from_utf8_lossy(&answer)).contains(&200));
    }
    let took = started.elapsed();
    assert!(
        took >= Duration::from_secs(9),
        "a client has 10 s for its header, not {took:?}"
    );
    assert!(took < Duration::from_secs(20), "{took:?}");
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_answered_with_408_after_30_seconds() {
    let (db, server) = server().await;
    let started = Instant::now();
    let head = "POST /v1/runs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
    let request = format!("{head}Content-Length: {}\r\n\r\n{}", RUNS.len(), &RUNS[1..]);
    let answer = server.public.stalling(request).await.expect(408);
    assert_eq!(answer.problem(), "request_timeout");
    let took = started.elapsed();
    assert!(took >= Duration::from_secs(29), "{took:?}");
    assert!(db.rows().await.is_empty());
}

#[tokio::test]
async fn a_header_beyond_its_limits_is_answered_with_a_problem_document() {
    let (_db, server) = server().await;
    let fields = |count: usize, bytes: usize| {
        let field = |n| format!("X-{n}: {}\r\n", "x".repeat(bytes));
        (0..count).map(field).collect::<String>()
    };
    let end = "Host: x\r\nConnection: close\r\n\r\n";
    let passes = format!("{LIST}{}{end}", fields(3, 8_000));
    assert_eq!(statuses(&server.public.raw(passes).await), [200]);
    let query = "q".repeat(40_000);
    let long = format!("GET /v1/workspaces/w/recent-workflows?{query}= HTTP/1.1\r\n{end}");
    for request in [
        format!("{LIST}{}{end}", fields(5, 8_000)),
        format!("{LIST}{}{end}", fields(80, 1)),
        long,
    ] {
        let answer = server.public.raw(request).await;
        assert_eq!(statuses(&answer), [431], "{answer}");
        assert!(
            answer.contains("urn:recents:problem:header_too_large"),
            "{answer}"
        );
        assert!(answer.contains("application/problem+json"), "{answer}");
    }
}

#[tokio::test]
async fn several_requests_on_one_connection_are_each_answered() {
    let (_db, server) = server().await;
    let first = format!("{LIST}Host: x\r\n\r\n");
    let last = format!("{LIST}Host: x\r\nConnection: close\r\n\r\n");
    let answers = server.public.raw(format!("{first}{first}{last}")).await;
    assert_eq!(statuses(&answers), [200, 200, 200]);
}

#[tokio::test]
async fn a_body_with_two_lengths_hides_no_second_request() {
    let (db, server) = server().await;
    let hidden = format!("{LIST}Host: x\r\n\r\n");
    let post = "POST /v1/runs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n";
    let chunks = format!("{:x}\r\n{RUNS}\r\n0\r\n\r\n", RUNS.len());
    let whole = RUNS.len() + hidden.len();
    let cases = [
        // By its length the body ends in the middle of the chunks.
        format!("{post}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"),
        // By its chunks the body is nothing, and the rest would be a request.
        format!(
            "{post}Content-Length: {}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}",
            5 + hidden.len()
        ),
        format!(
            "{post}Content-Length: {}\r\nContent-Length: {whole}\r\n\r\n{RUNS}{hidden}",
            RUNS.len()
        ),
        format!(
            "{post}Content-Length: {whole}, {}\r\n\r\n{RUNS}{hidden}",
            RUNS.len()
        ),
        format!(
            "{post}Content-Length: +{}\r\n\r\n{RUNS}{hidden}",
            RUNS.len()
        ),
        format!("{post}Transfer-Encoding: chunked, identity\r\n\r\n{chunks}{hidden}"),
        format!(
            "{post}Transfer-Encoding: xchunked\r\nContent-Length: {}\r\n\r\n{RUNS}{hidden}",
            RUNS.len()
        ),
    ];
    for case in cases {
        let answers = server.public.raw(&case).await;
        let statuses = statuses(&answers);
        assert_eq!(
            statuses.len(),
            1,
            "one request, one answer:\n{case}\n\n{answers}"
        );
        assert!([200, 400].contains(&statuses[0]), "{case}\n\n{answers}");
        assert!(
            !answers.contains("recent_workflows"),
            "the hidden request was answered:\n{case}"
        );
    }
    // The server lives on.
    assert_eq!(
        statuses(
            &server
                .public
                .raw(format!("{LIST}Host: x\r\nConnection: close\r\n\r\n"))
                .await
        ),
        [200]
    );
    assert!(db.rows().await.len() <= 1);
}

#[tokio::test]
async fn garbage_is_refused_and_harms_nobody_else() {
    let (_db, server) = server().await;
    let long_header = format!("{LIST}Host: x\r\nX-Long: {}\r\n\r\n", "x".repeat(1_000_000));
    let many_headers = format!("{LIST}{}\r\n", "X-Many: 1\r\n".repeat(500));
    let long_path = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(70_000));
    let garbage: [&[u8]; 8] = [
        b"garbage\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS greeting \r\n\r\n",
        b"GET  /v1 HTTP/1.1\r\n\r\n",
        b"GET /v1 HTTP/9.9\r\n\r\n",
        b"GET /v1 HTTP/1.1\r\nbad header\r\n\r\n",
        long_header.as_bytes(),
        many_headers.as_bytes(),
        long_path.as_bytes(),
    ];
    for bytes in garbage {
        let answer = server.public.raw(bytes).await;
        let start = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]);
        assert!(
            statuses(&answer)
                .iter()
                .all(|status| (400..500).contains(status)),
            "{start}: {answer}"
        );
        assert!(statuses(&answer).len() <= 1, "{start}: {answer}");
    }
    let good = server
        .public
        .raw(format!("{LIST}Host: x\r\nConnection: close\r\n\r\n"))
        .await;
    assert_eq!(statuses(&good), [200]);
}

#[tokio::test]
async fn repeated_and_missing_headers_are_safe() {
    let (_db, server) = server().await;
    let ask = async |headers: &str| {
        let answer = server
            .public
            .raw(format!("{LIST}{headers}Connection: close\r\n\r\n"))
            .await;
        (statuses(&answer), answer)
    };
    let (without_host, _) = ask("").await;
    assert!(
        without_host == [200] || without_host == [400],
        "{without_host:?}"
    );
    let (two_hosts, _) = ask("Host: x\r\nHost: y\r\n").await;
    assert!(two_hosts == [200] || two_hosts == [400], "{two_hosts:?}");
    let (status, answer) = ask("Host: x\r\nX-Request-Id: first\r\nX-Request-Id: second\r\n").await;
    assert_eq!(status, [200]);
    assert_eq!(answer.matches("x-request-id: ").count(), 1, "{answer}");
    let post = "POST /v1/runs HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n";
    let two_kinds = format!(
        "{post}Content-Type: text/plain\r\nContent-Length: {}\r\n\r\n{RUNS}",
        RUNS.len()
    );
    let status = statuses(&server.public.raw(two_kinds).await);
    assert!(status == [200] || status == [415], "{status:?}");
}
