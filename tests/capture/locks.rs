//! Capture makes no application transaction wait for another one.

use std::sync::Arc;

use recents::history::{Stretches, Unmappable, connect, one_pass, windows};

use super::parts::PARTITIONS;
use crate::races::drain::{assert_exact, blocked, drain, lock_row, stepping};
use crate::support::command::Ended;
use crate::support::history::layout::POSTGRES;
use crate::support::history::{History, Run, Setup};
use crate::support::{Backend, Beside, Cluster, TestDb, until};

/// What capture does not do: touch the rows of the table in the application's transaction.
const UPSERTING: &str = "
    create function upsert() returns trigger language plpgsql as $$ begin
        insert into recents.recent_workflow (workspace, published_run, last_used_at, run)
        select c.workspace_id, 'p1', max(c.updated_at), null from changed c group by 1
        on conflict (workspace, uid, published_run) do update set last_used_at = excluded.last_used_at;
        return null;
    end $$;
    create trigger upserting_inserts after insert on saved_run referencing new table as changed
        for each statement execute function upsert();
    create trigger upserting_updates after update on saved_run referencing new table as changed
        for each statement execute function upsert();
    create trigger upserting_deletes after delete on saved_run referencing old table as changed
        for each statement execute function upsert()";

/// Long before PostgreSQL looks for deadlocks, and longer than anything here takes that need not wait.
const LOCK_TIMEOUT: &str = "set lock_timeout = '100ms'";
const LOCK_NOT_AVAILABLE: &str = "55P03";
const DEADLOCK: &str = "40P01";

/// Sessions that begin now do not look for deadlocks: somebody else would find out.
const LOOKS_LATE: &str = "do $$ begin
        execute format('alter database %I set deadlock_timeout = 60000', current_database());
    end $$";

/// What a transaction does about a run.
type Change = fn(i64) -> String;

const CHANGES: [(&str, Change); 3] = [
    ("insert", |run| {
        format!(
            "insert into saved_run select id + 10, workspace_id, uid, parent_version_id, now()
             from saved_run where id = {run}"
        )
    }),
    ("update", |run| {
        format!("update saved_run set updated_at = now() where id = {run}")
    }),
    ("delete", |run| {
        format!("delete from saved_run where id = {run}")
    }),
];

/// Runs 1 to 4 use the workflow in one workspace, in the other one, there, and in the first: one
/// transaction takes runs 1 and 2, the other one runs 3 and 4.
async fn setup() -> Setup {
    let runs = [(1, "w1"), (2, "w2"), (3, "w2"), (4, "w1")];
    let runs = runs.map(|(key, workspace)| Run::new(key, workspace, 1, key));
    let store = TestDb::migrated(Backend::Postgres).await;
    Setup::of(store, History::of(POSTGRES, runs.into())).await
}

async fn upserting() -> Setup {
    let setup = setup().await;
    setup.source().execute(UPSERTING).await;
    setup
}

/// Both transactions, each with its first run done.
async fn begun(setup: &Setup, session: &str, change: Change) -> [Beside; 2] {
    let source = setup.source();
    let mut both = [source.connect().await, source.connect().await];
    for (conn, run) in both.iter_mut().zip([1, 3]) {
        conn.execute(&format!("{session}; begin")).await;
        conn.execute(&change(run)).await;
    }
    both
}

/// Each takes its second run while the other one is open and does nothing, so that whoever had to wait
/// for it would wait for ever.
async fn in_turn(setup: &Setup, change: Change) -> Result<(), sqlx::Error> {
    let mut both = begun(setup, LOCK_TIMEOUT, change).await;
    for (conn, run) in both.iter_mut().zip([2, 4]) {
        conn.try_execute(&change(run)).await?;
    }
    for conn in &mut both {
        conn.try_execute("commit").await?;
    }
    Ok(())
}

/// Each takes its second run as soon as it can.
async fn at_once(setup: &Setup, change: Change) -> [Result<(), sqlx::Error>; 2] {
    let [a, b] = begun(setup, "set deadlock_timeout = '100ms'", change).await;
    let end = async |mut conn: Beside, run| {
        conn.try_execute(&change(run)).await?;
        conn.try_execute("commit").await
    };
    tokio::join!(end(a, 2), end(b, 4)).into()
}

fn code(error: &sqlx::Error) -> String {
    let error = error.as_database_error();
    let code = error.and_then(sqlx::error::DatabaseError::code);
    code.unwrap_or_default().into_owned()
}

