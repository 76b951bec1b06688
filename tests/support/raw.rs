//! Bytes on a socket, for requests that no client would send.

use hyper::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::client::{Answer, Client};
use super::wait::PATIENCE;

impl Client {
    /// Sends `bytes` and reads until the server closes.
    pub(crate) async fn raw(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut stream = self.open(bytes).await;
        let mut answer = Vec::new();
        let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        // A reset after the answer is an end as well.
        let _ = read.expect("the server closes the connection");
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Sends a request whose body stops before its end, and waits for the answer, as long as a body has.
    pub(crate) async fn stalling(&self, bytes: impl AsRef<[u8]>) -> Answer {
        let mut stream = self.open(bytes).await;
        let (mut answer, mut buffer) = (String::new(), [0; 4096]);
        while !answer.ends_with('}') {
            let read = tokio::time::timeout(2 * PATIENCE, stream.read(&mut buffer)).await;
            match read.expect("an answer").expect("a connection") {
                0 => break,
                read => answer += &String::from_utf8_lossy(&buffer[..read]),
            }
        }
        parsed(&answer)
    }

    /// Sends `bytes` and hands over the connection.
    pub(crate) async fn open(&self, bytes: impl AsRef<[u8]>) -> TcpStream {
        let mut stream = TcpStream::connect(self.0).await.expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        stream.write_all(bytes.as_ref()).await.expect("sent");
        stream
    }
}

/// The one answer that a server sent.
pub(crate) fn parsed(answer: &str) -> Answer {
    let (head, body) = answer.split_once("\r\n\r\n").expect("a header");
    let statuses = statuses(head);
    let fields = head.lines().skip(1).map(|line| {
        let (name, value) = line.split_once(": ").expect("a field");
        (
            name.parse().expect("a name"),
            value.parse().expect("a value"),
        )
    });
    Answer {
        status: StatusCode::from_u16(statuses[0]).expect("a status"),
        headers: fields.collect(),
        body: body.to_owned().into(),
    }
}

/// The statuses of the answers in what a server sent.
pub(crate) fn statuses(answers: &str) -> Vec<u16> {
    let after = answers.split("HTTP/1.1 ").skip(1);
    after
        .map(|answer| answer[..3].parse().expect("a status"))
        .collect()
}
