//! An application's life, while the service is killed and PostgreSQL is restarted in the middle.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::followed::{Followed, serve};
use crate::support::client::Client;
use crate::support::history::layout::POSTGRES;
use crate::support::history::{History, Layout, Setup, Worker};
use crate::support::{Backend, Beside, Cluster, TestDb, until};

/// Foreign keys as an application framework makes them: deferred, and set to null on delete.
pub(crate) const FRAMEWORK: Layout = Layout {
    name: "deferred foreign keys",
    ..POSTGRES
};

/// Steps of the application between two blows.
const STEPS: u64 = 150;
/// And calls of the hook that were answered.
const CALLS: u64 = 5;

pub(crate) const KEYS: &str = "
    delete from saved_run where parent_version_id is not null
        and parent_version_id not in (select id from saved_run_version);
    create index on saved_run (parent_version_id);
    alter table saved_run add foreign key (parent_version_id) references saved_run_version (id)
        on delete set null deferrable initially deferred";

/// The mapping reads slowly in the sessions of the backfill alone, so that it runs until it is stopped.
const SLOWLY: &str = "
    create function slowly(id bigint) returns bigint language plpgsql stable as $$
    begin
        if current_setting('app.slowly', true) = 'on' then
            perform pg_sleep(0.1);
        end if;
        return id;
    end $$";
/// All of a window's runs sleep for less than a query of the history may take.
const BACKFILL: [&str; 3] = ["backfill", "--window-runs", "20"];

/// A backfill that takes minutes.
async fn start_backfill(setup: &Setup) -> Worker {
    let mut command = setup.command(&BACKFILL);
    let slowly = format!("{}?options[app.slowly]=on", setup.source().url);
    command.env("RECENTS_HISTORY_URL", slowly);
    let mut backfill = Worker::start(command);
    let running = async || (setup.job("state").await == "running").then_some(());
    backfill.until("it runs", running).await;
    backfill
}

async fn assert_runs(setup: &Setup, backfill: &mut Worker) {
    assert_eq!(setup.job("state").await, "running", "{}", backfill.said());
    let ended = backfill.child.try_wait().expect("its state");
    assert_eq!(ended, None, "{}", backfill.said());
}

/// One statement or transaction of an application, by chance.
fn step(rng: &mut fastrand::Rng, id: i64) -> String {
    let (some, version, workspace) = (rng.i64(1..2_000), rng.i64(1..40), rng.u8(0..6));
    match rng.u8(0..16) {
        // A run before its version, in one transaction.
        0 => format!(
            "begin; insert into saved_run values ({id}, 'w{workspace}', 'u1', {id}, now());
             insert into saved_run_version values ({id}, 'p{version}'); commit"
        ),
        1 | 2 => format!(
            "insert into saved_run values ({id}, 'w{workspace}', 'u{}', (select max(id) from
                 saved_run_version where id <= {version}), now() + {some} * interval '1 s')",
            rng.u8(0..4)
        ),
        3 => format!("update saved_run set updated_at = now() + {some} * interval '1 ms' where id = {some}"),
        4 => format!("update saved_run set updated_at = updated_at - interval '1 h' where id % 50 = {version}"),
        5 => format!("update saved_run set workspace_id = 'w{workspace}' where id % 97 = {version}"),
        6 => format!("update saved_run set uid = nullif('u{workspace}', 'u0') where id % 89 = {version}"),
        7 => format!("delete from saved_run_version where id = {version}"),
        8 => format!(
            "update saved_run set parent_version_id = null where parent_version_id in
                 (select id from saved_run_version where published_run_id = 'p{version}');
             delete from saved_run_version where published_run_id = 'p{version}'"
        ),
        9 => format!(
            "delete from saved_run where id = (select id from saved_run
                 where workspace_id = 'w{workspace}' order by updated_at desc nulls last limit 1)"
        ),
        10 => format!("delete from saved_run where id % 101 = {version}"),
        11 => format!(
            "begin; savepoint s; update saved_run set workspace_id = 'never' where id = {some};
             rollback to s; update saved_run set uid = 'u3' where id = {some}; commit"
        ),
        12 => format!("begin; delete from saved_run where id < {some}; rollback"),
        13 => format!(
            "delete from saved_run where workspace_id = 'w{workspace}' and parent_version_id in
                 (select id from saved_run_version where published_run_id = 'p{version}')"
        ),
        14 => format!(
            "copy saved_run from program 'printf \"{id}\\tw{workspace}\\tu2\\t{version}\\t2024-01-01 00:00:00Z\\n\"'"
        ),
        _ => format!(
            "insert into saved_run_version values ({version}, 'p{}') on conflict do nothing;
             begin; update saved_run set updated_at = null where id = {some};
             select pg_sleep(0.02); update saved_run set updated_at = now() where id = {some}; commit",
            version % 15
        ),
    }
}

