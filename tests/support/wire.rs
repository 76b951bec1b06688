//! A way to PostgreSQL on which nothing arrives any more, though no connection is lost.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passes {
    Everything,
    /// As through a pooler: answers do, notifications never.
    AllButNotifications,
    Nothing,
}

type Swallows = Arc<Mutex<Option<&'static str>>>;

/// A way to a server, gone when dropped.
pub(crate) struct Wire {
    /// The url of the database behind it.
    pub(crate) url: String,
    passes: watch::Sender<Passes>,
    /// A part of a statement: the next connection that it comes on is to die in silence, by itself.
    swallows: Swallows,
    task: JoinHandle<()>,
}

impl Wire {
    /// To the database at `url`; everything arrives.
    pub(crate) async fn to(url: &str) -> Self {
        Self::among(&[url]).await
    }

    /// To one of these after the other, with each connection; their databases have the same name.
    pub(crate) async fn among(urls: &[&str]) -> Self {
        let mut servers = Vec::new();
        let mut named = ("", "");
        for url in urls {
            let (before, address) = url.split_once('@').expect("a url with a user");
            let (server, database) = address.split_once('/').expect("a url with a database");
            servers.push(server.parse::<SocketAddr>().expect("an address"));
            named = (before, database);
        }
        let (before, database) = named;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let (passes, passing) = watch::channel(Passes::Everything);
        let swallows = Swallows::default();
        let swallowing = Arc::clone(&swallows);
        let task = tokio::spawn(async move {
            for server in servers.iter().cycle() {
                let Ok((client, _)) = listener.accept().await else {
                    return;
                };
                let Ok(server) = TcpStream::connect(server).await else {
                    continue;
                };
                client.set_nodelay(true).expect("no delay");
                server.set_nodelay(true).expect("no delay");
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                let is_dead = Arc::default();
                let requests = requests(
                    from_client,
                    to_server,
                    passing.clone(),
                    (Arc::clone(&swallowing), Arc::clone(&is_dead)),
                );
                tokio::spawn(requests);
                tokio::spawn(answers(from_server, to_client, passing.clone(), is_dead));
            }
        });
        // Without TLS, and without asking for it, answers are frames from the first byte on.
        let url = format!("{before}@127.0.0.1:{port}/{database}?sslmode=disable");
        Self {
            url,
            passes,
            swallows,
            task,
        }
    }

    /// The next connection on which a statement with this part is sent for the first time passes nothing on any
    /// more, while all others do.
    pub(crate) fn swallow(&self, part: &'static str) {
        *self.swallows.lock().expect("a part") = Some(part);
    }

    /// Whether that came to pass.
    pub(crate) fn has_swallowed(&self) -> bool {
        self.swallows.lock().expect("a part").is_none()
    }

    /// From now on, this arrives. What was held back arrives then, too.
    pub(crate) fn set(&self, passes: Passes) {
        self.passes.send_replace(passes);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Waits until something arrives.
async fn open(passing: &mut watch::Receiver<Passes>) -> Option<Passes> {
    let open = passing.wait_for(|passes| *passes != Passes::Nothing).await;
    open.ok().map(|passes| *passes)
}

async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut passing: watch::Receiver<Passes>,
    (swallows, is_dead): (Swallows, Arc<AtomicBool>),
) -> std::io::Result<()> {
    let mut bytes = [0; 4_096];
    loop {
        let count = from.read(&mut bytes).await?;
        if count == 0 || open(&mut passing).await.is_none() {
            return Ok(());
        }
        // The text of a statement, which is sent once a connection, in one piece here.
        let sent = String::from_utf8_lossy(&bytes[..count]);
        let swallowed = {
            let mut part = swallows.lock().expect("a part");
            part.take_if(|part| sent.contains(*part)).is_some()
        };
        if swallowed {
            is_dead.store(true, Ordering::SeqCst);
            std::future::pending::<()>().await;
        }
        to.write_all(&bytes[..count]).await?;
    }
}

async fn answers(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut passing: watch::Receiver<Passes>,
    is_dead: Arc<AtomicBool>,
) -> std::io::Result<()> {
    loop {
        let kind = from.read_u8().await;
        if is_dead.load(Ordering::SeqCst) {
            // Not even that the server hung up.
            std::future::pending::<()>().await;
        }
        let (kind, length) = (kind?, from.read_u32().await?);
        let mut body = vec![0; length as usize - 4];
        from.read_exact(&mut body).await?;
        match open(&mut passing).await {
            None => return Ok(()),
            Some(Passes::AllButNotifications) if kind == b'A' => continue,
            Some(_) => {}
        }
        let frame = [&[kind][..], &length.to_be_bytes(), &body].concat();
        to.write_all(&frame).await?;
    }
}
