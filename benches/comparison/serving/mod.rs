//! Serving: the same GET under load, from `recents` and in the other ways that one would write, each
//! server alone in its turn.

mod hot;
mod lists;
mod load;
pub(crate) mod peers;
mod redis;

use crate::http::Connection;
use crate::program::{Program, Serving};
use crate::report::{Report, digits, grouped, median, target, time};
use crate::server::{Server, text};
use crate::{Failure, Peer, cpu};
use load::{CONNECTIONS, Database, TURN, Turn};

/// How often each server is measured, in turns.
const TURNS: usize = 15;

/// A server, and what its turns found.
struct Way {
    name: &'static str,
    serving: Serving,
    database: Database,
    /// Behind the path.
    query: &'static str,
    turns: Vec<Turn>,
}

pub(crate) async fn measure(server: &Server, report: &mut Report) -> Result<(), Failure> {
    // Its tables are there when it is ready.
    let cached = Program::serve(&server.url, &[]).await?;
    lists::fill(server).await?;
    let redis = redis::Redis::start().await?;
    if let Some(redis) = &redis {
        lists::fill_redis(&server.url, redis).await?;
    }
    let mut ways = ways(server, cached, redis.as_ref()).await?;
    agree(&ways).await?;
    for turn in 0..TURNS {
        // Each begins a round in its turn, so that none always follows the same one.
        for at in 0..ways.len() {
            let count = ways.len();
            let way = &mut ways[(turn + at) % count];
            let found = load::turn(&way.serving, way.database, way.query).await?;
            eprintln!(
                "serving, turn {} of {TURNS}: {}, {:.0}/s",
                turn + 1,
                way.name,
                found.rate
            );
            way.turns.push(found);
        }
    }
    report.heading("Serving");
    report.line(&format!(
        "`GET` of the top four of one of {} lists at random, of {} lists with {} items; {CONNECTIONS} \
         connections that are kept, each sending the next request after the answer. {TURNS} turns of {} s \
         each, every server alone in its turn; medians, and the least and the greatest. Servers, database \
         and clients share the cores; CPU is the kernel's count of user and system time, an answer.",
        grouped(lists::LISTS),
        grouped(lists::OF),
        lists::ITEMS,
        TURN.as_secs(),
    ));
    tell(report, &ways);
    if redis.is_none() {
        report.line("Redis is left out: there is no `redis-server` on this machine.");
    }
    drop(ways);
    hot::measure(server, report).await
}

const FLOOR: &str = "axum, one answer for all, nothing else";
const MAP: &str = "axum, our middleware, a map of ready bytes";
const CACHED: &str = "`recents`";
const QUERY: &str = "axum, our middleware, sqlx, a query a request";
const UNCACHED: &str = "`recents`, `cache.capacity = 0`";
const DETAILS: &str = "`recents`, `?expand=details`";
const REDIS: &str = "axum, our middleware, Redis";

async fn ways(
    server: &Server,
    cached: Serving,
    redis: Option<&redis::Redis>,
) -> Result<Vec<Way>, Failure> {
    let mut conn = server.connect().await?;
    let backend = text(&mut conn, "pg_backend_pid()").await?.parse()?;
    let postgres = Database::Postgres(cpu::postmaster(backend)?);
    let way = |name, serving, database| Way {
        name,
        serving,
        database,
        query: "",
        turns: Vec::new(),
    };
    let off = [("RECENTS_CACHE_CAPACITY", "0")];
    let uncached = Program::serve(&server.url, &off).await?;
    let peer = async |peer: Peer| Serving::start(peer.command(&server.url)?).await;
    let mut ways = vec![
        way(FLOOR, peer(Peer::Floor).await?, Database::None),
        way(MAP, peer(Peer::Map).await?, Database::None),
        way(CACHED, cached, postgres),
        way(QUERY, peer(Peer::Query).await?, postgres),
        way(UNCACHED, uncached, postgres),
    ];
    let details = [("RECENTS_DETAILS_QUERY", lists::CARDS)];
    let details = Program::serve(&server.url, &details).await?;
    ways.push(Way {
        query: "?expand=details",
        ..way(DETAILS, details, postgres)
    });
    if let Some(redis) = redis {
        let mut command = Peer::Redis.command(&server.url)?;
        command.arg("--redis").arg(redis.socket());
        let serving = Serving::start(command).await?;
        ways.push(way(REDIS, serving, Database::Redis(redis.pid())));
    }
    Ok(ways)
}

