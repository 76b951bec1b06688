//! A small HTTP client: one connection a request.

use std::net::SocketAddr;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// A listener to talk to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Client(pub(crate) SocketAddr);

/// A whole answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Client {
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.get_with(path, &[]).await
    }

    pub(crate) async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send("GET", path, headers, Bytes::new()).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_text(path, body.to_string()).await
    }

    /// Sends `body` as JSON, whatever it is.
    pub(crate) async fn post_text(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        let headers = [(CONTENT_TYPE.as_str(), "application/json")];
        self.send("POST", path, &headers, body.into()).await
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Answer {
        let answer = self.try_send(method, path, headers, body).await;
        answer.unwrap_or_else(|e| panic!("{method} {path} got no answer: {e:?}"))
    }

    /// As `send`, where the server may be gone.
    pub(crate) async fn try_send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Answer, Box<dyn std::error::Error>> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.0.to_string());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let stream = TcpStream::connect(self.0).await?;
        stream.set_nodelay(true)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let response = sender.send_request(request.body(Full::new(body))?).await;
        let (parts, body) = response?.into_parts();
        let body = body.collect().await?.to_bytes();
        drop(sender);
        connection.await??;
        Ok(Answer {
            status: parts.status,
            headers: parts.headers,
            body,
        })
    }
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body in UTF-8")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("not JSON ({e}): {}", String::from_utf8_lossy(&self.body)))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        Some(self.headers.get(name)?.to_str().expect("a header in ASCII"))
    }

    /// The answer, which has this status.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(
            self.status,
            status,
            "{}",
            String::from_utf8_lossy(&self.body)
        );
        self
    }

    /// The code of the problem document.
    #[track_caller]
    pub(crate) fn problem(&self) -> String {
        let kind = self.json()["type"].as_str().map(ToOwned::to_owned);
        let kind = kind.unwrap_or_else(|| panic!("no problem document: {}", self.text()));
        kind.strip_prefix("urn:recents:problem:")
            .expect("a problem's type")
            .to_owned()
    }

    /// The items of a list, as `published_run`s.
    #[track_caller]
    pub(crate) fn published_runs(&self) -> Vec<String> {
        published_runs(&self.json())
    }
}

/// The items of a list, as `published_run`s.
#[track_caller]
pub(crate) fn published_runs(list: &Value) -> Vec<String> {
    let items = list["recent_workflows"]
        .as_array()
        .unwrap_or_else(|| panic!("no list: {list}"));
    items
        .iter()
        .map(|item| item["published_run"].as_str().expect("an id").to_owned())
        .collect()
}

/// An id as a segment of a path: every byte encoded but those that never need to be.
pub(crate) fn segment(id: &str) -> String {
    id.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// The path of a list.
pub(crate) fn list_path(workspace: &str, uid: Option<&str>) -> String {
    let workspace = segment(workspace);
    match uid.map(segment) {
        None => format!("/v1/workspaces/{workspace}/recent-workflows"),
        Some(uid) => format!("/v1/workspaces/{workspace}/users/{uid}/recent-workflows"),
    }
}
