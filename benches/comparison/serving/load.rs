//! A server under load, and what that costs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::lists::{LISTS, request, workspace};
use crate::http::Connection;
use crate::program::Serving;
use crate::report::percentile;
use crate::{Failure, cpu};

/// Clients, each with a connection that is kept, and one request at a time.
pub(crate) const CONNECTIONS: u64 = 32;
/// How long a server is measured in a turn,
pub(crate) const TURN: Duration = Duration::from_secs(1);
/// and how long it runs before, for connections and caches.
const WARM_UP: Duration = Duration::from_millis(300);

/// What one turn found; times in seconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turn {
    /// Answers a second.
    pub(crate) rate: f64,
    pub(crate) half: f64,
    pub(crate) most: f64,
    /// CPU time of an answer: of the server,
    pub(crate) server: f64,
    /// of its database,
    pub(crate) database: f64,
    /// and of the clients.
    pub(crate) clients: f64,
}

/// What a database costs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Database {
    None,
    Postgres(u32),
    Redis(u32),
}

impl Database {
    fn cpu(self) -> Result<Duration, Failure> {
        match self {
            Self::None => Ok(Duration::ZERO),
            Self::Postgres(postmaster) => cpu::of_family(postmaster),
            Self::Redis(pid) => cpu::of_process(pid),
        }
    }
}

#[derive(Default)]
struct Progress {
    answers: AtomicU64,
    counts: AtomicBool,
    is_over: AtomicBool,
}

/// What was spent, until a moment.
struct Mark {
    at: Instant,
    answers: u64,
    server: Duration,
    database: Duration,
    clients: Duration,
}

impl Mark {
    fn set(progress: &Progress, server: u32, database: Database) -> Result<Self, Failure> {
        Ok(Self {
            at: Instant::now(),
            answers: progress.answers.load(Relaxed),
            server: cpu::of_process(server)?,
            database: database.cpu()?,
            clients: cpu::of_process(std::process::id())?,
        })
    }
}

pub(crate) async fn turn(
    server: &Serving,
    database: Database,
    query: &str,
) -> Result<Turn, Failure> {
    let progress = Arc::new(Progress::default());
    let requests = (0..LISTS).map(|at| request(&workspace(at), query));
    let requests: Arc<[Vec<u8>]> = requests.collect();
    let mut clients = Vec::new();
    for seed in 0..CONNECTIONS {
        let connection = Connection::open(server.address).await?;
        let (requests, progress) = (Arc::clone(&requests), Arc::clone(&progress));
        clients.push(tokio::spawn(client(connection, requests, seed, progress)));
    }
    tokio::time::sleep(WARM_UP).await;
    let from = Mark::set(&progress, server.pid(), database)?;
    progress.counts.store(true, Relaxed);
    tokio::time::sleep(TURN).await;
    let to = Mark::set(&progress, server.pid(), database)?;
    progress.is_over.store(true, Relaxed);
    let mut latencies = Vec::new();
    for client in clients {
        latencies.extend(client.await??);
    }
    let answers = (to.answers - from.answers) as f64;
    let each = |from: Duration, to: Duration| (to - from).as_secs_f64() / answers;
    Ok(Turn {
        rate: answers / (to.at - from.at).as_secs_f64(),
        half: percentile(&mut latencies, 0.5),
        most: percentile(&mut latencies, 0.99),
        server: each(from.server, to.server),
        database: each(from.database, to.database),
        clients: each(from.clients, to.clients),
    })
}

/// Sends until it is over; gives the latencies that count.
async fn client(
    mut connection: Connection,
    requests: Arc<[Vec<u8>]>,
    seed: u64,
    progress: Arc<Progress>,
) -> Result<Vec<f64>, Failure> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut latencies = Vec::new();
    while !progress.is_over.load(Relaxed) {
        let request = random.choice(&*requests).ok_or("no requests")?;
        let started = Instant::now();
        connection.send(request).await?;
        progress.answers.fetch_add(1, Relaxed);
        if progress.counts.load(Relaxed) {
            latencies.push(started.elapsed().as_secs_f64());
        }
    }
    Ok(latencies)
}
