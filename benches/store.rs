//! What the statements of the store cost, on both databases: `cargo bench --bench store`.
//!
//! PostgreSQL runs without fsync, so that its figures are the statement's and not the disk's.
//! SQLite waits for its file as always; `TMPDIR=/dev/shm` takes the disk out of its figures too.

#![allow(
    clippy::expect_used,
    reason = "a bench that cannot be set up has nothing to measure"
)]

mod cluster;

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use recents::model::{Id, Scope, Time, Usage};
use recents::read::{PageRequest, pages};
use recents::record::{Fold, Recorder, Recording};
use recents::store::{Dialect, PoolSettings, Store};
use recents::telemetry::Metrics;
use sqlx::{AssertSqlSafe, Row};
use tokio::runtime::{Builder, Runtime};

use cluster::{Cluster, until_told};

/// Items of the lists that are read.
const LISTS: [u64; 3] = [1, 10, 240];
/// Other workspaces of the table, with three items each, so that its indexes have some depth.
const WORKSPACES: u64 = 20_000;
/// 2023-11-14T22:13:20Z in microseconds.
const T0: i64 = 1_700_000_000_000_000;

fn main() -> ExitCode {
    let runtime = runtime();
    let finished = runtime.block_on(until_told(async {
        let cluster = Cluster::start(&["shared_buffers=512MB"]).expect("a PostgreSQL");
        let dir = tempfile::tempdir().expect("a temporary directory");
        let sqlite = format!("sqlite://{}", dir.path().join("recents.db").display());
        let urls = [("sqlite", sqlite), ("postgres", cluster.url.clone())];
        // Criterion blocks; the directories and the cluster stay here, to be dropped at a signal.
        let measured = tokio::task::spawn_blocking(move || measure(&urls));
        measured.await.expect("the measuring thread");
    }));
    // A measurement under way is left behind.
    runtime.shutdown_background();
    match finished {
        Some(()) => ExitCode::SUCCESS,
        None => ExitCode::from(130),
    }
}

/// One thread: the figures are those of one client.
fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

fn measure(urls: &[(&str, String)]) {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_millis(1_500))
        .configure_from_args();
    fold(&mut criterion);
    for (name, url) in urls {
        let runtime = runtime();
        let settings = PoolSettings {
            size: 4,
            statement_timeout: Duration::from_secs(60),
            behind_pooler: false,
        };
        let store = Store::open(url, settings).expect("a good url");
        runtime.block_on(store.migrate()).expect("the schema");
        let recorder = runtime.block_on(async {
            let metrics = Arc::new(Metrics::new(&store));
            Recorder::start(store.clone(), metrics, Recording::default()).0
        });
        fill(&runtime, &recorder);
        runtime.block_on(settle(&store));
        read(&mut criterion, name, &runtime, &store);
        record(&mut criterion, name, &runtime, &recorder);
        // The last, because what is dismissed stays so.
        dismissed(&mut criterion, name, &runtime, &store);
        runtime.block_on(store.close());
    }
}

/// Keys with owned parts: workspace and published run.
struct Keys(Vec<(String, String)>);

impl Keys {
    /// `items` of workspace `workspace`.
    fn of(workspace: u64, items: u64) -> Self {
        Self(
            (0..items)
                .map(|item| (workspace.to_string(), item.to_string()))
                .collect(),
        )
    }

    /// The keys of all [`WORKSPACES`], in an order that no index has.
    fn shuffled() -> Self {
        let mut keys: Vec<_> = (0..WORKSPACES)
            .flat_map(|at| Self::of(1_000_000 + at, 3).0)
            .collect();
        fastrand::Rng::with_seed(42).shuffle(&mut keys);
        Self(keys)
    }