/// Only ways to the same answer are compared.
async fn agree(ways: &[Way]) -> Result<(), Failure> {
    for at in 0..lists::LISTS {
        let mut known = None;
        for way in ways.iter().filter(|way| way.name != FLOOR) {
            let mut connection = Connection::open(way.serving.address).await?;
            let request = lists::request(&lists::workspace(at), way.query);
            let body = connection.send(&request).await?;
            let mut page: serde_json::Value = serde_json::from_slice(body)?;
            for item in page["recent_workflows"]
                .as_array_mut()
                .into_iter()
                .flatten()
            {
                // Redis keeps none.
                item.as_object_mut().map(|item| item.remove("run"));
                if way.name == DETAILS && item["details"]["title"].take().is_null() {
                    return Err(format!("{}: {item} without details", way.name).into());
                }
                item.as_object_mut().map(|item| item.remove("details"));
            }
            let known = known.get_or_insert_with(|| page.clone());
            if *known != page {
                return Err(format!("{}: {page} instead of {known}", way.name).into());
            }
        }
    }
    Ok(())
}

fn tell(report: &mut Report, ways: &[Way]) {
    let header = [
        "",
        "answers/s",
        "median",
        "p99",
        "CPU: server and database",
        "server",
        "database",
        "clients",
    ];
    let mut rows = vec![header.map(Into::into).into()];
    for way in ways {
        let of = |figure: Figure| way.turns.iter().map(figure).collect::<Vec<_>>();
        let half = |figure: Figure| time(median(&mut of(figure)));
        rows.push(vec![
            way.name.into(),
            spread(of(RATE)),
            half(|turn| turn.half),
            half(|turn| turn.most),
            format!("{} µs", spread(of(|turn| COST(turn) * 1e6))),
            half(|turn| turn.server),
            match way.database {
                Database::None => "–".into(),
                _ => half(|turn| turn.database),
            },
            half(|turn| turn.clients),
        ]);
    }
    report.table(&rows);
    let mut rows = vec![["", "ratio", "target"].map(Into::into).into()];
    for (what, one, other, figure, aim) in COMPARED {
        let of = |name| ways.iter().find(|way| way.name == name);
        let (Some(one), Some(other)) = (of(one), of(other)) else {
            continue;
        };
        let turns = one.turns.iter().zip(&other.turns);
        let mut ratios: Vec<f64> = turns
            .map(|(one, other)| figure(one) / figure(other))
            .collect();
        let ratio = median(&mut ratios);
        let target = match aim {
            Aim::None => String::new(),
            Aim::AtLeast(least) => target(&format!("≥ {least}"), ratio >= least),
            Aim::AtMost(most) => target(&format!("≤ {most}"), ratio <= most),
        };
        rows.push(vec![what.into(), spread(ratios), target]);
    }
    report.table(&rows);
}

enum Aim {
    None,
    AtLeast(f64),
    AtMost(f64),
}

type Figure = fn(&Turn) -> f64;
const RATE: Figure = |turn| turn.rate;
/// What an answer costs, wherever.
const COST: Figure = |turn| turn.server + turn.database;

/// What is compared with what, turn by turn.
const COMPARED: [(&str, &str, &str, Figure, Aim); 9] = [
    (
        "the cache against the map, answers/s",
        CACHED,
        MAP,
        RATE,
        Aim::AtLeast(0.85),
    ),
    ("the same, CPU", CACHED, MAP, COST, Aim::None),
    (
        "the cache against nothing but axum, answers/s",
        CACHED,
        FLOOR,
        RATE,
        Aim::None,
    ),
    ("the same, CPU", CACHED, FLOOR, COST, Aim::None),
    (
        "the cache against Redis, answers/s",
        CACHED,
        REDIS,
        RATE,
        Aim::AtLeast(1.0),
    ),
    ("the same, CPU", CACHED, REDIS, COST, Aim::None),
    (
        "no cache against a query a request, answers/s",
        UNCACHED,
        QUERY,
        RATE,
        Aim::None,
    ),
    ("the same, CPU", UNCACHED, QUERY, COST, Aim::AtMost(0.5)),
    (
        "with details against without, CPU",
        DETAILS,
        CACHED,
        COST,
        Aim::None,
    ),
];

/// The median of some figures, the least and the greatest.
fn spread(mut figures: Vec<f64>) -> String {
    let median = median(&mut figures);
    let [least, greatest] = [0, figures.len() - 1].map(|at| digits(figures[at]));
    format!("{} ({least}–{greatest})", digits(median))
}
