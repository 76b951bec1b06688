//! A client that costs little: one connection, one request after the other, bytes ready to send.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Failure;

/// A connection that is kept.
pub(crate) struct Connection {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self, Failure> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            answer: Vec::with_capacity(4096),
        })
    }

    /// Sends a request and gives the body of the answer, which is a 200.
    pub(crate) async fn send(&mut self, request: &[u8]) -> Result<&[u8], Failure> {
        self.stream.write_all(request).await?;
        self.answer.clear();
        loop {
            if self.stream.read_buf(&mut self.answer).await? == 0 {
                return Err("the server closed the connection".into());
            }
            let Some((body, length)) = body_of(&self.answer)? else {
                continue;
            };
            if self.answer.len() == body + length {
                return Ok(&self.answer[body..]);
            }
        }
    }
}

/// Where the body begins and how long it is, as soon as the header is there.
fn body_of(answer: &[u8]) -> Result<Option<(usize, usize)>, Failure> {
    let Some(end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
        return Ok(None);
    };
    let header = std::str::from_utf8(&answer[..end])?;
    if !header.starts_with("HTTP/1.1 200 ") {
        return Err(String::from_utf8_lossy(answer).into());
    }
    let mut fields = header.lines().filter_map(|line| line.split_once(": "));
    let length = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let (_, length) = length.ok_or("an answer without a length")?;
    Ok(Some((end + 4, length.parse()?)))
}

pub(crate) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes()
}

pub(crate) fn post(path: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