/// The control of the test below.
#[tokio::test]
async fn transactions_deadlock_where_a_trigger_writes_the_table() {
    for (what, change) in CHANGES {
        let waits = in_turn(&upserting().await, change).await;
        let waits = waits.expect_err("the first waits for the second");
        assert_eq!(code(&waits), LOCK_NOT_AVAILABLE, "{what}: {waits}");

        let ends = at_once(&upserting().await, change).await;
        let errors: Vec<_> = ends.iter().filter_map(|end| end.as_ref().err()).collect();
        let codes: Vec<_> = errors.iter().map(|error| code(error)).collect();
        assert_eq!(codes, [DEADLOCK], "{what}: {errors:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_that_would_deadlock_over_the_table_do_not_even_wait() {
    for (what, change) in CHANGES {
        let setup = setup().await;
        setup.recents(&["capture", "install"]).expect(0);
        setup.recents(&["backfill"]).expect(0);
        // Nor for a drain that has notes of the same workflow, and waits for its rows itself.
        let mut beside = setup.source().connect().await;
        beside
            .execute("insert into saved_run values (5, 'w1', null, 1, now())")
            .await;
        let row = lock_row(&setup, "p1").await;
        let drain = stepping(drain(&setup).await);
        blocked(&mut beside, 1).await;
        let ended = in_turn(&setup, change).await;
        ended.unwrap_or_else(|error| panic!("{what}: {error}"));
        drop(row);
        let (drain, _) = drain.await.expect("it ends");
        assert_exact(&setup, drain, what).await;
    }
}

/// As a migration does. A query of ours locks the tables in an order of its own: as it is written, or as it was
/// planned.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_locks_the_tables_of_the_mapping_one_by_one_is_never_the_one_that_gives_way() {
    for [first, second] in [
        ["saved_run_version", "saved_run"],
        ["saved_run", "saved_run_version"],
    ] {
        let setup = setup().await;
        setup.recents(&["capture", "install"]).expect(0);
        setup.recents(&["backfill"]).expect(0);
        let mut beside = setup.source().connect().await;
        beside.execute(LOOKS_LATE).await;
        beside
            .execute("insert into saved_run values (5, 'w1', null, 1, now())")
            .await;
        let drain = drain(&setup).await;
        let mut application = setup.source().connect().await;
        // It would be the one that finds out.
        application
            .execute(&format!(
                "set deadlock_timeout = 700; begin; lock table {first} in access exclusive mode"
            ))
            .await;
        let drain = stepping(drain);
        blocked(&mut beside, 1).await;
        application
            .execute(&format!(
                "lock table {second} in access exclusive mode; commit"
            ))
            .await;
        let (drain, _) = drain.await.expect("it ends");
        assert_exact(&setup, drain, second).await;
    }
}

/// A partition is locked when a query is planned, behind those before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_locks_partitions_one_by_one_is_never_the_one_that_gives_way_to_a_reading_of_all() {
    let store = TestDb::migrated(Backend::Postgres).await;
    let setup = Setup::of(store, History::random(PARTITIONS, 79, 400)).await;
    let mut beside = setup.source().connect().await;
    beside.execute(LOOKS_LATE).await;
    let history = Arc::new(connect(&setup.config()).await.expect("it opens"));
    let at_once = || one_pass(Arc::clone(&history), None, Unmappable::default());
    let walk = || {
        // Down to the smallest key.
        let last = i64::MIN.to_string();
        windows::walk(
            Arc::clone(&history),
            None,
            last,
            1_000,
            Unmappable::default(),
        )
    };
    let readings: [&dyn Fn() -> Stretches; 2] = [&at_once, &walk];
    for read in readings {
        let mut application = setup.source().connect().await;
        application
            .execute("set deadlock_timeout = 700; begin; lock table part in access exclusive mode")
            .await;
        let kept_off = read();
        blocked(&mut beside, 1).await;
        application
            .execute("lock table part_0_0 in access exclusive mode; commit")
            .await;
        let scanned = all_of(kept_off).await;
        assert_eq!(scanned, all_of(read()).await);
        assert!(scanned > 0, "nothing was read");
    }
}

async fn all_of(mut reading: Stretches) -> u64 {
    let mut scanned = 0;
    while let Some(stretch) = reading.next().await.expect("it is read") {
        scanned += stretch.tally.scanned;
    }
    scanned
}

/// Of a large table, it takes minutes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_autovacuum_of_the_history_keeps_nobody_from_installing_and_uninstalling() {
    let cluster = Cluster::start();
    let setup = Setup::plain(TestDb::apart(&cluster.url).await, 75, 10).await;
    let mut beside = setup.source().connect().await;
    for sql in [
        "alter system set autovacuum_naptime = 1",
        "select pg_reload_conf()",
        "insert into saved_run select 1000 + n, 'w', 'u', 1, now() from generate_series(1, 50000) n",
        "alter table saved_run set (autovacuum_vacuum_threshold = 0, autovacuum_vacuum_scale_factor = 0,
             autovacuum_vacuum_cost_limit = 1, autovacuum_vacuum_cost_delay = 100)",
    ] {
        beside.execute(sql).await;
    }
    for command in ["install", "uninstall"] {
        beside
            .execute("update saved_run set uid = 'v' where id > 1000")
            .await;
        let at_work = "select pid::text from pg_stat_activity
             where backend_type = 'autovacuum worker' and query like '%saved_run' and wait_event = 'VacuumDelay'";
        let worker = until("it is vacuumed", async || beside.texts(at_work).await.pop());
        let worker = worker.await;
        setup.recents(&["capture", command]).expect(0);
        assert!(
            !beside.texts(at_work).await.contains(&worker),
            "it gave way"
        );
    }
}

