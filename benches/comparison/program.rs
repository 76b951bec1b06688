//! The release binary, as a user runs it: commands to their end, and servers.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::sync::oneshot;

use crate::{Failure, history};

/// How often a command is asked whether it ended, and how much memory it had.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// A server that takes longer to be ready has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// A process, killed when dropped.
pub(crate) struct Process(pub(crate) Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `recents` with a configuration file.
pub(crate) struct Program {
    dir: TempDir,
}

/// A command that ended well.
pub(crate) struct Ran {
    pub(crate) wall: Duration,
    /// The most memory that it had at once, in MiB; unknown where there is no `/proc`.
    pub(crate) peak: Option<f64>,
    /// What it said in the end.
    pub(crate) summary: serde_json::Value,
}

impl Program {
    /// With the table and the history in the database at `url`.
    pub(crate) fn new(url: &str) -> Result<Self, Failure> {
        let dir = tempfile::tempdir()?;
        let config = format!(
            "database_url = \"{url}\"\n[history]\ntable = \"app.saved_run\"\nkey = \"id\"\n\
             query = \"\"\"\n{}\n\"\"\"\n",
            history::MAPPING
        );
        std::fs::write(dir.path().join("recents.toml"), config)?;
        Ok(Self { dir })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_recents"));
        // Only the file counts.
        command.env_clear().current_dir(self.dir.path());
        command
    }

    /// Runs a command without a summary to its end.
    pub(crate) fn run_plain(&self, args: &[&str]) -> Result<(), Failure> {
        let ended = self.command().args(args).output()?;
        if !ended.status.success() {
            let said = String::from_utf8_lossy(&ended.stderr);
            return Err(format!("recents {args:?}: {said}").into());
        }
        Ok(())
    }

    /// Serves the table, and follows the history.
    pub(crate) async fn serve_followed(
        &self,
        settings: &[(&str, &str)],
    ) -> Result<Serving, Failure> {
        let mut command = self.command();
        command.envs(settings.iter().copied());
        command.arg("serve").envs([
            ("RECENTS_LISTEN", "127.0.0.1:0"),
            ("RECENTS_ADMIN_LISTEN", "127.0.0.1:0"),
            ("RECENTS_LOG_FORMAT", "json"),
        ]);
        Serving::start(command).await
    }

    /// Runs a command to its end.
    pub(crate) async fn run(&self, args: &[&str]) -> Result<Ran, Failure> {
        let mut command = self.command();
        command.args(args).arg("--json").stdin(Stdio::null());
        let started = Instant::now();
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = Process(child.spawn()?);
        let said = [
            follow_up(process.0.stdout.take()),
            follow_up(process.0.stderr.take()),
        ];
        let status = PathBuf::from(format!("/proc/{}/status", process.0.id()));
        let mut peak = None;
        let ended = loop {
            if let Some(ended) = process.0.try_wait()? {
                break ended;
            }
            peak = high_water(&status).or(peak);
            tokio::time::sleep(LOOK_EVERY).await;
        };
        let wall = started.elapsed();
        let [out, err] = said.map(|said| said.join().unwrap_or_default());
        if !ended.success() {
            return Err(format!("recents {args:?}: {ended}\n{out}{err}").into());
        }
        let summary = serde_json::from_str(out.lines().last().unwrap_or_default())?;
        Ok(Ran {
            wall,
            peak,
            summary,
        })
    }

    /// Serves the table, without a history, with these settings (`RECENTS_…`) and no others.
    pub(crate) async fn serve(url: &str, settings: &[(&str, &str)]) -> Result<Serving, Failure> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_recents"));
        command.env_clear().arg("serve").envs([
            ("RECENTS_CONFIG", "/dev/null"),
            ("RECENTS_DATABASE_URL", url),
            ("RECENTS_LISTEN", "127.0.0.1:0"),
            ("RECENTS_ADMIN_LISTEN", "127.0.0.1:0"),
            ("RECENTS_LOG_FORMAT", "json"),
        ]);
        command.envs(settings.iter().copied());
        Serving::start(command).await
    }
}

/// Reads what a command says while it says it, so that it never waits for a reader.
fn follow_up(from: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut said = String::new();
        // What cannot be read was not said.
        let _ = from.map(|mut from| from.read_to_string(&mut said));
        said
    })
}

/// The most memory that a process had at once.
fn high_water(status: &PathBuf) -> Option<f64> {
    let status = std::fs::read_to_string(status).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}

/// A server that is ready, killed when dropped.
pub(crate) struct Serving {
    process: Process,
    pub(crate) address: SocketAddr,
}

impl Serving {
    /// Waits for its log, JSON on standard error, to tell `listen` and then that it is `ready`.
    pub(crate) async fn start(mut command: Command) -> Result<Self, Failure> {
        let command = command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut process = Process(command.stderr(Stdio::piped()).spawn()?);
        let stderr = process.0.stderr.take().ok_or("no standard error")?;
        let (ready, is_ready) = oneshot::channel();
        std::thread::spawn(move || follow(stderr, ready));
        let address = tokio::time::timeout(PATIENCE, is_ready).await;
        Ok(Self {
            process,
            address: address
                .map_err(|_| "a server is not ready")?
                .map_err(|_| "a server ended instead of being ready")?,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.0.id()
    }
}

/// Says as a peer what [`Serving::start`] waits for.
pub(crate) fn announce(address: SocketAddr) {
    eprintln!(
        "{}",
        serde_json::json!({"message": "ready", "listen": address})
    );
}

/// Reads a server's log to its end, so that it never waits for a reader.
fn follow(log: impl Read, ready: oneshot::Sender<SocketAddr>) {
    let (mut address, mut ready) = (None, Some(ready));
    for line in BufReader::new(log).lines().map_while(Result::ok) {
        let event: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
        let listen = event["listen"].as_str().and_then(|text| text.parse().ok());
        address = address.or(listen);
        if event["level"] == "WARN" || event["level"] == "ERROR" || event.is_null() {
            eprintln!("{line}");
        }
        if event["message"] == "ready"
            && let (Some(address), Some(ready)) = (address, ready.take())
        {
            // Nobody may be waiting any more.
            let _ = ready.send(address);
        }
    }
}
