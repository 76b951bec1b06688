//! Verify and repair beside writers that go on.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use recents::record::{Recorder, Recording};
use recents::telemetry::Metrics;
use tokio::task::JoinHandle;

use super::found::{differences, found};
use crate::capture::followed::Followed;
use crate::capture::life::{FRAMEWORK, KEYS, call_hooks, live, went_on};
use crate::support::beside::Beside;
use crate::support::history::layout::Layout;
use crate::support::history::setup::last_json;
use crate::support::history::{At, History, Run, Setup};
use crate::support::uses::T0;
use crate::support::{TestDb, both, until};

both!(
    writers_that_go_on_are_no_differences,
    a_repair_beside_writers_loses_nothing,
    what_a_drain_is_about_to_make_right_is_no_difference,
);

/// An application: it inserts a run, and calls the hook when that is committed.
struct Writers {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<Vec<Run>>>,
}

impl Writers {
    /// Starts two of them, whose keys begin behind `behind`. Half of their uses are of rows of their
    /// own, half of rows that there are; most newer than all before, some older.
    async fn start(setup: &Setup, behind: i64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let written = Arc::new(AtomicU64::new(0));
        let mut tasks = Vec::new();
        for writer in 0..2 {
            let (stop, written) = (Arc::clone(&stop), Arc::clone(&written));
            let (conn, store) = (setup.source().connect().await, setup.store.store());
            let history = setup.history.clone();
            tasks.push(tokio::spawn(async move {
                write(conn, store, history, behind + writer, &stop, &written).await
            }));
        }
        Self {
            stop,
            written,
            tasks,
        }
    }

    /// Waits until they wrote so many more.
    async fn wrote(&self, more: u64) {
        let before = self.written.load(Ordering::Relaxed);
        until("the writers wrote more", async || {
            (self.written.load(Ordering::Relaxed) >= before + more).then_some(())
        })
        .await;
    }

    /// Stops them; the runs that they inserted are part of the history.
    async fn stop(self, setup: &mut Setup) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            setup.history.runs.extend(task.await.expect("a writer"));
        }
    }
}

async fn write(
    mut conn: Beside,
    store: recents::store::Store,
    history: History,
    first: i64,
    stop: &AtomicBool,
    written: &AtomicU64,
) -> Vec<Run> {
    let metrics = Arc::new(Metrics::new(&store));
    let recorder = Recorder::start(
        store,
        metrics,
        Recording {
            noting: true,
            ..Recording::default()
        },
    )
    .0;
    let mut rng = fastrand::Rng::with_seed(first.unsigned_abs());
    let mut runs = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let at = runs.len() as i64;
        let later = if rng.u8(..4) > 0 {
            60_000_000 + at * 1_000
        } else {
            rng.i64(0..12_500_000)
        };
        let workspace = if rng.bool() {
            format!("w{}", rng.u8(..6))
        } else {
            format!("x{first}{}", at % 50)
        };
        let mut run = Run::new(first + at * 2, &workspace, rng.i64(0..40), 0)
            .by(&format!("u{}", rng.u8(..4)));
        run.at = Some(At::Micros(T0 + later));
        conn.execute(&history.insert(std::slice::from_ref(&run)))
            .await;
        if let Some(usage) = history.use_of(&run) {
            recorder
                .record(&[usage.usage()])
                .await
                .expect("the use is recorded");
        }
        runs.push(run);
        written.fetch_add(1, Ordering::Relaxed);
    }
    runs
}

async fn setup(db: TestDb) -> Setup {
    let layout = Layout::of(db.backend);
    let setup = Setup::of(db, History::random(layout, 90, 2_000)).await;
    setup.backfill(&[]).await;
    setup
}

async fn writers_that_go_on_are_no_differences(db: TestDb) {
    let mut setup = setup(db).await;
    let writers = Writers::start(&setup, 1_000_000).await;
    for args in [&[][..], &["--workspace", "w1"], &["--repair"], &[]] {
        writers.wrote(20).await;
        let verified = setup.recents(&[&["verify", "--json"], args].concat());
        assert_eq!(
            verified.code,
            Some(0),
            "false alarm of verify {args:?}: {verified:?}"
        );
    }
    // What does differ is found all the same.
    let invented = super::found::key("w1", "", "invented");
    setup.put(&invented, &(T0, None)).await;
    writers.wrote(20).await;
    let verified = setup.recents(&["verify", "--json"]).expect(3);
    let keys: Vec<_> = found(&verified).0.into_keys().collect();
    assert_eq!(keys, [invented]);
    writers.stop(&mut setup).await;
    setup.recents(&["verify", "--repair"]).expect(3);
    setup.assert_equal("when all is quiet").await;
}

async fn a_repair_beside_writers_loses_nothing(db: TestDb) {
    let mut setup = setup(db).await;
    let writers = Writers::start(&setup, 1_000_000).await;
    let mut repaired = 0;
    for round in 0..3 {
        // Rows too high, which swallow what is written, until they are mended; and rows of nothing.
        let far = setup.history.time(At::Micros(T0 + 3_600_000_000));
        let ahead = format!(
            "update {{recents}}recent_workflow set last_used_at = {far}, run = '~'
             where workspace in ('w{round}', 'w3')"
        );
        setup.store.execute(&ahead).await;
        setup.store.execute("update {recents}recent_workflow set published_run = 'x' || published_run where workspace = 'w4'").await;
        writers.wrote(10).await;
        let ended = setup.recents(&["verify", "--repair", "--json"]).expect(3);
        repaired += found(&ended).0.len();
    }
    assert!(repaired > 200, "{repaired} say little");
    writers.wrote(10).await;
    writers.stop(&mut setup).await;
    let left = differences(&setup.store.rows().await, &setup.history.rows());
    assert!(left.is_empty(), "{} rows: {left:?}", left.len());
    setup.recents(&["verify"]).expect(0);
}

/// Verifies, over and over, beside an application that does everything to its history, hooks that come late,
/// and a service that drains.
async fn what_a_drain_is_about_to_make_right_is_no_difference(db: TestDb) {
    let setup = Setup::of(db, History::random(FRAMEWORK, 91, 2_000)).await;
    setup.source().execute(KEYS).await;
    let followed = Followed::start(setup).await;
    let (stop, steps) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let url = followed.setup.source().url.clone();
    let mut writers: Vec<_> = (1..=2)
        .map(|seed| {
            tokio::spawn(live(
                url.clone(),
                seed,
                Arc::clone(&stop),
                Arc::clone(&steps),
            ))
        })
        .collect();
    let hook = Arc::new(Mutex::new(followed.server.public));
    let hooks = call_hooks(url, hook, Arc::clone(&stop), Arc::default());
    writers.push(tokio::spawn(hooks));
    for round in 0..6 {
        went_on(&steps, 20).await;
        let verified = followed.setup.recents(&["verify", "--json"]);
        // A drain that came to nothing for seconds may leave something open, but nothing else differs.
        let summary = last_json(&verified);
        assert!(
            summary["runs"].as_u64() > Some(0),
            "round {round}: {verified:?}"
        );
        assert_eq!(
            summary["differences"], summary["waiting"],
            "round {round}: {verified:?}"
        );
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.expect("a writer");
    }
    followed.assert_exact("when it is quiet again").await;
}
