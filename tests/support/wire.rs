//! A way to PostgreSQL on which nothing arrives any more, though no connection is lost.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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

/// A way to a server, gone when dropped.
pub(crate) struct Wire {
    /// The url of the database behind it.
    pub(crate) url: String,
    passes: watch::Sender<Passes>,
    /// Whether the next connection that tells news is to die in silence, by itself.
    swallows_news: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Wire {
    /// To the database at `url`; everything arrives.
    pub(crate) async fn to(url: &str) -> Self {
        let (before, address) = url.split_once('@').expect("a url with a user");
        let (server, database) = address.split_once('/').expect("a url with a database");
        let server: SocketAddr = server.parse().expect("an address");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let (passes, passing) = watch::channel(Passes::Everything);
        let swallows_news = Arc::default();
        let swallows = Arc::clone(&swallows_news);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(server).await else {
                    continue;
                };
                client.set_nodelay(true).expect("no delay");
                server.set_nodelay(true).expect("no delay");
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                let requests = requests(
                    from_client,
                    to_server,
                    passing.clone(),
                    Arc::clone(&swallows),
                );
                tokio::spawn(requests);
                tokio::spawn(answers(from_server, to_client, passing.clone()));
            }
        });
        // Without TLS, and without asking for it, answers are frames from the first byte on.
        let url = format!("{before}@127.0.0.1:{port}/{database}?sslmode=disable");
        Self {
            url,
            passes,
            swallows_news,
            task,
        }
    }

    /// The next connection on which news are told for the first time passes nothing on any more, while all others
    /// do.
    pub(crate) fn swallow_news(&self) {
        self.swallows_news.store(true, Ordering::SeqCst);
    }

    /// Whether that came to pass.
    pub(crate) fn has_swallowed(&self) -> bool {
        !self.swallows_news.load(Ordering::SeqCst)
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
    swallows_news: Arc<AtomicBool>,
) -> std::io::Result<()> {
    let mut bytes = [0; 4_096];
    loop {
        let count = from.read(&mut bytes).await?;
        if count == 0 || open(&mut passing).await.is_none() {
            return Ok(());
        }
        // The text of a statement, which is sent once a connection, in one piece here.
        let tells = bytes[..count].windows(9).any(|part| part == b"pg_notify");
        if tells && swallows_news.swap(false, Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        to.write_all(&bytes[..count]).await?;
    }
}

async fn answers(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut passing: watch::Receiver<Passes>,
) -> std::io::Result<()> {
    loop {
        let (kind, length) = (from.read_u8().await?, from.read_u32().await?);
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
