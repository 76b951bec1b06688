//! The top four of a workspace, in every way, by one client.

use std::time::{Duration, Instant};

use crate::history::{LONGEST, MANY, SHORTEST, TEN};
use crate::peers::{Peer, SKIP_INDEXES};
use crate::program::Program;
use crate::report::{Report, digits, grouped, median, percentile, target, time};
use crate::server::{Server, run, text};
use crate::{Failure, backfill, dismissed};

/// The four lists, from the longest history to the most items.
pub(crate) const LISTS: [crate::history::Workspace; 4] = [LONGEST, SHORTEST, TEN, MANY];
/// In each round every way reads each list for this long, and once at least,
const SLICE: Duration = Duration::from_millis(20);
/// until it has read for this long in all,
const ENOUGH: Duration = Duration::from_secs(2);
/// and this often.
const LEAST: usize = 5;

/// One way and one list.
pub(crate) struct Cell {
    peer: usize,
    list: usize,
    /// How long each read took.
    pub(crate) seconds: Vec<f64>,
}

impl Cell {
    fn is_done(&self) -> bool {
        self.seconds.len() >= LEAST && self.seconds.iter().sum::<f64>() >= ENOUGH.as_secs_f64()
    }

    async fn measure(&mut self, peer: &mut Peer) -> Result<(), Failure> {
        let until = Instant::now() + SLICE;
        let mut started = Instant::now();
        while started < until {
            peer.read(LISTS[self.list].id).await?;
            let ended = Instant::now();
            self.seconds.push((ended - started).as_secs_f64());
            started = ended;
        }
        Ok(())
    }
}

pub(crate) async fn measure(
    server: &Server,
    runs: u64,
    report: &mut Report,
) -> Result<(), Failure> {
    backfill::fill(server, runs).await?;
    let mut conn = server.connect().await?;
    eprintln!("the indexes of the skip scans");
    for step in SKIP_INDEXES {
        run(&mut conn, step).await?;
    }
    run(&mut conn, "checkpoint").await?;
    let serving = Program::serve(&server.url, &[]).await?;
    let mut peers = Peer::all(server, &serving).await?;
    agree(&mut peers).await?;

    let mut cells = in_turns(&mut peers).await?;
    report.heading("Reads");
    report.line(
        "The top four of a workspace, one client, connections kept, statements prepared; all ways in \
         turns of 20 ms. Median (99th percentile).",
    );
    tell(report, runs, &peers, &mut cells);
    dismissed::measure(server, header(runs), report).await?;
    let size = |what: &str| format!("pg_size_pretty({what})");
    let mut sizes = Vec::new();
    for what in [
        size("pg_total_relation_size('recents.recent_workflow')"),
        size("pg_relation_size('app.saved_run_skip')"),
        size("pg_relation_size('app.saved_run_skip_join')"),
    ] {
        sizes.push(text(&mut conn, &what).await?);
    }
    report.line(&format!(
        "On disk: the table with its indexes {}; the skip scans' index on the history {} (workflow \
         copied into each run) and {} (joined).",
        sizes[0], sizes[1], sizes[2]
    ));
    Ok(())
}

/// Reads every list in every way; the cells come way by way.
pub(crate) async fn in_turns(peers: &mut [Peer]) -> Result<Vec<Cell>, Failure> {
    let mut cells = Vec::new();
    for peer in 0..peers.len() {
        for list in 0..LISTS.len() {
            cells.push(Cell {
                peer,
                list,
                seconds: Vec::new(),
            });
        }
    }
    eprintln!("reading in turns");
    while cells.iter().any(|cell| !cell.is_done()) {
        for cell in cells.iter_mut().filter(|cell| !cell.is_done()) {
            cell.measure(&mut peers[cell.peer]).await?;
        }
    }
    Ok(cells)
}

/// Only ways to the same answer are compared.
async fn agree(peers: &mut [Peer]) -> Result<(), Failure> {
    for list in LISTS {
        let mut answers = Vec::new();
        for peer in &mut *peers {
            answers.push((peer.read(list.id).await?.ids()?, peer.name));
        }
        let least = usize::try_from(list.distinct.min(4))?;
        if answers
            .iter()
            .any(|(ids, _)| *ids != answers[0].0 || ids.len() != least)
        {
            return Err(format!("workspace {}: {answers:?}", list.id).into());
        }
    }
    Ok(())
}

/// The head of a table with a column for each list.
fn header(runs: u64) -> Vec<String> {
    let mut header = vec![String::new()];
    header.extend(LISTS.map(|list| {
        let of = |count: u64, what: &str| match count {
            1 => format!("1 {what}"),
            _ => format!("{} {what}s", grouped(count)),
        };
        format!(
            "{}, {}",
            of(list.runs(runs), "run"),
            of(list.distinct, "workflow")
        )
    }));
    header
}

fn tell(report: &mut Report, runs: u64, peers: &[Peer], cells: &mut [Cell]) {
    let (mut times, mut factors) = (vec![header(runs)], vec![header(runs)]);
    let mut medians = Vec::new();
    for (at, peer) in peers.iter().enumerate() {
        let mut row = vec![peer.name.to_owned()];
        for cell in cells.iter_mut().filter(|cell| cell.peer == at) {
            let (half, most) = (
                median(&mut cell.seconds),
                percentile(&mut cell.seconds, 0.99),
            );
            row.push(format!("{} ({})", time(half), time(most)));
            medians.push(half);
        }
        times.push(row);
    }
    report.table(&times);
    // The last way is the one by HTTP.
    let http = medians.split_off(medians.len() - LISTS.len());
    for (peer, medians) in peers.iter().zip(medians.chunks(LISTS.len())) {
        let mut row = vec![peer.name.to_owned()];
        row.extend(
            medians
                .iter()
                .zip(&http)
                .map(|(way, http)| format!("{}×", digits(way / http))),
        );
        factors.push(row);
    }
    report.line("The same medians, as multiples of the read by HTTP:");
    report.table(&factors);
    let (longest, shortest, distinct_on) = (http[0], http[1], medians[0]);
    let difference = (longest / shortest - 1.0) * 100.0;
    report.table(&[
        ["", "figure", "target"].map(Into::into).into(),
        vec![
            "HTTP, the longest history against a single run".into(),
            format!("{difference:+.1} %"),
            target("within 10 %", difference.abs() <= 10.0),
        ],
        vec![
            "HTTP against `DISTINCT ON`, the longest history".into(),
            format!("{}× faster", digits(distinct_on / longest)),
            target("≥ 1,000×", distinct_on >= 1000.0 * longest),
        ],
    ]);
}
