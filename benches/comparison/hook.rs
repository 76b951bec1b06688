//! The hook: uses recorded as they come, durable, against an upsert a request.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::http::{Connection, post};
use crate::program::{Program, Serving};
use crate::report::{Report, digits, median, target};
use crate::server::{Server, run};
use crate::{Failure, Peer, upsert};

/// Clients, each with one connection and one request at a time.
pub(crate) const CONNECTIONS: u64 = 64;
/// How long each server is measured, in turns,
const TURN: Duration = Duration::from_secs(3);
/// how often,
const TURNS: usize = 5;
/// and how long it runs before, for connections and caches.
const WARM_UP: Duration = Duration::from_millis(500);
/// Workspaces over which the uniform uses are spread, with three items each.
const WORKSPACES: u64 = 20_000;

/// The workspace of the hot key.
pub(crate) const HOT: u64 = 5;

/// Which rows the uses raise.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Spread {
    OneHotKey,
    Uniform,
}

pub(crate) async fn measure(server: &Server, report: &mut Report) -> Result<(), Failure> {
    let ours = Program::serve(&server.url, &[]).await?;
    let mut conn = server.connect().await?;
    run_each(&mut conn, upsert::TABLE).await?;
    let peer = Serving::start(Peer::Upsert.command(&server.url)?).await?;

    let mut rows = vec![
        [
            "one use a request",
            "`recents`, requests/s",
            "upsert a request, requests/s",
            "ratio",
            "target",
        ]
        .map(Into::into)
        .into(),
    ];
    for (name, spread, least) in [
        ("one hot key", Spread::OneHotKey, Some(10.0)),
        ("uniform keys", Spread::Uniform, None),
    ] {
        let (mut rates, mut peers, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for turn in 1..=TURNS {
            let (rate, peer) = (
                rate(ours.address, spread).await?,
                rate(peer.address, spread).await?,
            );
            eprintln!("hook, {name}, turn {turn} of {TURNS}: {rate:.0} and {peer:.0} requests/s");
            rates.push(rate);
            peers.push(peer);
            ratios.push(rate / peer);
        }
        let ratio = median(&mut ratios);
        rows.push(vec![
            name.into(),
            digits(median(&mut rates)),
            digits(median(&mut peers)),
            format!(
                "{} ({}–{})",
                digits(ratio),
                digits(ratios[0]),
                digits(ratios[TURNS - 1])
            ),
            least.map_or(String::new(), |least| {
                target(&format!("≥ {least}"), ratio >= least)
            }),
        ]);
    }
    report.heading("The hook");
    report.line(&format!(
        "`POST /v1/runs`, {CONNECTIONS} connections, each sending the next request after the answer; \
         every answer is durable. {TURNS} turns of {} s each; medians, and the least and \
         the greatest ratio. Both servers have 8 connections to PostgreSQL and share the cores with \
         it and with the clients.",
        TURN.as_secs()
    ));
    report.table(&rows);
    Ok(())
}

/// `vacuum` stands alone, outside of any transaction.
async fn run_each(conn: &mut sqlx::PgConnection, sql: &str) -> Result<(), Failure> {
    for statement in sql.split(';') {
        run(conn, statement).await?;
    }
    Ok(())
}

/// Requests a second that a server answers.
async fn rate(address: SocketAddr, spread: Spread) -> Result<f64, Failure> {
    let from = Instant::now() + WARM_UP;
    let answers = uses(address, spread, from, from + TURN).await?;
    Ok(f64::from(answers) / TURN.as_secs_f64())
}

/// Sends uses at full speed until `to`; gives the answers that came behind `from`.
pub(crate) async fn uses(
    address: SocketAddr,
    spread: Spread,
    from: Instant,
    to: Instant,
) -> Result<u32, Failure> {
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|client| tokio::spawn(client_of(address, spread, client, from, to)))
        .collect();
    let mut answers = 0;
    for client in clients {
        answers += client.await??;
    }
    Ok(answers)
}

/// Sends until `to`; gives the answers that came behind `from`.
async fn client_of(
    address: SocketAddr,
    spread: Spread,
    client: u64,
    from: Instant,
    to: Instant,
) -> Result<u32, Failure> {
    let mut connection = Connection::open(address).await?;
    let mut random = fastrand::Rng::with_seed(client);
    let (mut answers, mut run) = (0, 0_u64);
    loop {
        run += 1;
        let (workspace, published_run) = match spread {
            Spread::OneHotKey => (HOT, 88),
            Spread::Uniform => (random.u64(..WORKSPACES), random.u64(..3)),
        };
        let body = format!(
            r#"{{"runs":[{{"workspace":"{workspace}","published_run":"{published_run}","run":"{client}-{run}"}}]}}"#
        );
        connection.send(&post("/v1/runs", &body)).await?;
        let now = Instant::now();
        if now >= to {
            return Ok(answers);
        }
        answers += u32::from(now >= from);
    }
}
