//! Reading a list while one of its items is used at full speed: dead versions of its row must not be
//! walked by those who read, also where an old transaction keeps vacuum from removing them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Builder;

use super::lists;
use crate::Failure;
use crate::hook::{CONNECTIONS, HOT, Spread, uses};
use crate::peers::Peer;
use crate::program::Program;
use crate::report::{Report, digits, median, percentile, target, time};
use crate::server::{Server, run};

/// The one client reads by SQL and by HTTP in turns of this length.
const SLICE: Duration = Duration::from_millis(20);
/// How long it reads while nothing else happens,
const IDLE: Duration = Duration::from_secs(5);
/// while uses come, long enough for several rounds of autovacuum's or for what it cannot remove,
const BUSY: Duration = Duration::from_secs(30);
/// and what of that counts: the end, when dead versions have gathered.
const COUNTED: Duration = Duration::from_secs(10);
/// How much slower a read may become.
const AT_MOST: f64 = 3.0;

pub(crate) async fn measure(server: &Server, report: &mut Report) -> Result<(), Failure> {
    let serving = Program::serve(&server.url, &[]).await?;
    let address = serving.address;
    let mut conn = server.connect().await?;
    // The list of the hot key, as long as the other one.
    let fill = format!(
        "insert into recents.recent_workflow (workspace, uid, published_run, last_used_at, run)
         select '{HOT}', '', published_run, last_used_at, run from recents.recent_workflow
         where workspace = '{}' on conflict do nothing",
        lists::workspace(0)
    );
    run(&mut conn, &fill).await?;
    run(&mut conn, "vacuum analyze recents.recent_workflow").await?;
    let mut rows = vec![
        [
            "",
            "uses/s",
            "by SQL",
            "against idle",
            "by HTTP",
            "against the other list",
            "target",
        ]
        .map(Into::into)
        .into(),
    ];
    let (mut idle, mut other) = (None, None);
    for (name, list, is_busy, is_held) in [
        ("idle", HOT, false, false),
        (
            "another workspace's item is used",
            lists::FIRST,
            true,
            false,
        ),
        ("one of its items is used", HOT, true, false),
        ("the same, a transaction open elsewhere", HOT, true, true),
    ] {
        eprintln!("top four: {name}");
        let mut elsewhere = server.connect().await?;
        if is_held {
            run(
                &mut elsewhere,
                "begin isolation level repeatable read; select 1",
            )
            .await?;
        }
        let reading = Reading::start(&server.url, address, list);
        let mut answers = 0.0;
        match is_busy {
            true => {
                let to = Instant::now() + BUSY;
                let counted = uses(address, Spread::OneHotKey, to - COUNTED, to).await?;
                answers = f64::from(counted) / COUNTED.as_secs_f64();
            }
            false => tokio::time::sleep(IDLE).await,
        }
        let mut latencies = reading.end()?;
        let medians = latencies.each_mut().map(|latencies| median(latencies));
        let idle = *idle.get_or_insert(medians);
        if is_busy {
            other.get_or_insert(medians[1]);
        }
        // By HTTP, idle is a kept answer on a machine with nothing else to do: the same load on another
        // list is what the hot key's own adds to.
        let factors = [
            medians[0] / idle[0],
            medians[1] / other.unwrap_or(medians[1]),
        ];
        let [sql, http] = latencies.each_mut().map(|latencies| {
            let most = percentile(latencies, 0.99);
            format!("{} ({})", time(median(latencies)), time(most))
        });
        rows.push(vec![
            name.into(),
            if is_busy {
                digits(answers)
            } else {
                String::new()
            },
            sql,
            format!("{}×", digits(factors[0])),
            http,
            match is_busy {
                true => format!("{}×", digits(factors[1])),
                false => String::new(),
            },
            match is_busy && list == HOT {
                true => target(
                    &format!("≤ {AT_MOST}× both"),
                    factors.iter().all(|factor| *factor <= AT_MOST),
                ),
                false => String::new(),
            },
        ]);
    }
    report.line(&format!(
        "The top four of a workspace, read by one client, by SQL through the view and by HTTP in turns of \
         {} ms, while {CONNECTIONS} connections send uses of one item at full speed, on the same cores; of \
         {} s the last {}. Median (99th percentile).",
        SLICE.as_millis(),
        BUSY.as_secs(),
        COUNTED.as_secs(),
    ));
    report.table(&rows);
    Ok(())
}

/// The one client, on a thread of its own, so that it waits for no other task of this program.
struct Reading {
    is_over: Arc<AtomicBool>,
    thread: thread::JoinHandle<Result<Vec<Read>, Failure>>,
}

/// One of its reads.
struct Read {
    at: Instant,
    way: usize,
    seconds: f64,
}

impl Reading {
    fn start(url: &str, address: SocketAddr, list: u64) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let (url, over) = (url.to_owned(), Arc::clone(&is_over));
        let thread = thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(read(&url, address, list, &over))
        });
        Self { is_over, thread }
    }

    /// The latencies of the end, in seconds, by SQL and by HTTP.
    fn end(self) -> Result<[Vec<f64>; 2], Failure> {
        self.is_over.store(true, Relaxed);
        let reads = self
            .thread
            .join()
            .map_err(|_| "the reading client panicked")??;
        let from = Instant::now() - COUNTED;
        Ok([0, 1].map(|way| {
            let of_way = |read: &&Read| read.way == way && read.at >= from;
            reads
                .iter()
                .filter(of_way)
                .map(|read| read.seconds)
                .collect()
        }))
    }
}

async fn read(
    url: &str,
    address: SocketAddr,
    list: u64,
    is_over: &AtomicBool,
) -> Result<Vec<Read>, Failure> {
    let mut peers = Peer::of_table(url, address).await?;
    for peer in &mut peers {
        // Or what autoanalyze finds meanwhile may have PostgreSQL plan each read anew: 80 µs that tell nothing
        // about the hot key.
        peer.plan_once().await?;
    }
    let mut reads = Vec::new();
    while !is_over.load(Relaxed) {
        for (way, peer) in peers.iter_mut().enumerate() {
            let mut at = Instant::now();
            let until = at + SLICE;
            while at < until {
                peer.read(list).await?;
                let ended = Instant::now();
                let seconds = (ended - at).as_secs_f64();
                reads.push(Read { at, way, seconds });
                at = ended;
            }
        }
    }
    Ok(reads)
}
