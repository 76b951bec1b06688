//! Rebuilds beside everybody who writes, deletes and dismisses: at rest the table is what the history says,
//! and nothing that was acknowledged is lost.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use hyper::body::Bytes;
use serde_json::json;

use super::{post_json, reaches};
use crate::capture::followed::{Followed, grouped, quiet, serve};
use crate::capture::life::{FRAMEWORK, KEYS, call_hooks, live, went_on};
use crate::support::client::{Client, list_path};
use crate::support::history::setup::same;
use crate::support::history::{History, Setup};
use crate::support::uses::Rows;
use crate::support::{Backend, TestDb, both};

both!(rebuilds_beside_an_applications_life_lose_and_invent_nothing);

/// Steps of the application in each round, and calls of the hook and dismissals that were answered.
const STEPS: u64 = 60;
const CALLS: u64 = 5;

/// Dismisses items, lists and published runs by chance.
async fn dismiss(client: Client, stop: Arc<AtomicBool>, dismissed: Arc<AtomicU64>) {
    let mut rng = fastrand::Rng::with_seed(7);
    while !stop.load(Ordering::Relaxed) {
        let (workspace, item) = (format!("w{}", rng.u8(..6)), format!("p{}", rng.u8(..15)));
        let user = format!("u{}", rng.u8(..4));
        let list = list_path(&workspace, rng.bool().then_some(user.as_str()));
        let path = match rng.u8(..60) {
            0 => format!("/v1/published-runs/{item}"),
            1..4 => list,
            _ => format!("{list}/{item}"),
        };
        // A SQLite that many write to may be busy for longer than it waits.
        let answer = client.send("DELETE", &path, &[], Bytes::new()).await;
        dismissed.fetch_add(u64::from(answer.status == 204), Ordering::Relaxed);
        tokio::time::sleep(std::time::Duration::from_millis(rng.u64(5..40))).await;
    }
}

/// Makes rows wrong in every way, whatever goes on: too high, of other runs, of nothing, gone.
fn corrupt(backend: Backend, round: usize) -> [String; 4] {
    let hour = match backend {
        Backend::Postgres => "interval '1 hour'",
        Backend::Sqlite => "3600000000",
    };
    let row = "{recents}recent_workflow";
    [
        format!(
            "update {row} set last_used_at = last_used_at + {hour}
             where workspace = 'w{}' and uid = ''",
            round % 6
        ),
        format!(
            "update {row} set run = '~' where workspace = 'w{}'",
            (round + 1) % 6
        ),
        format!("delete from {row} where workspace = 'w{}'", (round + 2) % 6),
        format!(
            "update {row} set published_run = 'invented ' || published_run
             where workspace = 'w{}' and uid <> ''",
            (round + 3) % 6
        ),
    ]
}

/// What the history says, without what is dismissed.
async fn visible(setup: &Setup) -> Rows {
    let micros = match setup.store.backend {
        Backend::Postgres => "(extract(epoch from until) * 1000000)::bigint",
        Backend::Sqlite => "until",
    };
    let array = match setup.store.backend {
        Backend::Postgres => "json_build_array",
        Backend::Sqlite => "json_array",
    };
    let sql = format!(
        "select cast({array}(workspace, uid, published_run, {micros}) as text) from {{recents}}dismissal"
    );
    let dismissed = setup.store.connect().await.texts(&sql).await;
    let dismissed: std::collections::HashMap<(String, String, String), i64> = dismissed
        .iter()
        .map(|row| {
            let (w, u, p, until) = serde_json::from_str(row).expect("a watermark");
            ((w, u, p), until)
        })
        .collect();
    let mut rows = grouped(setup).await;
    rows.retain(|(w, u, p), (micros, _)| {
        let list = (w.clone(), u.clone(), String::new());
        let everywhere = (String::new(), String::new(), p.clone());
        let item = (w.clone(), u.clone(), p.clone());
        let until = [list, everywhere, item]
            .iter()
            .filter_map(|key| dismissed.get(key))
            .max();
        until.is_none_or(|until| until < micros)
    });
    rows
}

/// What applications read by SQL.
async fn view(setup: &Setup) -> Rows {
    let keys = "select workspace || chr(0x1f) || uid || chr(0x1f) || published_run
                from {recents}recent_workflows";
    let keys = match setup.store.backend {
        Backend::Postgres => keys.replace("0x1f", "31"),
        Backend::Sqlite => keys.replace("chr(", "char("),
    };
    let visible = setup.store.connect().await.texts(&keys).await;
    let mut rows = setup.store.rows().await;
    rows.retain(|(w, u, p), _| visible.contains(&format!("{w}\u{1f}{u}\u{1f}{p}")));
    rows
}

