//! Servers: the real program in a process of its own, or its router in this one.

use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use recents::cache::CacheSettings;
use recents::http::server::serve;
use recents::http::{App, public_router};
use recents::read::Reader;
use recents::record::{Recorder, Recording};
use recents::settings::{Configured, DetailsMode, ReadPathChoice, Settings};
use recents::store::Store;
use recents::telemetry::Metrics;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::client::Client;
use super::cluster::temp_dir;
use super::command::command;
use super::database::TestDb;
use super::log::Log;
use super::wait::until;

/// Every read asks the database.
pub(crate) const CACHE_OFF: CacheSettings = CacheSettings {
    capacity: 0,
    ttl: Duration::from_secs(60),
    stale_if_error: Duration::from_secs(60),
};

/// `recents serve`, killed when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) log: Log,
    pub(crate) public: Client,
    pub(crate) admin: Client,
    _dir: TempDir,
}

impl Server {
    /// Serves `db`, ready.
    pub(crate) async fn start(db: &TestDb) -> Self {
        Self::with(&db.url, &[]).await
    }

    /// Serves the database at `url` with these flags, ready.
    pub(crate) async fn with(url: &str, flags: &[&str]) -> Self {
        let mut server = Self::spawn(url, flags).await;
        server.ready().await;
        server
    }

    /// Serves as soon as it listens; ready or not.
    pub(crate) async fn spawn(url: &str, flags: &[&str]) -> Self {
        let dir = temp_dir();
        let command = command(dir.path());
        Self::by(command, dir, url, flags).await
    }

    /// The same of a process that may have so many files open unless it asks for more. util-linux's
    /// `prlimit` becomes the server.
    pub(crate) async fn with_open_files(url: &str, files: u32) -> Self {
        let dir = temp_dir();
        let mut command = Command::new("prlimit");
        command
            .args([&format!("--nofile={files}:"), "--"])
            .arg(env!("CARGO_BIN_EXE_recents"))
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .current_dir(dir.path())
            .stdin(Stdio::null());
        let mut server = Self::by(command, dir, url, &[]).await;
        server.ready().await;
        server
    }

    async fn by(mut command: Command, dir: TempDir, url: &str, flags: &[&str]) -> Self {
        // By environment, so that a flag of the test wins.
        let mut child = command
            .env("RECENTS_DATABASE_URL", url)
            .env("RECENTS_LISTEN", "127.0.0.1:0")
            .env("RECENTS_ADMIN_LISTEN", "127.0.0.1:0")
            .env("RECENTS_LOG_FORMAT", "json")
            .arg("serve")
            .args(flags)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("recents runs");
        let log = Log::follow(child.stderr.take().expect("its standard error"));
        let unknown = Client(SocketAddr::from(([127, 0, 0, 1], 0)));
        let mut server = Self {
            child,
            log,
            public: unknown,
            admin: unknown,
            _dir: dir,
        };
        let serving = until("the server listens", async || {
            let found = server
                .log
                .events()
                .into_iter()
                .find(|event| event["message"] == "serving");
            if found.is_none() {
                server.check_alive();
            }
            found
        })
        .await;
        let address = |name: &str| serving[name].as_str().and_then(|text| text.parse().ok());
        server.public = Client(address("listen").expect("its public address"));
        server.admin = Client(address("admin_listen").expect("its admin address"));
        server
    }

    /// How large a file may get by what it writes; `unlimited` is as it was.
    pub(crate) fn limit_files(&self, bytes: &str) {
        let status = Command::new("prlimit")
            .args(["--pid", &self.child.id().to_string()])
            .arg(format!("--fsize={bytes}:"))
            .status();
        assert!(status.expect("prlimit runs").success());
    }

    /// Waits until it says that it is ready.
    pub(crate) async fn ready(&mut self) {
        until("the server is ready", async || {
            self.check_alive();
            (self.admin.get("/readyz").await.status == 200).then_some(())
        })
        .await;
    }

    fn check_alive(&mut self) {
        let ended = self.child.try_wait().expect("its state");
        assert!(
            ended.is_none(),
            "the server ended, {ended:?}:\n{}",
            self.log.text()
        );
    }

    /// Sends it SIGTERM.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: &str) {
        let kill = Command::new("kill")
            .args(["-s", signal, &self.child.id().to_string()])
            .status();
        assert!(
            kill.expect("kill runs").success(),
            "the server is gone already"
        );
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let status = until("the server ended", async || {
            self.child.try_wait().expect("its state")
        })
        .await;
        self.log.ended().await;
        status
    }

    /// A sample of its metrics, such as `recents_runs_total{source="hook",outcome="applied"}`.
    pub(crate) async fn metric(&self, sample: &str) -> f64 {
        let metrics = self.admin.get("/metrics").await.expect(200);
        let value = metrics
            .text()
            .lines()
            .find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        value
            .and_then(|value| value.parse().ok())
            .unwrap_or_else(|| panic!("no sample {sample}"))
    }

    /// Waits until that many uses wait for the database.
    pub(crate) async fn queued(&self, uses: u32) {
        until(&format!("{uses} uses are queued"), async || {
            (self.metric("recents_record_queue_depth").await == f64::from(uses)).then_some(())
        })
        .await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A router served by this process; it stops when dropped.
pub(crate) struct InProcess {
    pub(crate) client: Client,
    _stop: oneshot::Sender<()>,
}

impl InProcess {
    /// The public listener's service on `store`, where a test needs a store that no URL describes.
    pub(crate) async fn on(store: Store) -> Self {
        Self::with_writer(store).await.0
    }

    /// The same, and the writer of its uses.
    pub(crate) async fn with_writer(store: Store) -> (Self, JoinHandle<()>) {
        let metrics = Arc::new(Metrics::new(&store));
        let reader = Arc::new(Reader::new(store.clone(), None, CACHE_OFF));
        let (recorder, writer) =
            Recorder::start(store.clone(), Arc::clone(&metrics), Recording::default());
        let configured = Configured {
            read_path: ReadPathChoice::Auto,
            force_read_path: None,
            details_mode: DetailsMode::Batched,
            has_history: false,
        };
        let settings = Arc::new(Settings::new(configured, Arc::clone(&metrics)));
        let router = public_router(Arc::new(App {
            store,
            recorder,
            reader,
            metrics,
            max_clock_skew: Duration::from_secs(300),
            has_history: false,
            settings,
            details: None,
            resyncs: Arc::default(),
            sweeps: Arc::default(),
            readiness: Arc::default(),
        }));
        (Self::serving(router).await, writer)
    }

    /// Any router, served as the service's are.
    pub(crate) async fn serving(router: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let client = Client(listener.local_addr().expect("its address"));
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async { drop(stopped.await) };
        tokio::spawn(serve(listener, router, stopped, Duration::from_secs(1)));
        Self {
            client,
            _stop: stop,
        }
    }
}
