//! `recents serve`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use rustix::process::Signal;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;

use super::{Done, Failure, open, open_at, output, usage};
use crate::cache::{self, Changed};
use crate::capture;
use crate::check::audit::Audit;
use crate::config::{Config, ConfigError};
use crate::details::Details;
use crate::dismiss::Sweeps;
use crate::http::{App, Readiness, admin_router, public_router, server};
use crate::jobs;
use crate::read::Reader;
use crate::record::{Recorder, Recording};
use crate::settings::Settings;
use crate::store::migrate::MigrateError;
use crate::store::{Pace, Store, StoreError, audit, job};
use crate::telemetry::{Metrics, Repeated, trace};

/// How often the database is asked whether it answers, and a start that failed is tried again.
const HEALTH_INTERVAL: Duration = Duration::from_secs(2);
/// A database that hangs answers nothing, not even with an error. Longer than a connection takes.
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// What is queued has so long to be written, however long requests took to end.
const LAST_FLUSH: Duration = Duration::from_secs(1);
/// How long a stop waits until the job at work is let go of.
const JOBS_GRACE: Duration = Duration::from_secs(1);
/// How long a stop waits for answers about the service itself, which take milliseconds.
const ADMIN_GRACE: Duration = Duration::from_secs(1);

/// The two listeners, bound.
pub(super) struct Bound {
    public: std::net::TcpListener,
    admin: std::net::TcpListener,
}

impl Bound {
    pub(super) fn new(config: &Config) -> Result<Self, Failure> {
        Ok(Self {
            public: bind("listen", config.listen)?,
            admin: bind("admin_listen", config.admin_listen)?,
        })
    }

    /// Where the public one listens.
    pub(super) fn address(&self) -> std::io::Result<SocketAddr> {
        self.public.local_addr()
    }
}

pub(super) fn run(config: &Config) -> Result<Done, Failure> {
    run_on(config, Bound::new(config)?)
}

pub(super) fn run_on(config: &Config, bound: Bound) -> Result<Done, Failure> {
    trace::start(config.log_format, &config.log_level)
        .map_err(|error| usage(ConfigError::new("log.level", error)))?;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(serve(config, bound))
}

