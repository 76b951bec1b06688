//! A way to PostgreSQL that lets a number of requests through and no more: whoever comes next
//! hears nothing.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// The texts of statements, in the order in which they were executed.
type Statements = Arc<Mutex<Vec<String>>>;

/// Counts requests from one on whose statement has a text.
struct Counter {
    from: &'static str,
    counts: AtomicBool,
    passed: AtomicUsize,
    lets: usize,
}

impl Counter {
    fn executes(&self, text: &str) {
        if text.contains(self.from) {
            self.counts.store(true, Ordering::SeqCst);
        }
    }

    /// Whether one more may pass.
    fn lets_pass(&self) -> bool {
        !self.counts.load(Ordering::SeqCst)
            || self.passed.fetch_add(1, Ordering::SeqCst) < self.lets
    }
}

/// A turnstile before a PostgreSQL server, gone when dropped, with every connection through it.
pub(crate) struct Turnstile {
    /// The url of the database behind it.
    pub(crate) url: String,
    counter: Arc<Counter>,
    executed: Statements,
    task: JoinHandle<()>,
}

impl Turnstile {
    /// Lets this many requests through to the database at `url`.
    pub(crate) async fn letting(requests: usize, url: &str) -> Self {
        Self::letting_from("", requests, url).await
    }

    /// The same, from a request on that executes a statement with this text: whatever comes before passes.
    pub(crate) async fn letting_from(from: &'static str, requests: usize, url: &str) -> Self {
        let counter = Counter {
            from,
            counts: AtomicBool::new(from.is_empty()),
            passed: AtomicUsize::new(0),
            lets: requests,
        };
        Self::counting(Arc::new(counter), url).await
    }

    /// A way to another database, for requests of the same number: those to either are counted together.
    pub(crate) async fn beside(&self, url: &str) -> Self {
        Self::counting(Arc::clone(&self.counter), url).await
    }

    async fn counting(counter: Arc<Counter>, url: &str) -> Self {
        let (before, address) = url.split_once('@').expect("a url with a user");
        let (server, database) = address.split_once('/').expect("a url with a database");
        let server: SocketAddr = server.parse().expect("an address");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let counts = Arc::clone(&counter);
        let executed = Statements::default();
        let executions = Arc::clone(&executed);
        let task = tokio::spawn(async move {
            // Cut when it is dropped.
            let mut ways = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(server).await else {
                    continue;
                };
                client.set_nodelay(true).expect("no delay");
                server.set_nodelay(true).expect("no delay");
                let (from_client, mut to_client) = client.into_split();
                let (mut from_server, to_server) = server.into_split();
                ways.spawn(async move {
                    // The answers' end is the connection's.
                    tokio::io::copy(&mut from_server, &mut to_client)
                        .await
                        .map(drop)
                });
                let (counter, executed) = (Arc::clone(&counts), Arc::clone(&executions));
                ways.spawn(pass(from_client, to_server, counter, executed));
            }
        });
        let url = format!("{before}@127.0.0.1:{port}/{database}");
        Self {
            url,
            counter,
            executed,
            task,
        }
    }

    /// How many statements were executed so far, preparing them apart.
    pub(crate) fn executed(&self) -> usize {
        self.statements().len()
    }

    /// Their texts.
    pub(crate) fn statements(&self) -> Vec<String> {
        let executed = self.executed.lock();
        executed.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a request is being held back.
    pub(crate) fn holds(&self) -> bool {
        self.counter.passed.load(Ordering::SeqCst) > self.counter.lets
    }
}

impl Drop for Turnstile {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Passes a client's messages on. `Sync` and a simple query end a request, `Bind` and a simple query
/// begin to execute something.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    counter: Arc<Counter>,
    executed: Statements,
) -> std::io::Result<()> {
    // Before the start-up message there may be one that asks for TLS, which is denied.
    loop {
        let body = body(&mut from).await?;
        to.write_all(&framed(None, &body)).await?;
        if body[..4] != 80_877_103_u32.to_be_bytes() {
            break;
        }
    }
    let mut prepared = HashMap::new();
    loop {
        let kind = from.read_u8().await?;
        let body = body(&mut from).await?;
        // `Parse` names a statement and has its text; `Bind` names a portal, then the statement.
        let text = match (kind, texts(&body)) {
            (b'P', [name, text]) => {
                prepared.insert(name, text);
                None
            }
            (b'B', [_, name]) => prepared.get(&name).cloned(),
            (b'Q', [text, _]) => Some(text),
            _ => None,
        };
        if let Some(text) = text {
            counter.executes(&text);
            let mut executed = executed.lock().unwrap_or_else(PoisonError::into_inner);
            executed.push(text);
        }
        if matches!(kind, b'S' | b'Q') && !counter.lets_pass() {
            // Keeps both connections open for as long as the client lives.
            while from.read_u8().await.is_ok() {}
            return Ok(());
        }
        to.write_all(&framed(Some(kind), &body)).await?;
    }
}

/// The first two texts of a message's body, as far as it has any.
fn texts(body: &[u8]) -> [String; 2] {
    let mut texts = body.split(|byte| *byte == 0);
    [texts.next(), texts.next()].map(|text| String::from_utf8_lossy(text.unwrap_or(&[])).into())
}

async fn body(from: &mut OwnedReadHalf) -> std::io::Result<Vec<u8>> {
    let length = from.read_u32().await? as usize;
    let mut body = vec![0; length - 4];
    from.read_exact(&mut body).await?;
    Ok(body)
}

fn framed(kind: Option<u8>, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("a short message");
    let mut frame: Vec<u8> = kind.into_iter().collect();
    frame.extend(length.to_be_bytes());
    frame.extend(body);
    frame
}
