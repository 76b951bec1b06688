//! The limit of connections.

use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::raw::statuses;
use crate::support::wait::PATIENCE;
use crate::support::{Backend, Server, TestDb};

/// Of one listener, at the most.
const CONNECTIONS: usize = 1_024;
const LIST: &str = "GET /v1/workspaces/w/recent-workflows HTTP/1.1\r\nHost: x\r\n";

/// Asks for a list, and reads the whole answer.
async fn ask(stream: &mut TcpStream) {
    let request = format!("{LIST}\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let (mut answer, mut buffer) = (String::new(), [0; 4096]);
    while !answer.ends_with("[]}") {
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut buffer)).await;
        let read = read.expect("it is served").expect("a connection");
        assert!(read > 0, "it was closed: {answer}");
        answer += &String::from_utf8_lossy(&buffer[..read]);
    }
    assert_eq!(statuses(&answer), [200], "{answer}");
}

#[tokio::test]
async fn one_connection_more_than_1024_waits_until_one_ends_and_the_others_are_served() {
    // The test has the other ends.
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("as many open files as may be");
    let db = TestDb::migrated(Backend::Sqlite).await;
    let server = Server::with_open_files(&db.url, 1_024).await;
    // Half a body holds a connection for half a minute.
    let half = "POST /v1/runs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{";
    let mut held = Vec::new();
    for _ in 1..CONNECTIONS {
        held.push(server.public.open(half).await);
    }
    let mut last = server.public.open("").await;
    // They are taken in their order: when this one is answered, all are there.
    ask(&mut last).await;
    let mut waiting = server
        .public
        .open(format!("{LIST}Connection: close\r\n\r\n"))
        .await;
    for _ in 0..100 {
        ask(&mut last).await;
    }
    let early = waiting.try_read(&mut [0]).expect_err("it has to wait");
    assert_eq!(
        early.kind(),
        std::io::ErrorKind::WouldBlock,
        "nor is it closed"
    );
    drop(held.pop());
    let mut answer = String::new();
    let answered = tokio::time::timeout(PATIENCE, waiting.read_to_string(&mut answer)).await;
    answered.expect("now it is its turn").expect("an answer");
    assert_eq!(statuses(&answer), [200], "{answer}");
    ask(&mut last).await;
}