async fn serve(config: &Config, bound: Bound) -> Result<Done, Failure> {
    let (url, origin) = config.explain_store();
    tracing::info!(store = url, from = origin, "the table lives here");
    for name in &config.unknown_environment {
        tracing::warn!(name, "not a key of the configuration; it has no effect");
    }
    server::raise_open_files();
    // Heard and ignored: a file that may not grow is a full disk, and no reason to die.
    drop(signal(SignalKind::from_raw(Signal::XFSZ.as_raw()))?);
    let store = open(config)?;
    let public = TcpListener::from_std(bound.public)?;
    let admin = TcpListener::from_std(bound.admin)?;
    let replica = config.read_database_url.as_deref();
    let replica = replica
        .map(|url| open_at("read_database_url", url, config))
        .transpose()?;
    let mut reader = Reader::new(store.clone(), replica, config.cache);
    if let Some(history) = &config.history {
        let forced = config.settings.force_read_path.is_some();
        reader = reader.with_history(history.clone(), forced);
    }
    let reader = Arc::new(reader);
    let metrics = Metrics::new(&store).with_reader(Arc::clone(&reader));
    let metrics = Arc::new(metrics);
    let pace = Pace::default();
    let (sweeps, resyncs) = (Arc::<Sweeps>::default(), Arc::default());
    let (recorder, mut writer) = Recorder::start(
        store.clone(),
        Arc::clone(&metrics),
        Recording {
            noting: config.history.is_some(),
            pace: pace.clone(),
        },
    );
    let readiness = Arc::new(Readiness::default());
    let settings = Arc::new(Settings::new(config.settings, Arc::clone(&metrics)));
    let details = match &config.details {
        Some(details) => {
            let details = Details::open(details, Arc::clone(&settings), Arc::clone(&metrics));
            Some(Arc::new(
                details.map_err(|error| Failure::Usage(error.to_string()))?,
            ))
        }
        None => None,
    };
    if let Some(details) = details.clone() {
        store.changes().on_forget(move |changed| match changed {
            Changed::PublishedRun(published_run) => details.forget(published_run),
            // Whose details they are, nobody here knows.
            Changed::Everything | Changed::Workspace(_) => details.forget_all(),
            _ => {}
        });
    }
    let app = Arc::new(App {
        store: store.clone(),
        recorder,
        reader: Arc::clone(&reader),
        metrics: Arc::clone(&metrics),
        max_clock_skew: config.max_clock_skew,
        has_history: config.history.is_some(),
        settings: Arc::clone(&settings),
        details: details.clone(),
        resyncs: Arc::clone(&resyncs),
        sweeps: Arc::clone(&sweeps),
        readiness: Arc::clone(&readiness),
    });
    tracing::info!(
        listen = %public.local_addr()?,
        admin_listen = %admin.local_addr()?,
        version = env!("CARGO_PKG_VERSION"),
        "serving"
    );
    let grace = config.shutdown_grace;
    let public = Listener::start(public, public_router(Arc::clone(&app)), grace);
    let admin = Listener::start(admin, admin_router(app), ADMIN_GRACE);
    let watching = tokio::spawn(watch_database(
        store.clone(),
        Arc::clone(&metrics),
        Arc::clone(&readiness),
        Arc::clone(&settings),
        pace.clone(),
    ));
    let started = start_up(&store, config.migrate_on_start, &readiness, &settings);
    let ((stop_jobs, stopped), mut jobs) = (watch::channel(false), None);
    let needs = jobs::service::Needs {
        store: store.clone(),
        history: config.history.clone(),
        metrics: Arc::clone(&metrics),
        pause_while: config.resync_pause_while.clone(),
        asked: resyncs,
    };
    let working = async {
        started.await?;
        let cache = Arc::clone(reader.cache());
        let listening = cache::listener::run(store.clone(), cache, config.listen_url.clone());
        jobs = Some(tokio::spawn(jobs::service::run(needs, stopped)));
        let sweeping = sweeps.run(store.clone());
        let following = async {
            if let Some(history) = &config.history {
                let metrics = Arc::clone(&metrics);
                let run = capture::service::run(store.clone(), history.clone(), metrics, pace);
                run.await.map_err(Failure::from_history)?;
            }
            std::future::pending::<Result<(), Failure>>().await
        };
        let auditing = async {
            if let (true, Some(history)) = (config.audit, &config.history) {
                let pause_while = config.resync_pause_while.clone();
                let (store, metrics) = (store.clone(), Arc::clone(&metrics));
                Audit::new(store, history.clone(), metrics, pause_while)
                    .run()
                    .await;
            }
            std::future::pending::<()>().await;
        };
        let checking = async {
            if let Some(details) = details {
                let checked = details.check().await;
                checked.map_err(|error| Failure::Usage(error.to_string()))?;
            }
            std::future::pending::<Result<(), Failure>>().await
        };
        tokio::select! {
            () = sweeping => {}
            () = listening => {}
            () = reader.watch_replica() => {}
            () = auditing => {}
            followed = following => followed?,
            checked = checking => checked?,
        }
        std::future::pending().await
    };
    let outcome = tokio::select! {
        outcome = working => outcome,
        signal = terminated() => signal.map_err(Failure::from),
        // It never ends before its last recorder: it must have panicked.
        _ = &mut writer => return Err(Failure::failed("the writer ended; see the log")),
    };
    readiness.set_draining();
    tracing::info!("stopping: requests under way may end, what is queued will be written");
    let deadline = Instant::now() + grace;
    stop_jobs.send_replace(true);
    if let Some(jobs) = jobs {
        // Where the table is away, the lease of its job runs out by itself.
        let _ = tokio::time::timeout(JOBS_GRACE, jobs).await;
    }
    public.stop().await?;
    // Last, so that until now whoever asked heard that the service drains.
    admin.stop().await?;
    watching.abort();
    // The listeners held the last recorders: the writer ends when its queue is empty.
    let deadline = deadline.max(Instant::now() + LAST_FLUSH);
    if tokio::time::timeout_at(deadline, writer).await.is_err() {
        return Err(Failure::failed(
            "queued uses could not be written within the grace period",
        ));
    }
    store.close().await;
    tracing::info!("stopped");
    outcome
}

/// A listener at work.
struct Listener {
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
}

impl Listener {
    fn start(listener: TcpListener, router: Router, grace: Duration) -> Self {
        let (stop, stopped) = oneshot::channel();
        let stopped = async { drop(stopped.await) };
        let served = tokio::spawn(server::serve(listener, router, stopped, grace));
        Self { stop, served }
    }

