//! Installing, looking at and removing capture.

use std::time::Instant;

use super::followed::{Followed, grouped, quiet};
use crate::support::command::Ended;
use crate::support::history::layout::{ALL, POSTGRES};
use crate::support::history::setup::same;
use crate::support::history::{History, Layout, Run, Setup};
use crate::support::{Backend, Beside, Cluster, TestDb, until};

/// What of ours stands in the history's database, the table's own things apart.
pub(super) const TRACES: &str = "
    select 'trigger ' || tgname from pg_trigger where tgname like 'recents%' or tgname = 'renamed'
    union all select 'function ' || proname from pg_proc p join pg_namespace n
        on n.oid = p.pronamespace where n.nspname = 'recents'
    union all select 'relation ' || relname from pg_class c join pg_namespace n
        on n.oid = c.relnamespace where n.nspname = 'recents' and relname like 'outbox%'
    order by 1";

pub(super) async fn setup(layout: Layout) -> Setup {
    let store = TestDb::migrated(Backend::Postgres).await;
    Setup::of(store, History::random(layout, 60, 300)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_every_type_and_partitions_are_followed() {
    let layouts = ALL
        .into_iter()
        .filter(|layout| layout.backend == Backend::Postgres);
    for layout in layouts {
        let followed = Followed::start(setup(layout).await).await;
        let Layout { table, .. } = layout;
        followed
            .app(&format!(
                "update {table} set workspace_id = '77' where uid is null"
            ))
            .await;
        followed
            .assert_exact(&format!("{}: an update", layout.name))
            .await;
        followed
            .app(&format!("delete from {table} where uid is not null"))
            .await;
        followed
            .assert_exact(&format!("{}: a delete", layout.name))
            .await;
        let status = followed.setup.json(&["capture", "status"], 0);
        assert_eq!(status["covered"], true, "{status}");
    }
}

#[tokio::test]
async fn statements_of_every_size_are_noted_whole() {
    // Around what is noted alone, and around what fills a row of the outbox, for each key type.
    let sizes = [0, 1, 7, 8, 9, 107, 108, 109, 258, 259, 508, 509, 1_300];
    for (key_type, key) in [
        ("bigint", "n"),
        ("uuid", "md5(n::text)::uuid"),
        ("text", "'k' || n"),
    ] {
        let layout = Layout {
            key_type,
            ..POSTGRES
        };
        let setup = Setup::of(
            TestDb::migrated(Backend::Postgres).await,
            History::random(layout, 62, 0),
        )
        .await;
        setup.recents(&["capture", "install"]).expect(0);
        let mut conn = setup.source().connect().await;
        for size in sizes {
            conn.execute(&format!(
                "insert into saved_run select {key}, 'w', null, 1, now() from generate_series(1, {size}) n"
            ))
            .await;
            let noted = conn
                .texts(
                    "with noted as (select unnest(keys) as key from recents.outbox)
                     select concat_ws(' ', count(*), count(distinct key), (select count(*) from saved_run),
                                      (select sum(runs) from recents.outbox),
                                      (select max(cardinality(keys)) <= 500 from recents.outbox))
                     from noted join saved_run on id = key",
                )
                .await;
            let whole = match size {
                0 => "0 0 0".to_owned(),
                _ => format!("{size} {size} {size} {size} t"),
            };
            assert_eq!(noted, [whole], "{key_type}, {size} rows");
            conn.execute("truncate recents.outbox; delete from saved_run; truncate recents.outbox")
                .await;
        }
    }
}

#[tokio::test]
async fn it_is_installed_once_and_removed_without_a_trace() {
    let setup = setup(POSTGRES).await;
    let mut conn = setup.source().connect().await;
    let before = conn.texts(TRACES).await;
    setup.recents(&["capture", "status"]).expect(1);
    setup.recents(&["capture", "install"]).expect(0);
    setup.recents(&["capture", "status"]).expect(0);
    let installed = conn.texts(TRACES).await;
    assert!(installed.len() > before.len() + 8, "{installed:?}");
    let again = setup.recents(&["capture", "install"]).expect(0);
    assert!(again.err.contains("already"), "{again:?}");
    assert_eq!(conn.texts(TRACES).await, installed);
    setup.recents(&["capture", "uninstall"]).expect(0);
    assert_eq!(conn.texts(TRACES).await, before);
    setup.recents(&["capture", "uninstall"]).expect(0);
}

#[tokio::test]
async fn in_a_database_of_its_own_even_the_schema_goes() {
    let store = TestDb::migrated(Backend::Sqlite).await;
    let setup = Setup::of(store, History::random(POSTGRES, 61, 50)).await;
    setup.recents(&["capture", "install"]).expect(0);
    setup.recents(&["capture", "uninstall"]).expect(0);
    let mut conn = setup.source().connect().await;
    let left = "select nspname::text from pg_namespace where nspname = 'recents'";
    assert!(conn.texts(left).await.is_empty());
}

#[tokio::test]
async fn what_is_printed_does_the_same_by_hand() {
    let setup = setup(POSTGRES).await;
    let printed = setup.recents(&["capture", "install", "--print"]).expect(0);
    setup.recents(&["capture", "status"]).expect(1);
    setup.source().execute(&printed.out).await;
    setup.recents(&["capture", "status"]).expect(0);
    let printed = setup
        .recents(&["capture", "uninstall", "--print"])
        .expect(0);
    setup.source().execute(&printed.out).await;
    setup.recents(&["capture", "status"]).expect(1);
}

#[tokio::test]
async fn an_uncovered_partition_a_disabled_trigger_and_another_version_are_told_and_mended() {
    let layout = ALL
        .into_iter()
        .find(|layout| layout.name == "partitions")
        .expect("it is there");
    let setup = setup(layout).await;
    setup.recents(&["capture", "install"]).expect(0);
    for spoil in [
        "alter table saved_run detach partition saved_run_2;
         create table saved_run_3 partition of saved_run default",
        "alter table saved_run_0 disable trigger recents_capture_update",
        "drop trigger recents_capture_delete on saved_run",
        "alter table saved_run detach partition saved_run_1",
        "comment on table recents.outbox is 'recents capture 0: saved_run id int8'",
    ] {
        setup.source().execute(spoil).await;
        let status = setup.json(&["capture", "status"], 1);
        assert_eq!(status["covered"], false, "{spoil}: {status}");
        setup.recents(&["capture", "install"]).expect(0);
        setup.recents(&["capture", "status"]).expect(0);
    }
}

#[tokio::test]
async fn notes_that_wait_survive_a_capture_of_another_version() {
    let setup = setup(POSTGRES).await;
    setup.recents(&["capture", "install"]).expect(0);
    let mut conn = setup.source().connect().await;
    conn.execute("update saved_run set uid = 'u'").await;
    let notes = "select id::text from recents.outbox order by id";
    let before = conn.texts(notes).await;
    assert!(!before.is_empty());
    conn.execute("comment on table recents.outbox is 'recents capture 0: saved_run id int8'")
        .await;
    setup.recents(&["capture", "install"]).expect(0);
    assert_eq!(conn.texts(notes).await, before);
}

#[tokio::test]
async fn an_outbox_that_nobody_drains_is_told() {
    let setup = setup(POSTGRES).await;
    setup.recents(&["capture", "install"]).expect(0);
    let note = "insert into recents.outbox (runs, keys) values (5000001, '{}')";
    setup.source().execute(note).await;
    setup.recents(&["capture", "status"]).expect(0);
    setup.source().execute(note).await;
    let told = setup.recents(&["capture", "status"]).expect(1);
    assert!(told.err.contains("nobody seems to drain it"), "{told:?}");
}

#[tokio::test]
async fn a_table_that_is_held_is_not_waited_for_long() {
    let setup = setup(POSTGRES).await;
    let mut holder = setup.source().connect().await;
    holder
        .execute("begin; delete from saved_run where id = 1")
        .await;
    let started = Instant::now();
    let refused = setup.recents(&["capture", "install"]).expect(1);
    assert!(started.elapsed().as_secs() < 10);
    assert!(
        refused.err.contains("a transaction holds saved_run"),
        "{refused:?}"
    );
    holder.execute("rollback").await;
    setup.recents(&["capture", "install"]).expect(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_without_any_right_on_our_schema_goes_on_writing() {
    let followed = Followed::start(setup(POSTGRES).await).await;
    followed
        .app(
            "create role plain_application;
             grant select, insert, update, delete on saved_run to plain_application;
             set role plain_application;
             set search_path = ''; set timezone = 'Asia/Tokyo';
             insert into public.saved_run values (9999, 'w1', 'u', 1, now());
             update public.saved_run set workspace_id = 'by-role' where id % 2 = 0;
             delete from public.saved_run where id % 9 = 0;
             reset role; reset search_path;
             revoke all on saved_run from plain_application; drop role plain_application",
        )
        .await;
    followed.assert_exact("after a role without rights").await;
    let rows = followed.setup.store.rows().await;
    assert!(rows.keys().any(|key| key.0 == "by-role"));
}

#[tokio::test]
async fn a_role_without_the_right_hears_which_grants_mend_it() {
    let mut setup = setup(POSTGRES).await;
    let grants = ["grant select on saved_run, saved_run_version to %"];
    let url = setup.store.role(&grants).await;
    let install = || {
        let mut command = setup.command(&["capture", "install"]);
        command.env("RECENTS_HISTORY_URL", &url);
        Ended::from(command.output().expect("it runs"))
    };
    let refused = install().expect(1);
    let told: Vec<_> = refused
        .err
        .lines()
        .filter(|line| line.trim_start().starts_with("grant "))
        .collect();
    assert_eq!(told.len(), 2, "{refused:?}");
    setup.source().execute(&told.join("\n")).await;
    install().expect(0);
    // Nor does the role need more to take it away again.
    let mut uninstall = setup.command(&["capture", "uninstall"]);
    let uninstall = uninstall.env("RECENTS_HISTORY_URL", &url);
    Ended::from(uninstall.output().expect("it runs")).expect(0);
    let left = "select tgname::text from pg_trigger where tgname like 'recents%'";
    assert!(setup.source().connect().await.texts(left).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_work_off_what_they_noted_where_no_service_runs() {
    let setup = setup(POSTGRES).await;
    setup.recents(&["capture", "install"]).expect(0);
    setup.recents(&["backfill"]).expect(0);
    quiet(&setup).await;
    same(
        &setup.store.rows().await,
        &grouped(&setup).await,
        "after a backfill",
    );
}

#[tokio::test]
async fn an_installation_over_a_busy_table_gives_way_and_not_the_application() {
    let setup = setup(POSTGRES).await;
    setup.recents(&["capture", "install"]).expect(0);
    let mut application = setup.source().connect().await;
    let insert = |id: i64| format!("insert into saved_run values ({id}, 'w', null, 1, now())");
    application
        .execute(&format!("begin; {}", insert(7_001)))
        .await;
    setup
        .source()
        .execute("comment on table recents.outbox is 'recents capture 0: saved_run id int8'")
        .await;
    let mut worker = setup.start(&["capture", "install"]);
    let waits = "select pid::text from pg_stat_activity where datname = current_database()
                 and application_name = 'recents' and wait_event_type = 'Lock'";
    let mut beside = setup.source().connect().await;
    worker
        .until("it waits", async || {
            (!beside.texts(waits).await.is_empty()).then_some(())
        })
        .await;
    // Behind its lock on the history it has none on the outbox that this would wait for.
    application.execute(&insert(7_002)).await;
    application.execute("commit").await;
    worker.ended().await.expect(0);
    setup.recents(&["capture", "status"]).expect(0);
}

#[tokio::test]
async fn what_has_no_triggers_that_see_its_changes_is_refused() {
    let mut setup = setup(POSTGRES).await;
    setup
        .source()
        .execute("create view seen as select * from saved_run")
        .await;
    setup.history.layout.table = "seen";
    let refused = setup.recents(&["capture", "install"]).expect(2);
    assert!(refused.err.contains("seen is no table"), "{refused:?}");
    setup.recents(&["capture", "status"]).expect(1);
}

#[tokio::test]
async fn columns_may_have_the_names_that_the_triggers_use() {
    let setup = setup(POSTGRES).await;
    let names = [
        "many", "behind", "noted", "noting", "k", "n", "i", "keys", "runs", "part",
    ];
    for name in names {
        setup
            .source()
            .execute(&format!("alter table saved_run add column {name} text"))
            .await;
    }
    setup.recents(&["capture", "install"]).expect(0);
    let mut conn = setup.source().connect().await;
    conn.execute("update saved_run set uid = 'u'").await;
    let noted = "select (select sum(runs) from recents.outbox) = (select count(*) from saved_run)";
    assert_eq!(
        conn.texts(&format!("select ({noted})::text")).await,
        ["true"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_changes_is_noted_however_it_changes() {
    let partitions = ALL.into_iter().find(|layout| layout.name == "partitions");
    // Numbers whose usual hashes are equal, and cancel each other out.
    let shards =
        "update saved_run set id = id + 4294967296, workspace_id = 'moved' where id in (2, 3)";
    let by_trigger = "create function rekey() returns trigger language plpgsql as
            $$ begin new.id = old.id + 5000; return new; end $$;
         create trigger rekey before update on saved_run for each row execute function rekey();
         update saved_run set workspace_id = 'moved' where id % 3 = 0";
    for (layout, change) in [
        (partitions.expect("it is there"), shards),
        (POSTGRES, by_trigger),
    ] {
        let followed = Followed::start(setup(layout).await).await;
        followed.app(change).await;
        followed.assert_exact(layout.name).await;
    }
    let text = Layout {
        key_type: "text collate nocase",
        ..POSTGRES
    };
    let text = Layout {
        before: "create collation nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);",
        ..text
    };
    let runs = vec![Run::new("b1", "w", 1, 0), Run::new("b2", "w", 2, 0)];
    let store = TestDb::migrated(Backend::Postgres).await;
    let followed = Followed::start(Setup::of(store, History::of(text, runs)).await).await;
    followed
        .app("update saved_run set id = 'B1', workspace_id = 'moved' where id = 'b1'")
        .await;
    followed.assert_exact("another spelling").await;
}

#[tokio::test]
async fn notes_that_wait_survive_another_type_of_the_key() {
    let setup = setup(POSTGRES).await;
    setup.recents(&["capture", "install"]).expect(0);
    let mut conn = setup.source().connect().await;
    conn.execute("update saved_run set uid = 'u'").await;
    conn.execute("alter table recents.outbox alter column keys type int4[] using keys::int4[]")
        .await;
    let notes = "select keys::text from recents.outbox order by id";
    let before = conn.texts(notes).await;
    conn.execute("comment on table recents.outbox is 'recents capture 0: saved_run id int4'")
        .await;
    setup.recents(&["capture", "install"]).expect(0);
    assert_eq!(conn.texts(notes).await, before);
    let kind = "select pg_typeof(keys)::text from recents.outbox limit 1";
    assert_eq!(conn.texts(kind).await, ["bigint[]"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_that_takes_no_writes_is_told_as_that() {
    let cluster = Cluster::start();
    let setup = Setup::plain(TestDb::apart(&cluster.url).await, 76, 10).await;
    let standby = cluster.standby();
    let mut replayed = Beside::connect(Backend::Postgres, &standby.url).await;
    let there = "select to_regclass('saved_run')::text where to_regclass('saved_run') is not null";
    until("the standby has the history", async || {
        replayed.texts(there).await.pop()
    })
    .await;
    let ended = setup.recents(&["capture", "install", "--history-url", &standby.url]);
    assert!(ended.err.contains("as a standby does"), "{ended:?}");
}
