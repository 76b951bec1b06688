//! The table against the ways that it replaces: `cargo bench --bench comparison -- --runs N`.
//!
//! One run builds one history and measures everything on it, in turns, so that whatever else the
//! machine does hits all alike. It prints a report in Markdown; only ratios mean something.
//! `docs/BENCHMARKS.md` says what is measured and why.

#![allow(
    clippy::expect_used,
    reason = "a bench that cannot go on has nothing to measure"
)]

mod backfill;
mod capture;
#[path = "../cluster.rs"]
mod cluster;
mod cpu;
mod dismissed;
mod history;
mod hook;
mod http;
mod operation;
mod peers;
mod program;
mod reads;
mod report;
mod server;
mod serving;
mod upsert;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::{Parser, ValueEnum};

use cluster::until_told;
use report::Report;
use server::Server;

/// Whatever went wrong; there is nobody to tell the kinds apart.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Compares the table with the ways that it replaces.
#[derive(Debug, Parser)]
struct Args {
    /// Runs of the history; the workspaces keep their shares of it
    #[arg(long, value_name = "N", default_value_t = 200_000,
          value_parser = clap::value_parser!(u64).range(40_000..=history::FULL))]
    runs: u64,
    /// Only these parts
    #[arg(long, value_name = "PART,…", value_delimiter = ',')]
    only: Vec<Part>,
    /// Use this PostgreSQL, as superuser, instead of starting one; its database
    /// `recents_comparison` is made anew and dropped in the end
    #[arg(long, value_name = "URL")]
    postgres_url: Option<String>,
    /// Be a peer on the database at `--at`; the program calls itself so
    #[arg(long, hide = true, value_name = "PEER", requires = "at")]
    be: Option<Peer>,
    #[arg(long, hide = true, value_name = "URL")]
    at: Option<String>,
    #[arg(long, hide = true, value_name = "SOCKET")]
    redis: Option<PathBuf>,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The first backfill and verify, against a sequential scan
    Backfill,
    /// The top four, against queries over the history
    Reads,
    /// Recording uses as they come, against an upsert a request
    Hook,
    /// The top four under load, against other ways to serve them
    Serving,
    /// Verify under load, re-syncs, the audit
    Operation,
    /// Following the application's writes, against one more index on its history
    Capture,
}

/// A server that the program is instead, to be measured as a process of its own.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Peer {
    Upsert,
    Floor,
    Map,
    Query,
    Redis,
}

impl Peer {
    /// This program, to be that on the database at `url`.
    fn command(self, url: &str) -> Result<Command, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        let name = self.to_possible_value().ok_or("a peer without a name")?;
        command.args(["--be", name.get_name(), "--at", url]);
        Ok(command)
    }

    async fn serve(self, url: &str, redis: &Path) -> Result<(), Failure> {
        match self {
            Self::Upsert => upsert::serve(url).await,
            Self::Floor => serving::peers::floor(url).await,
            Self::Map => serving::peers::map(url).await,
            Self::Query => serving::peers::query(url).await,
            Self::Redis => serving::peers::redis(url, redis).await,
        }
    }
}

/// The product's, so that no server is faster by its allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let work = async {
        match (args.be, &args.at) {
            (Some(peer), Some(url)) => {
                let redis = args.redis.as_deref().unwrap_or(Path::new(""));
                peer.serve(url, redis).await
            }
            _ => compare(&args).await,
        }
    };
    match runtime.block_on(until_told(work)) {
        Some(Ok(())) => ExitCode::SUCCESS,
        Some(Err(error)) => {
            eprintln!("comparison: {error}");
            ExitCode::FAILURE
        }
        None => ExitCode::from(130),
    }
}

async fn compare(args: &Args) -> Result<(), Failure> {
    let wanted = |part| args.only.is_empty() || args.only.contains(&part);
    let server = Server::start(args.postgres_url.as_deref()).await?;
    let mut report = Report::begin(&server, args.runs).await?;
    if wanted(Part::Backfill)
        || wanted(Part::Reads)
        || wanted(Part::Operation)
        || wanted(Part::Capture)
    {
        history::build(&server, args.runs, &mut report).await?;
    }
    if wanted(Part::Backfill) {
        backfill::measure(&server, args.runs, &mut report).await?;
    }
    if wanted(Part::Reads) {
        reads::measure(&server, args.runs, &mut report).await?;
    }
    if wanted(Part::Hook) {
        hook::measure(&server, &mut report).await?;
    }
    if wanted(Part::Serving) {
        serving::measure(&server, &mut report).await?;
    }
    if wanted(Part::Operation) {
        operation::measure(&server, args.runs, &mut report).await?;
    }
    if wanted(Part::Capture) {
        // The last, because it writes into the history.
        capture::measure(&server, args.runs, &mut report).await?;
    }
    print!("{}", report.text());
    server.end().await
}