async fn rebuilds_beside_an_applications_life_lose_and_invent_nothing(db: TestDb) {
    let setup = Setup::of(db, History::random(FRAMEWORK, 150, 1_500)).await;
    setup.source().execute(KEYS).await;
    let followed = Followed::start(setup).await;
    let (setup, server) = (&followed.setup, &followed.server);
    let stop = Arc::new(AtomicBool::new(false));
    let [steps, calls, dismissed] = [(); 3].map(|()| Arc::new(AtomicU64::new(0)));
    let url = || setup.source().url.clone();
    let mut others = Vec::new();
    for seed in 21..=23 {
        others.push(tokio::spawn(live(
            url(),
            seed,
            Arc::clone(&stop),
            Arc::clone(&steps),
        )));
    }
    let hook = Arc::new(Mutex::new(server.public));
    others.push(tokio::spawn(call_hooks(
        url(),
        hook,
        Arc::clone(&stop),
        Arc::clone(&calls),
    )));
    others.push(tokio::spawn(dismiss(
        server.public,
        Arc::clone(&stop),
        Arc::clone(&dismissed),
    )));
    for round in 0..4 {
        for sql in corrupt(setup.store.backend, round) {
            // A row of that name may be there already.
            let _ = setup.store.connect().await.try_execute(&sql).await;
        }
        // By command and by service, everything and one workspace, while all go on.
        let rebuild = setup.start(&["resync", "--all", "--mode", "rebuild", "--yes"]);
        went_on(&steps, STEPS).await;
        rebuild.ended().await.expect(0);
        let body = json!({"workspace": format!("w{round}"), "mode": "rebuild"});
        let asked = post_json(server, "/admin/v1/resyncs", &body)
            .await
            .expect(202);
        went_on(&calls, CALLS).await;
        went_on(&dismissed, CALLS).await;
        let id = asked.json()["id"].as_str().expect("an id").to_owned();
        reaches(server, &id, "succeeded").await;
    }
    stop.store(true, Ordering::Relaxed);
    for other in others {
        other.await.expect("one of them");
    }
    quiet(setup).await;
    let expected = visible(setup).await;
    // How many are left depends on how many whole lists were dismissed by chance.
    assert!(expected.len() > 10, "{} rows say little", expected.len());
    same(&view(setup).await, &expected, "when it is quiet again");
    setup.recents(&["verify"]).expect(0);
    // One more changes nothing, and no watermark.
    let watermarks = "select workspace || '/' || uid || '/' || published_run || cast(until as text)
                      from {recents}dismissal order by 1";
    let before = setup.store.connect().await.texts(watermarks).await;
    let again = setup.json(&["resync", "--all", "--mode", "rebuild", "--yes"], 0);
    for name in ["added", "raised", "lowered", "removed"] {
        assert_eq!(again[name], 0, "{again}");
    }
    assert_eq!(setup.store.connect().await.texts(watermarks).await, before);
    assert!(before.len() > 5, "{} watermarks say little", before.len());
}

/// A history that nothing follows: what changes behind a rebuild's back is the next one's to see, and what
/// the hook acknowledged is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rebuilds_of_a_history_in_sqlite_end_as_it_says() {
    let setup = Setup::plain(TestDb::migrated(Backend::Sqlite).await, 151, 800).await;
    setup.recents(&["backfill"]).expect(0);
    let server = serve(&setup).await;
    let mut rng = fastrand::Rng::with_seed(152);
    let mut history = setup.history.clone();
    for round in 0..4 {
        let body = json!({"all": true, "mode": "rebuild"});
        let asked = post_json(&server, "/admin/v1/resyncs", &body)
            .await
            .expect(202);
        for sql in corrupt(Backend::Sqlite, round) {
            let _ = setup.store.connect().await.try_execute(&sql).await;
        }
        // Deleted, moved, and new ones that the hook tells.
        let kept = history.runs.iter().filter(|_| rng.u8(..10) > 0).cloned();
        history.runs = kept.collect();
        let keys: Vec<_> = history.runs.iter().map(|run| run.key.clone()).collect();
        let sql = format!("delete from saved_run where id not in ({})", keys.join(","));
        setup.source().execute(&sql).await;
        let run = crate::support::history::Run::new(100_000 + round, "w1", 1, 0);
        let mut run = run.by("hooked");
        run.at = Some(crate::support::history::At::Micros(
            crate::support::uses::T0 + 99_000_000,
        ));
        setup
            .source()
            .execute(&history.insert(std::slice::from_ref(&run)))
            .await;
        if let Some(usage) = history.use_of(&run) {
            let body = crate::support::uses::body_of(&[usage]);
            server.public.post("/v1/runs", &body).await.expect(200);
        }
        history.runs.push(run);
        let id = asked.json()["id"].as_str().expect("an id").to_owned();
        reaches(&server, &id, "succeeded").await;
    }
    setup
        .recents(&["resync", "--all", "--mode", "rebuild", "--yes"])
        .expect(0);
    same(
        &setup.store.rows().await,
        &history.rows(),
        "after the last one",
    );
}
