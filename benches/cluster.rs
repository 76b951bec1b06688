//! A private PostgreSQL, started and stopped by `scripts/postgres`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

/// A cluster of the bench's own; dropped, it is stopped and removed.
pub(crate) struct Cluster {
    dir: TempDir,
    /// Its database `postgres`, as superuser.
    pub(crate) url: String,
}

impl Cluster {
    /// Starts one with these settings (`fsync=on`) on top of those of `scripts/postgres`.
    pub(crate) fn start(settings: &[&str]) -> Result<Self, String> {
        use std::os::unix::fs::PermissionsExt;
        // Always /tmp: the socket's path must be short, and PostgreSQL's own user must get there.
        let dir = tempfile::Builder::new()
            .prefix("recents-bench.")
            .permissions(std::fs::Permissions::from_mode(0o711))
            .tempdir_in("/tmp")
            .map_err(|error| format!("no directory in /tmp: {error}"))?;
        let mut cluster = Self {
            dir,
            url: String::new(),
        };
        cluster.url = postgres("start", &cluster.path(), settings)?;
        Ok(cluster)
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("pg")
    }

    /// Where the server logs.
    #[allow(dead_code, reason = "not every bench reads it")]
    pub(crate) fn log(&self) -> PathBuf {
        self.path().join("log")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Nobody will read it again; what cannot be stopped was never started.
        let _ = postgres("stop", &self.path(), &["immediate"]);
    }
}

fn postgres(command: &str, dir: &Path, more: &[&str]) -> Result<String, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/postgres");
    let output = Command::new(script)
        .arg(command)
        .arg(dir)
        .args(more)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("scripts/postgres does not run: {error}"))?;
    if !output.status.success() {
        return Err(format!("scripts/postgres {command} failed"));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Runs `work` to its end, or drops it at SIGINT and SIGTERM, so that no server is left behind.
pub(crate) async fn until_told<T>(work: impl Future<Output = T>) -> Option<T> {
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        return None;
    };
    tokio::select! {
        done = work => Some(done),
        _ = interrupt.recv() => None,
        _ = terminate.recv() => None,
    }
}