    /// A use of each key, `after` microseconds behind [`T0`].
    fn uses(&self, after: i64) -> Vec<Usage<'_>> {
        let mut uses = Vec::new();
        for (workspace, published_run) in &self.0 {
            uses.push(Usage {
                workspace,
                uid: None,
                published_run,
                last_used_at: time(after),
                run: Some("8000000"),
            });
        }
        uses
    }
}

fn time(after: i64) -> Time {
    Time::from_micros(T0 + after).expect("a time of 1970 to 9999")
}

fn scope(workspace: u64) -> PageRequest {
    let workspace = Id::new(workspace.to_string()).expect("an id");
    PageRequest {
        scope: Scope {
            workspace,
            uid: None,
        },
        cursor: None,
    }
}

fn fill(runtime: &Runtime, recorder: &Recorder) {
    let lists = LISTS.map(|items| Keys::of(items, items));
    for keys in lists.iter().chain([&Keys::shuffled()]) {
        for uses in keys.uses(0).chunks(1_000) {
            runtime.block_on(recorder.record(uses)).expect("recorded");
        }
    }
}

/// Has PostgreSQL know its table, as a server that has run for a minute does.
async fn settle(store: &Store) {
    if let Store::Postgres(pool, _) = store {
        let settled = sqlx::query("vacuum analyze recents.recent_workflow").execute(pool);
        settled.await.expect("vacuumed");
    }
}

/// Folding alone: what a backfill does with each run. The workspaces have a user each, who is known of
/// seven runs in eight.
fn fold(criterion: &mut Criterion) {
    let (keys, mut random) = (Keys::shuffled(), fastrand::Rng::with_seed(42));
    let all = keys.uses(0);
    let users: Vec<_> = all
        .iter()
        .map(|usage| format!("user-{}", usage.workspace))
        .collect();
    let uses: Vec<_> = (0..400_000)
        .map(|after| {
            let at = random.usize(..all.len());
            let uid = Some(users[at].as_str()).filter(|_| after % 8 > 0);
            Usage {
                uid,
                last_used_at: time(after),
                ..all[at]
            }
        })
        .collect();
    let mut group = criterion.benchmark_group("fold");
    group.throughput(Throughput::Elements(uses.len() as u64));
    group.bench_function("400000 uses of 60000 keys", |bench| {
        bench.iter(|| {
            let mut fold = Fold::default();
            uses.iter().for_each(|usage| fold.add(usage));
            black_box(fold.into_sorted().len())
        });
    });
}

/// The top four of lists of every size, and of many lists at once.
fn read(criterion: &mut Criterion, database: &str, runtime: &Runtime, store: &Store) {
    let mut group = criterion.benchmark_group(format!("{database} read"));
    let mut bench = |name: String, scopes: Vec<PageRequest>| {
        group.throughput(Throughput::Elements(scopes.len() as u64));
        group.bench_function(name, |bench| {
            bench.iter(|| {
                runtime
                    .block_on(pages(store, scopes.clone(), 4))
                    .expect("pages")
            });
        });
    };
    for items in LISTS {
        bench(format!("list of {items}"), vec![scope(items)]);
    }
    for scopes in [1, 10, 100] {
        bench(
            format!("batch of {scopes} lists"),
            (0..scopes).map(|at| scope(1_000_000 + at * 7)).collect(),
        );
    }
}

/// Recording: the queue, the fold and the one statement, waited for until it is durable.
fn record(criterion: &mut Criterion, database: &str, runtime: &Runtime, recorder: &Recorder) {
    let mut group = criterion.benchmark_group(format!("{database} record"));
    let (uniform, hot) = (
        Keys::shuffled(),
        Keys(vec![("hot".into(), "88".into()); 1_000]),
    );
    let mut after = 0;
    for uses in [1, 100, 1_000] {
        group.throughput(Throughput::Elements(uses as u64));
        for (name, keys) in [("uniform", &uniform), ("one hot key", &hot)] {
            let mut all = keys.uses(0);
            let chunks = all.len() / uses;
            let mut turn = 0;
            group.bench_function(format!("{uses} uses, {name}"), |bench| {
                bench.iter(|| {
                    let chunk = &mut all[turn % chunks * uses..][..uses];
                    turn += 1;
                    for usage in chunk.iter_mut() {
                        after += 1;
                        usage.last_used_at = time(after);
                    }
                    runtime.block_on(recorder.record(chunk)).expect("recorded")
                });
            });
        }
    }
}