    /// Closes it, and lets the requests under way end within the grace period.
    async fn stop(self) -> Result<(), JoinError> {
        drop(self.stop);
        self.served.await
    }
}

fn bind(key: &str, address: SocketAddr) -> Result<std::net::TcpListener, Failure> {
    let bound = std::net::TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    bound.map_err(|error| Failure::failed(format!("{key}: cannot listen on {address}: {error}")))
}

/// Waits for SIGTERM or SIGINT.
async fn terminated() -> std::io::Result<Done> {
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(Done::Complete)
}

/// Brings the schema up to date, or waits until someone else did, and learns the settings: the first
/// request is answered as they say. A database that is away is
/// waited for; a schema that this program must not touch ends it, and so does a file that cannot be
/// opened.
async fn start_up(
    store: &Store,
    migrate: bool,
    readiness: &Readiness,
    settings: &Settings,
) -> Result<(), Failure> {
    let mut said = Repeated::default();
    loop {
        let done = async {
            match migrate {
                true => store.migrate().await.map(drop),
                false => store.check_schema().await,
            }?;
            settings.start(store).await
        };
        let done = done.await;
        match done {
            Ok(()) => break,
            Err(StoreError::Schema(error))
                if matches!(
                    *error,
                    MigrateError::Newer { .. }
                        | MigrateError::Changed { .. }
                        | MigrateError::Encoding { .. }
                ) =>
            {
                return Err(Failure::from_store(error.into()));
            }
            // A file that cannot be opened now will not be there in two seconds either.
            Err(error @ StoreError::Unavailable(_)) if matches!(store, Store::Sqlite(..)) => {
                return Err(Failure::failed(error));
            }
            Err(error) => {
                let error = output::chain(&error);
                if settings.needs_no_table() {
                    // Whoever forces the history does so because the table is away.
                    readiness.set_migrated();
                    if said.is_news(&error) {
                        tracing::warn!(
                            error,
                            "lists come from the history, without the table; trying again"
                        );
                    }
                } else {
                    tracing::warn!(error, "not ready yet; trying again");
                }
                tokio::time::sleep(HEALTH_INTERVAL).await;
            }
        }
    }
    readiness.set_migrated();
    let read_path = settings.effective().read_path.name();
    tracing::info!(read_path, "ready");
    Ok(())
}

/// Whether the database answers. Why it does not is said once: readers may be given what was known before, and
/// nobody who is refused says it for every request.
async fn answers(store: &Store, said: &mut Repeated) -> bool {
    let error = match tokio::time::timeout(PING_TIMEOUT, store.ping()).await {
        Ok(Ok(())) => {
            said.well();
            return true;
        }
        Ok(Err(error)) => output::chain(&error),
        Err(_) => "it says nothing".into(),
    };
    if said.is_news(&error) {
        tracing::warn!(error, "the database does not answer; trying again");
    }
    false
}

/// Keeps the database's health up to date. Ends with the service.
async fn watch_database(
    store: Store,
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
    settings: Arc<Settings>,
    pace: Pace,
) {
    let mut said = Repeated::default();
    loop {
        let up = answers(&store, &mut said).await;
        metrics.database_up.set(i64::from(up));
        readiness.set_database_up(up);
        let passed_at = audit::passed_at(&store);
        if up && let Ok(Ok(Some(time))) = tokio::time::timeout(PING_TIMEOUT, passed_at).await {
            metrics.verify_last_success.set(time.micros() / 1_000_000);
        }
        let last_success = job::last_success(&store, crate::jobs::BACKFILL);
        if up && let Ok(Ok(Some(time))) = tokio::time::timeout(PING_TIMEOUT, last_success).await {
            metrics.backfill_last_success.set(time.micros() / 1_000_000);
        }
        if let Ok(Err(error)) = tokio::time::timeout(PING_TIMEOUT, settings.refresh(&store)).await {
            let error = output::chain(&error);
            tracing::debug!(
                error,
                "the settings could not be read; they stay as they are"
            );
        }
        // Told by the ping already where it fails.
        let _ = tokio::time::timeout(PING_TIMEOUT, pace.look(&store)).await;
        tokio::time::sleep(HEALTH_INTERVAL).await;
    }
}
