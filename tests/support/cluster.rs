//! PostgreSQL clusters: the one that all tests share, and private ones that a test may stop.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// The cluster that all tests share; its databases are theirs alone.
pub(crate) fn shared_url() -> String {
    setting("RECENTS_TEST_POSTGRES")
}

fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: run scripts/test, which starts a PostgreSQL")
    })
}

/// A directory of the test's own. The user that PostgreSQL runs as may pass through it.
pub(crate) fn temp_dir() -> TempDir {
    use std::os::unix::fs::PermissionsExt;
    tempfile::Builder::new()
        .permissions(std::fs::Permissions::from_mode(0o711))
        .tempdir()
        .expect("a temporary directory")
}

/// A cluster of the test's own, stopped when dropped.
pub(crate) struct Cluster {
    dir: TempDir,
    /// Its database `postgres`, as superuser.
    pub(crate) url: String,
}

impl Cluster {
    pub(crate) fn start() -> Self {
        let dir = temp_dir();
        let url = postgres(&["start", &data(&dir)]);
        Self { dir, url }
    }

    /// A streaming replica of it.
    pub(crate) fn standby(&self) -> Self {
        let dir = temp_dir();
        let url = postgres(&["standby", &data(&dir), &data(&self.dir)]);
        Self { dir, url }
    }

    /// A transaction pooler in front of it.
    pub(crate) fn pooler(&self) -> Pooler {
        let dir = temp_dir();
        let path = dir.path().join("pgbouncer");
        let path = path.to_str().expect("UTF-8").to_owned();
        let (done, url, err) = run("pgbouncer", &["start", &path, &data(&self.dir)]);
        assert!(done, "scripts/pgbouncer start failed: {err}");
        Pooler {
            _dir: dir,
            path,
            url,
        }
    }

    /// As a crash does: no goodbye to any connection.
    pub(crate) fn crash(&self) {
        postgres(&["stop", &data(&self.dir), "immediate"]);
    }

    /// As a machine that hangs does: connections stay, nothing is answered.
    pub(crate) fn freeze(&self) -> Frozen {
        let pid_file = self.dir.path().join("pg/data/postmaster.pid");
        let pid_file = std::fs::read_to_string(pid_file).expect("its process id");
        let postmaster = pid_file.lines().next().expect("a line").to_owned();
        // The parent first, so that it starts no more of them.
        signal("-STOP", std::slice::from_ref(&postmaster));
        let children = Command::new("pgrep")
            .args(["-P", &postmaster])
            .output()
            .expect("pgrep runs");
        let children = String::from_utf8(children.stdout).expect("numbers");
        let mut pids: Vec<_> = children.lines().map(ToOwned::to_owned).collect();
        signal("-STOP", &pids);
        pids.push(postmaster);
        Frozen(pids)
    }

    /// A cold copy of it, as of now.
    pub(crate) fn copy(&self) -> TempDir {
        let copy = temp_dir();
        self.crash();
        copy_of(&self.dir.path().join("pg/data"), &copy.path().join("data"));
        self.restart();
        copy
    }

    /// Puts it back to where such a copy was taken.
    pub(crate) fn put_back(&self, copy: TempDir) {
        let data = self.dir.path().join("pg/data");
        self.crash();
        std::fs::remove_dir_all(&data).expect("it goes");
        copy_of(&copy.path().join("data"), &data);
        self.restart();
        drop(copy);
    }

    /// On the same port, with the same settings.
    pub(crate) fn restart(&self) {
        assert_eq!(postgres(&["restart", &data(&self.dir)]), self.url);
    }
}

/// A transaction pooler, stopped when dropped.
pub(crate) struct Pooler {
    _dir: TempDir,
    path: String,
    pub(crate) url: String,
}

impl Drop for Pooler {
    fn drop(&mut self) {
        run("pgbouncer", &["stop", &self.path]);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        run("postgres", &["stop", &data(&self.dir), "immediate"]);
    }
}

/// A cluster that hangs; it goes on when this is dropped.
pub(crate) struct Frozen(Vec<String>);

impl Drop for Frozen {
    fn drop(&mut self) {
        signal("-CONT", &self.0);
    }
}

/// With its owner, who is not always the test's.
fn copy_of(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(copied.expect("cp runs").success());
}

fn signal(signal: &str, pids: &[String]) {
    // One that ended meanwhile is no matter.
    let _ = Command::new("kill").arg(signal).args(pids).status();
}

fn data(dir: &TempDir) -> String {
    dir.path().join("pg").to_str().expect("UTF-8").to_owned()
}

fn postgres(args: &[&str]) -> String {
    let (done, out, err) = run("postgres", args);
    assert!(done, "scripts/postgres {args:?} failed: {err}");
    out
}

fn run(script: &str, args: &[&str]) -> (bool, String, String) {
    let script = PathBuf::from(setting("RECENTS_TEST_SCRIPTS")).join(script);
    let output = Command::new(script)
        .args(args)
        .output()
        .expect("the script runs");
    let text = |bytes| String::from_utf8_lossy(bytes).trim().to_owned();
    (
        output.status.success(),
        text(&output.stdout),
        text(&output.stderr),
    )
}
