//! A backfill beside the hook: whoever comes first, the newest use stays.

use std::sync::Arc;

use recents::record::{Recorder, Recording};
use recents::telemetry::Metrics;

use crate::support::history::setup::same;
use crate::support::history::{Gate, Setup, maximum};
use crate::support::uses::body_of;
use crate::support::{Server, TestDb, Use, both};

both!(
    a_use_of_the_hook_and_a_run_of_the_history_end_alike_in_every_order,
    a_backfill_amid_many_writers_ends_as_the_grouped_maximum_of_all,
);

/// Uses of the hook around each of some uses of the history: of the same key, older and newer by a
/// microsecond, and at the same time by a lesser and by a greater run.
fn around<'a>(uses: impl Iterator<Item = &'a Use>) -> Vec<Use> {
    let changes = [(-1, "~"), (1, ""), (0, ""), (0, "~")];
    // A key is met once: by the change whose turn it is.
    let around = uses
        .zip(changes.iter().cycle())
        .map(|(usage, (later, run))| {
            let run = match *run {
                "" => "!".to_owned(),
                run => run.to_owned(),
            };
            usage.clone().at(usage.micros + later).run(&run)
        });
    around.collect()
}

/// The greatest use of each key of the workspace's lists, from the history.
fn newest(setup: &Setup) -> Vec<Use> {
    let uses = setup.history.uses();
    let rows = maximum(&uses);
    let is_newest = |usage: &&Use| {
        let key = (
            usage.workspace.clone(),
            String::new(),
            usage.published_run.clone(),
        );
        rows.get(&key) == Some(&(usage.micros, usage.run.clone()))
    };
    uses.iter().filter(is_newest).cloned().collect()
}

async fn a_use_of_the_hook_and_a_run_of_the_history_end_alike_in_every_order(db: TestDb) {
    let setup = Gate::setup(db).await;
    let server = Server::start(&setup.store).await;
    let send = async |uses: &[Use]| {
        server
            .public
            .post("/v1/runs", &body_of(uses))
            .await
            .expect(200);
    };
    let newest = newest(&setup);
    assert!(newest.len() > 200, "{} keys", newest.len());
    // A third before the backfill, a third while it holds what it read, a third afterwards.
    let third = |n| around(newest.iter().skip(n).step_by(3));
    let parts = [third(0), third(1), third(2)];

    send(&parts[0]).await;
    let mut closed = Gate::close(&setup, 800).await;
    let mut worker = setup.start(&["backfill", "--window-runs", "50"]);
    worker
        .until("it comes to the gate", async || {
            (closed.waiting().await == 2).then_some(())
        })
        .await;
    send(&parts[1]).await;
    closed.open().await;
    worker.ended().await.expect(0);
    send(&parts[2]).await;

    let all = [setup.history.uses(), parts.concat()].concat();
    same(
        &setup.store.rows().await,
        &maximum(&all),
        "whoever came first",
    );
    // It must have mattered: of each change some, in every part.
    let (found, of_history) = (maximum(&all), setup.history.rows());
    for part in &parts {
        for change in 0..4 {
            let won = |usage: &&Use| {
                let key = (
                    usage.workspace.clone(),
                    usage.uid.clone().unwrap_or_default(),
                    usage.published_run.clone(),
                );
                found[&key] != of_history[&key]
            };
            let changed = part.iter().skip(change).step_by(4).filter(won).count();
            assert_eq!(
                changed > 0,
                [false, true, false, true][change],
                "change {change}"
            );
        }
    }
    // The same again changes nothing.
    setup.recents(&["backfill", "--restart"]).expect(0);
    send(&parts[1]).await;
    same(
        &setup.store.rows().await,
        &maximum(&all),
        "after all of it once more",
    );
}

async fn a_backfill_amid_many_writers_ends_as_the_grouped_maximum_of_all(db: TestDb) {
    for seed in 30..33 {
        println!("seed {seed}");
        let setup = Setup::plain(TestDb::migrated(db.backend).await, seed, 1_500).await;
        let hooked = hooked(seed, 3_000);
        // As many replicas have: each a queue and a pool of its own.
        let writers: Vec<_> = hooked
            .chunks(1_000)
            .map(|uses| tokio::spawn(write(setup.store.store(), uses.to_vec())))
            .collect();
        let backfills = [0, 1].map(|_| setup.start(&["backfill", "--window-runs", "40"]));
        for worker in backfills {
            let ended = worker.ended().await;
            // One of them may have come too late.
            assert!(
                ended.code == Some(0) || ended.err.contains("another backfill"),
                "{ended:?}"
            );
        }
        for writer in writers {
            writer.await.expect("a writer");
        }
        let all = [setup.history.uses(), hooked].concat();
        same(
            &setup.store.rows().await,
            &maximum(&all),
            &format!("seed {seed}"),
        );
    }
}

/// Writes uses in small requests, some at a time.
async fn write(store: recents::store::Store, uses: Vec<Use>) {
    let metrics = Arc::new(Metrics::new(&store));
    let recorder = Recorder::start(store, metrics, Recording::default()).0;
    for requests in uses.chunks(40) {
        let requests = requests.chunks(10).map(|uses| {
            let (recorder, uses) = (recorder.clone(), uses.to_vec());
            tokio::spawn(async move {
                let uses: Vec<_> = uses.iter().map(Use::usage).collect();
                recorder.record(&uses).await.expect("the uses are recorded");
            })
        });
        for request in requests.collect::<Vec<_>>() {
            request.await.expect("a request");
        }
    }
}

/// Uses by chance of the keys that random histories have, and of times about theirs.
pub(super) fn hooked(seed: u64, count: usize) -> Vec<Use> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut usage = || {
        let (workspace, published_run) =
            (format!("w{}", rng.u8(..6)), format!("p{}", rng.u8(..15)));
        let usage = Use::new(&workspace, &published_run, rng.i64(0..26) * 500_000);
        // Of runs that the history does not have: it would know better.
        let usage = usage.run(&format!("hooked-{}", rng.u16(..5_000)));
        match rng.u8(..4) {
            0 => usage,
            uid => usage.by(&format!("u{uid}")),
        }
    };
    (0..count).map(|_| usage()).collect()
}
