//! Bytes on a socket, for requests that no client would send.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::client::Client;
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

    /// Sends `bytes` and hands over the connection.
    pub(crate) async fn open(&self, bytes: impl AsRef<[u8]>) -> TcpStream {
        let mut stream = TcpStream::connect(self.0).await.expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        stream.write_all(bytes.as_ref()).await.expect("sent");
        stream
    }
}

/// The statuses of the answers in what a server sent.
pub(crate) fn statuses(answers: &str) -> Vec<u16> {
    let after = answers.split("HTTP/1.1 ").skip(1);
    after
        .map(|answer| answer[..3].parse().expect("a status"))
        .collect()
}