/// The read of a list before there was dismissal: one statement for all pages, the first included.
const BEFORE: &str = "select * from (
    select 0 as list, r.published_run, r.last_used_at, r.run from {recents}recent_workflow as r
    where r.workspace = $2 and r.uid = $3 and (r.last_used_at, r.published_run) < ($4, $5)
    order by r.last_used_at desc, r.published_run desc limit $1
) as list_0";

/// Dismisses `$1` items of the longest list which it does not have: rows of what is dismissed are swept.
const DISMISS: &str =
    "with recursive n (i) as (select 1 union all select i + 1 from n where i < $1)
    insert into {recents}dismissal (workspace, uid, published_run, until)
    select '240', '', 'gone-' || i, $2 from n where true on conflict do nothing";

/// What dismissal adds to the read of a list: with nothing dismissed, with some items, with thousands.
/// The statements alone, sent and decoded by the same code.
fn dismissed(criterion: &mut Criterion, database: &str, runtime: &Runtime, store: &Store) {
    let named = |name: &str| {
        let mut all = recents::store::statements();
        let found = all.find(|statement| statement.name == name);
        found
            .expect("a statement of that name")
            .text(store.dialect())
    };
    let mut group = criterion.benchmark_group(format!("{database} dismissal"));
    let mut bench = |name: &str, text: &str| {
        group.bench_function(name, |bench| {
            bench.iter(|| runtime.block_on(read_by(store, text)));
        });
    };
    let qualified = |text: &str| match store.dialect() {
        Dialect::Postgres => text.replace("{recents}", "recents."),
        Dialect::Sqlite => text.replace("{recents}", ""),
    };
    let before = qualified(BEFORE);
    bench("before there was dismissal", &before);
    bench("nothing dismissed", named("read_1"));
    for (name, items) in [
        ("10 items dismissed", 10),
        ("10,000 items dismissed", 10_000),
    ] {
        runtime.block_on(dismiss(store, &qualified(DISMISS), items));
        bench(name, named("visible_1"));
    }
    bench("before there was dismissal, again", &before);
}

/// The items of the list of 240 that a statement gives, whose parameters are those of the read of one list.
async fn read_by(store: &Store, text: &str) -> usize {
    macro_rules! read {
        ($pool:expr) => {{
            let query = sqlx::query(AssertSqlSafe(text)).bind(5_i64).bind("240");
            let query = match text.contains("$5") {
                true => query.bind("").bind(Time::MAX).bind(""),
                false => query.bind(""),
            };
            let rows = query.fetch_all($pool).await;
            let items = rows.expect("a page").into_iter().map(|row| {
                let (id, run): (String, Option<String>) = (row.get(1), row.get(3));
                (row.get::<i32, _>(0), id, row.get::<Time, _>(2), run)
            });
            black_box(items.collect::<Vec<_>>()).len()
        }};
    }
    match store {
        Store::Postgres(pool, _) => read!(pool),
        Store::Sqlite(pool, _) => read!(pool),
    }
}

async fn dismiss(store: &Store, text: &str, items: i64) {
    macro_rules! dismiss {
        ($pool:expr) => {
            sqlx::query(AssertSqlSafe(text))
                .bind(items)
                .bind(Time::now())
                .execute($pool)
                .await
                .map(drop)
        };
    }
    let dismissed = match store {
        Store::Postgres(pool, _) => dismiss!(pool),
        Store::Sqlite(pool, _) => dismiss!(pool),
    };
    dismissed.expect("dismissed");
}
