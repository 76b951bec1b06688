//! Redis: a server of the bench's own, and the few lines of its protocol that the peer speaks.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;

use crate::Failure;
use crate::program::Process;

/// A server that takes longer to be ready has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server on a socket of its own, which keeps nothing on disk; killed when dropped.
pub(crate) struct Redis {
    process: Process,
    dir: TempDir,
}

impl Redis {
    /// `None` where it is not installed.
    pub(crate) async fn start() -> Result<Option<Self>, Failure> {
        let dir = tempfile::tempdir()?;
        let mut command = Command::new("redis-server");
        command
            .args(["--port", "0", "--save", "", "--appendonly", "no"])
            .args(["--unixsocket", "socket", "--dir"])
            .arg(dir.path())
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let process = match command.spawn() {
            Ok(child) => Process(child),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let redis = Self { process, dir };
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = Connection::open(&redis.socket()).await {
            if Instant::now() > deadline {
                return Err(format!("redis-server is not ready: {error}").into());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(Some(redis))
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.0.id()
    }
}

/// A connection to a server.
pub(crate) struct Connection {
    stream: BufStream<UnixStream>,
    line: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(socket: &Path) -> Result<Self, Failure> {
        Ok(Self {
            stream: BufStream::new(UnixStream::connect(socket).await?),
            line: Vec::new(),
        })
    }

    /// Sends a command; gives its answer, a number or texts, as texts.
    pub(crate) async fn send(&mut self, command: &[&[u8]]) -> Result<Vec<Vec<u8>>, Failure> {
        let mut request = format!("*{}\r\n", command.len()).into_bytes();
        for part in command {
            request.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
            request.extend_from_slice(part);
            request.extend_from_slice(b"\r\n");
        }
        self.stream.write_all(&request).await?;
        self.stream.flush().await?;
        let (kind, rest) = self.line().await?;
        match kind {
            b':' => Ok(vec![rest]),
            b'*' => {
                let mut texts = Vec::new();
                for _ in 0..number(&rest)? {
                    let (_, length) = self.line().await?;
                    let mut text = vec![0; number(&length)? + 2];
                    self.stream.read_exact(&mut text).await?;
                    text.truncate(text.len() - 2);
                    texts.push(text);
                }
                Ok(texts)
            }
            _ => Err(String::from_utf8_lossy(&rest).into()),
        }
    }

    /// The next line: its first byte, and the rest without its end.
    async fn line(&mut self) -> Result<(u8, Vec<u8>), Failure> {
        self.line.clear();
        self.stream.read_until(b'\n', &mut self.line).await?;
        match self.line.as_slice() {
            [kind, rest @ .., b'\r', b'\n'] => Ok((*kind, rest.to_vec())),
            _ => Err("redis-server closed the connection".into()),
        }
    }
}

fn number(text: &[u8]) -> Result<usize, Failure> {
    Ok(std::str::from_utf8(text)?.parse()?)
}

/// Connections that are kept.
pub(crate) struct Pool {
    free: Mutex<Vec<Connection>>,
    places: Semaphore,
}

impl Pool {
    pub(crate) async fn connect(socket: &Path, size: usize) -> Result<Self, Failure> {
        let mut free = Vec::new();
        for _ in 0..size {
            free.push(Connection::open(socket).await?);
        }
        Ok(Self {
            free: Mutex::new(free),
            places: Semaphore::new(size),
        })
    }

    /// Sends a command on a connection that is free.
    pub(crate) async fn send(&self, command: &[&[u8]]) -> Result<Vec<Vec<u8>>, Failure> {
        let _place = self.places.acquire().await?;
        let free = || self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = free().pop();
        let mut connection = taken.ok_or("a connection was lost")?;
        let answer = connection.send(command).await?;
        free().push(connection);
        Ok(answer)
    }
}
