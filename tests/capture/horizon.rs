//! A transaction left open in the application keeps vacuum from every note that was let go since: the drain
//! must not read them again.

use std::time::{Duration, Instant};

use recents::capture::drain::{Drain, Step};

use super::followed::grouped;
use crate::races::drain::{assert_exact, drain};
use crate::support::history::layout::POSTGRES;
use crate::support::history::setup::same;
use crate::support::history::{History, Setup};
use crate::support::{Backend, Beside, TestDb, until};

/// Notes of the outbox that pile up behind the transaction: minutes of a busy application.
const PILE: usize = 10_000;
/// Rounds that are measured before and behind it, of a run each.
const ROUNDS: usize = 50;
/// Longer than a drain expects notes of lower ids than those that it saw, which is two seconds.
const LATE: Duration = Duration::from_secs(3);
/// A look at all of the pile is hundreds of pages. The drain takes one from time to time, but not with each
/// round.
const FACTOR: u64 = 6;

const VERSION: &str = "(select min(id) from saved_run_version where published_run_id is not null)";

/// What a history that is being followed costs.
struct Seen {
    setup: Setup,
    drain: Drain,
    source: Beside,
    next: usize,
}

impl Seen {
    /// Runs that come one by one, each with a row of its own, until all of them are worked off.
    async fn work_off(&mut self, runs: usize) {
        let (from, to) = (self.next, self.next + runs);
        self.next = to;
        let one_by_one = format!(
            "do $$ begin for n in {from}..{to} - 1 loop
                 insert into saved_run values (n, 'w' || n, null, {VERSION}, now());
             end loop; end $$"
        );
        self.source.execute(&one_by_one).await;
        while self.step().await == Step::Worked {}
    }

    async fn step(&mut self) -> Step {
        self.drain.step(true).await.expect("a step")
    }

    /// Pages of capture's tables that were read so far. Sessions tell that at their end for sure.
    async fn pages(&mut self) -> u64 {
        let theirs = "from pg_stat_activity where datname = current_database()
                      and application_name = 'recents'";
        let end = format!("select pg_terminate_backend(pid)::text {theirs}");
        until("the drain's sessions ended", async || {
            self.source.texts(&end).await.is_empty().then_some(())
        })
        .await;
        // Which the drain notices with its next steps.
        until("it works again", async || self.drain.step(true).await.ok()).await;
        let pages =
            "select sum(heap_blks_read + heap_blks_hit + idx_blks_read + idx_blks_hit)::text
                     from pg_statio_user_tables
                     where schemaname = 'recents' and relname in ('outbox', 'note')";
        self.source.texts(pages).await[0].parse().expect("a number")
    }

    /// Those that so many rounds of one run each read.
    async fn pages_of(&mut self, rounds: usize) -> u64 {
        let before = self.pages().await;
        for _ in 0..rounds {
            self.work_off(1).await;
        }
        self.pages().await - before
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_transaction_left_open_keeps_from_vacuum_is_not_read_again_with_each_note() {
    let history = History::random(POSTGRES, 57, 100);
    let setup = Setup::of(TestDb::migrated(Backend::Postgres).await, history).await;
    setup.recents(&["capture", "install"]).expect(0);
    setup.recents(&["backfill"]).expect(0);
    // Whatever a vacuum reads is counted, too.
    setup
        .source()
        .execute(
            "alter table recents.outbox set (autovacuum_enabled = off);
             alter table recents.note set (autovacuum_enabled = off)",
        )
        .await;
    let mut left_open = setup.source().connect().await;
    left_open
        .execute("begin; update saved_run set workspace_id = 'left open' where id % 3 = 0")
        .await;
    let mut seen = Seen {
        drain: drain(&setup).await,
        source: setup.source().connect().await,
        setup,
        next: 1_000_000,
    };
    seen.work_off(1).await;
    let early = seen.pages_of(ROUNDS).await;
    seen.work_off(PILE).await;
    // None of the pile is expected to come late any more, which the drain finds while it goes on.
    let since = Instant::now();
    while since.elapsed() < LATE {
        seen.work_off(1).await;
    }
    let late = seen.pages_of(ROUNDS).await;
    let vacuum = "vacuum (truncate off) recents.outbox";
    seen.source.execute(vacuum).await;
    let dead = "select n_dead_tup::text from pg_stat_user_tables
                where schemaname = 'recents' and relname = 'outbox'";
    until(
        "vacuum says that it could not remove the pile",
        async || {
            let dead: usize = seen.source.texts(dead).await[0].parse().ok()?;
            (dead >= PILE).then_some(())
        },
    )
    .await;
    assert!(
        late < FACTOR * early,
        "{ROUNDS} notes cost {early} pages before {PILE} dead ones, and {late} behind them"
    );
    same(
        &seen.setup.store.rows().await,
        &grouped(&seen.setup).await,
        "while the transaction is open",
    );
    left_open.execute("commit").await;
    let anew = drain(&seen.setup).await;
    assert_exact(&seen.setup, anew, "when it was committed").await;
}