/// Tables that hold runs, each of which somebody writes.
const TABLES: usize = 6;

async fn with_children() -> Setup {
    let setup = setup().await;
    for table in 0..TABLES {
        let child = format!("create table child_{table} () inherits (saved_run)");
        setup.source().execute(&child).await;
    }
    setup
}

/// How long a command waits for locks in one transaction, in milliseconds. Each table is let go soon after it is
/// waited for: only together they take long.
async fn waits_for_many(setup: &Setup, args: &[&str]) -> (u64, Ended) {
    let mut beside = setup.source().connect().await;
    let mut held = Vec::new();
    for table in 0..TABLES {
        let mut writer = setup.source().connect().await;
        let write = format!("begin; lock table child_{table} in row exclusive mode");
        writer.execute(&write).await;
        held.push(Some(writer));
    }
    let waiting = "select a.relation::regclass || ' ' || round(1000 * extract(epoch from clock_timestamp() - a.waitstart))
                       || ' ' || round(1000 * extract(epoch from clock_timestamp() - s.xact_start))
                   from pg_locks a join pg_stat_activity s using (pid)
                   where not a.granted and a.waitstart is not null and s.application_name = 'recents'
                     and a.database = (select oid from pg_database where datname = current_database())";
    let mut command = setup.start(args);
    let mut longest = 0;
    while command.child.try_wait().expect("it runs").is_none() {
        for seen in beside.texts(waiting).await {
            let parts: Vec<_> = seen.split(' ').collect();
            let [table, waits, since] = parts[..] else {
                panic!("{seen}");
            };
            longest = since.parse::<u64>().expect("milliseconds").max(longest);
            let number = table.strip_prefix("child_").map(str::parse::<usize>);
            if let Some(Ok(number)) = number
                && waits.parse::<u64>().expect("milliseconds") > 150
                && let Some(mut writer) = held[number].take()
            {
                writer.execute("commit").await;
            }
        }
    }
    (longest, command.ended().await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_installation_waits_no_longer_for_many_tables_than_for_one() {
    let setup = with_children().await;
    let install = ["capture", "install"];
    let (longest, ended) = waits_for_many(&setup, &install).await;
    ended.expect(0);
    assert!((150..800).contains(&longest), "it waited for {longest} ms");
    // What is no part of the history any more still has its triggers.
    for table in 0..TABLES {
        let leave = format!("alter table child_{table} no inherit saved_run");
        setup.source().execute(&leave).await;
    }
    let (longest, ended) = waits_for_many(&setup, &install).await;
    ended.expect(0);
    assert!((150..800).contains(&longest), "it waited for {longest} ms");
}

/// Their functions take the triggers along, and nothing can be locked before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_owns_no_table_uninstalls_without_waiting_longer_for_many() {
    let mut setup = with_children().await;
    let mut grants = vec![
        "grant usage, create on schema recents to %".to_owned(),
        "grant all on all tables in schema recents to %".to_owned(),
        "grant select on saved_run_version to %".to_owned(),
        "grant select, trigger on saved_run to %".to_owned(),
    ];
    grants.extend((0..TABLES).map(|table| format!("grant select, trigger on child_{table} to %")));
    let grants: Vec<&str> = grants.iter().map(String::as_str).collect();
    let url = setup.store.role(&grants).await;
    let by_role = |command| ["capture", command, "--database-url", &url];
    setup.recents(&by_role("install")).expect(0);
    let (longest, _) = waits_for_many(&setup, &by_role("uninstall")).await;
    assert!((50..800).contains(&longest), "it waited for {longest} ms");
    setup.recents(&by_role("uninstall")).expect(0);
}

/// A deadlock that is looked for sooner is found with whoever waits by then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_deadlocks_are_looked_for_sooner_a_query_waits_for_less() {
    let setup = setup().await;
    let mut beside = setup.source().connect().await;
    let sooner = LOOKS_LATE.replace("60000", "200");
    beside.execute(&sooner).await;
    let history = Arc::new(connect(&setup.config()).await.expect("it opens"));
    let mut application = setup.source().connect().await;
    application
        .execute("begin; lock table saved_run_version in access exclusive mode")
        .await;
    let reading = one_pass(history, None, Unmappable::default());
    let waits =
        "select waitstart || '|' || round(1000 * extract(epoch from clock_timestamp() - waitstart))
                 from pg_locks where not granted and waitstart is not null
                   and database = (select oid from pg_database where datname = current_database())";
    let (mut tries, mut longest) = (Vec::new(), 0);
    while tries.len() < 4 {
        for wait in beside.texts(waits).await {
            let (begun, so_long) = wait.split_once('|').expect("two parts");
            longest = so_long.parse::<u64>().expect("milliseconds").max(longest);
            if tries.last().is_none_or(|last| last != begun) {
                tries.push(begun.to_owned());
            }
        }
    }
    assert!(longest < 150, "it waited for {longest} ms");
    application.execute("commit").await;
    assert_eq!(all_of(reading).await, 4);
}