pub(crate) async fn live(url: String, seed: u64, stop: Arc<AtomicBool>, steps: Arc<AtomicU64>) {
    let mut conn = Beside::connect(Backend::Postgres, &url).await;
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut id = 1_000_000 * i64::try_from(seed).expect("small");
    while !stop.load(Ordering::Relaxed) {
        id += 1;
        // Deadlocks with other writers are the application's own, and a database that is away is
        // waited for.
        let done = conn.try_execute(&step(&mut rng, id)).await;
        if done.is_err() && conn.try_execute("rollback").await.is_err() {
            while !stop.load(Ordering::Relaxed) {
                match Beside::try_connect(&url).await {
                    Some(again) => {
                        conn = again;
                        break;
                    }
                    None => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        }
        steps.fetch_add(u64::from(done.is_ok()), Ordering::Relaxed);
    }
}

/// Calls the hook with what runs were a while ago, sometimes twice: whatever it says late, the history
/// is authoritative. A service that is away, or a run that is gone, is no news.
pub(crate) async fn call_hooks(
    url: String,
    hook: Arc<Mutex<Client>>,
    stop: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
) {
    let mut rng = fastrand::Rng::with_seed(99);
    let mut conn = Beside::connect(Backend::Postgres, &url).await;
    while !stop.load(Ordering::Relaxed) {
        let runs = "select json_build_object('workspace', r.workspace_id, 'uid', nullif(r.uid, ''),
                        'published_run', v.published_run_id, 'run', r.id::text,
                        'last_used_at', r.updated_at)::text
                    from saved_run r join saved_run_version v on v.id = r.parent_version_id
                    where r.workspace_id is not null and v.published_run_id is not null
                      and r.updated_at < now() and isfinite(r.updated_at)
                    order by r.updated_at desc limit 3";
        let Ok(runs) = conn.try_texts(runs).await else {
            match Beside::try_connect(&url).await {
                Some(again) => conn = again,
                None => tokio::time::sleep(Duration::from_millis(50)).await,
            }
            continue;
        };
        tokio::time::sleep(Duration::from_millis(rng.u64(0..60))).await;
        let body = format!("{{\"runs\": [{}]}}", runs.join(", "));
        for _ in 0..rng.u8(1..3) {
            let client = *hook.lock().unwrap_or_else(PoisonError::into_inner);
            let headers = [("content-type", "application/json")];
            let answer = client
                .try_send("POST", "/v1/runs", &headers, body.clone().into())
                .await;
            let taken = answer.is_ok_and(|answer| answer.status == 200);
            calls.fetch_add(u64::from(taken), Ordering::Relaxed);
        }
    }
}

/// Waits until the application went on by so many steps.
pub(crate) async fn went_on(steps: &AtomicU64, by: u64) {
    let from = steps.load(Ordering::Relaxed);
    let went = async || (steps.load(Ordering::Relaxed) >= from + by).then_some(());
    until("the application went on", went).await;
}

async fn a_life(store: TestDb, in_the_middle: impl Fn()) {
    let history = History::random(FRAMEWORK, 80, 2_000);
    let mut setup = Setup::of(store, history).await;
    setup.source().execute(KEYS).await;
    setup.source().execute(SLOWLY).await;
    setup.query = FRAMEWORK.query_of("slowly(r.id)", "join");
    setup.recents(&["capture", "install"]).expect(0);
    let mut server = serve(&setup).await;
    let stop = Arc::new(AtomicBool::new(false));
    let steps = Arc::new(AtomicU64::new(0));
    let mut writers = Vec::new();
    for seed in 1..=4 {
        let url = setup.source().url.clone();
        writers.push(tokio::spawn(live(
            url,
            seed,
            Arc::clone(&stop),
            Arc::clone(&steps),
        )));
    }
    let hook = Arc::new(Mutex::new(server.public));
    let calls = Arc::new(AtomicU64::new(0));
    writers.push(tokio::spawn(call_hooks(
        setup.source().url.clone(),
        Arc::clone(&hook),
        Arc::clone(&stop),
        Arc::clone(&calls),
    )));
    // The backfill runs beside them; the service is killed in the middle, twice.
    let mut backfill = start_backfill(&setup).await;
    for _ in 0..2 {
        went_on(&steps, STEPS).await;
        went_on(&calls, CALLS).await;
        assert_runs(&setup, &mut backfill).await;
        drop(server);
        server = serve(&setup).await;
        *hook.lock().unwrap_or_else(PoisonError::into_inner) = server.public;
    }
    assert_runs(&setup, &mut backfill).await;
    in_the_middle();
    // Stopped, or where PostgreSQL went down with it, the same command goes on.
    backfill.signal("INT");
    assert_ne!(backfill.ended().await.code, Some(0));
    setup.recents(&BACKFILL).expect(0);
    went_on(&steps, STEPS).await;
    went_on(&calls, CALLS).await;
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.expect("a writer");
    }
    let followed = Followed { setup, server };
    followed.assert_exact("when it is quiet again").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_beside_the_history_is_exact_after_an_applications_life() {
    a_life(TestDb::migrated(Backend::Postgres).await, || ()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_in_another_database_is_exact_after_an_applications_life() {
    a_life(TestDb::migrated(Backend::Sqlite).await, || ()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgresql_that_is_killed_in_the_middle_loses_no_note() {
    let cluster = Cluster::start();
    let db = TestDb::apart(&cluster.url).await;
    a_life(db, || {
        cluster.crash();
        cluster.restart();
    })
    .await;
}
