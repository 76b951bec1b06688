//! What `capture status` sees: a part of the history, or of capture, that is not as it was installed.

use super::install::setup;
use crate::support::Backend;
use crate::support::beside::Beside;
use crate::support::history::layout::{ALL, POSTGRES};
use crate::support::history::{Layout, Setup};

fn partitions() -> Layout {
    let layout = ALL.into_iter().find(|layout| layout.name == "partitions");
    layout.expect("it is there")
}

#[tokio::test]
async fn a_foreign_part_is_refused_and_told_when_it_comes_later() {
    let of = "server files options (filename '/dev/null')";
    for (layout, comes) in [
        (
            POSTGRES,
            "create foreign table elsewhere () inherits (saved_run)",
        ),
        (
            partitions(),
            // No table with a unique index takes a foreign partition.
            "alter table saved_run drop constraint if exists saved_run_pkey;
             create foreign table elsewhere partition of saved_run for values from (90000) to (99999)",
        ),
    ] {
        let setup = setup(layout).await;
        let comes = &format!("{comes} {of}");
        let goes = "drop foreign table elsewhere";
        let mut conn = setup.source().connect().await;
        conn.execute(
            "create extension file_fdw; create server files foreign data wrapper file_fdw",
        )
        .await;
        conn.execute(comes).await;
        let refused = setup.recents(&["capture", "install"]).expect(2);
        let told = "public.elsewhere: it is a foreign table";
        assert!(refused.err.contains(told), "{refused:?}");
        conn.execute(goes).await;
        setup.recents(&["capture", "install"]).expect(0);
        setup.recents(&["capture", "status"]).expect(0);
        conn.execute(comes).await;
        let status = setup.json(&["capture", "status"], 1);
        assert_eq!(status["covered"], false, "{status}");
        let status = setup.recents(&["capture", "status"]).expect(1);
        assert!(status.out.contains(told), "{status:?}");
        conn.execute(goes).await;
        setup.recents(&["capture", "status"]).expect(0);
    }
}

/// Statement triggers of the table that a statement names are told of it, and no others.
#[tokio::test]
async fn a_history_that_is_a_part_of_something_else_is_refused_and_told_when_it_becomes_one_later()
{
    for (layout, other, comes, goes) in [
        (
            POSTGRES,
            "create table other (like saved_run)",
            "alter table saved_run inherit other",
            "alter table saved_run no inherit other",
        ),
        (
            POSTGRES,
            "create table other (like saved_run) partition by list (workspace_id)",
            "alter table other attach partition saved_run default",
            "alter table other detach partition saved_run",
        ),
        (
            POSTGRES,
            "create table other (like saved_run); create table child () inherits (saved_run)",
            "alter table child inherit other",
            "alter table child no inherit other",
        ),
    ] {
        let setup = setup(layout).await;
        let mut conn = setup.source().connect().await;
        conn.execute(other).await;
        conn.execute(comes).await;
        let refused = setup.recents(&["capture", "install"]).expect(2);
        let told = "it is a part of other, too";
        assert!(refused.err.contains(told), "{refused:?}");
        conn.execute(goes).await;
        setup.recents(&["capture", "install"]).expect(0);
        setup.recents(&["capture", "status"]).expect(0);
        conn.execute(comes).await;
        let status = setup.json(&["capture", "status"], 1);
        assert_eq!(status["covered"], false, "{status}");
        let status = setup.recents(&["capture", "status"]).expect(1);
        assert!(status.out.contains(told), "{status:?}");
        setup.recents(&["capture", "install"]).expect(2);
        conn.execute(goes).await;
        setup.recents(&["capture", "status"]).expect(0);
    }
}

/// Whether the outbox's comment says that it is of this version is not asked: it stays as it was.
#[tokio::test]
async fn what_somebody_changed_by_hand_is_told_and_mended() {
    let setup = setup(POSTGRES).await;
    setup.recents(&["capture", "install"]).expect(0);
    let mut conn = setup.source().connect().await;
    for (at, change) in [
        "create or replace function recents.capture_inserted() returns trigger language plpgsql
         security definer set search_path = pg_catalog, pg_temp
         as $$ begin return null; end $$",
        "alter function recents.capture_inserted() security invoker",
        "alter function recents.capture_inserted() reset search_path",
        "alter function recents.capture_inserted() set search_path = public",
        "grant execute on function recents.capture_inserted() to public",
        "create or replace trigger recents_capture_insert after insert on saved_run
         for each statement execute function recents.capture_truncated()",
        "create or replace trigger recents_capture_insert after delete on saved_run
         referencing old table as recents_old
         for each statement execute function recents.capture_deleted()",
        "create or replace trigger recents_capture_key after update of uid on saved_run
         for each row when (old.id is distinct from new.id)
         execute function recents.capture_rekeyed()",
    ]
    .into_iter()
    .enumerate()
    {
        conn.execute(change).await;
        let status = setup.json(&["capture", "status"], 1);
        assert_eq!(status["covered"], false, "{change}: {status}");
        let told = setup.recents(&["capture", "status"]).expect(1);
        assert!(told.out.contains("another version"), "{change}: {told:?}");
        setup.recents(&["capture", "install"]).expect(0);
        setup.recents(&["capture", "status"]).expect(0);
        assert_noted(&mut conn, 5_000 + at, change).await;
    }
}

/// A run that is inserted now is noted, and so is its update.
async fn assert_noted(conn: &mut Beside, run: usize, when: &str) {
    conn.execute("truncate recents.outbox").await;
    conn.execute(&format!(
        "insert into saved_run values ({run}, 'w', 'u', 1, now());
         update saved_run set workspace_id = 'v' where id = {run}"
    ))
    .await;
    let noted = "select unnest(keys)::text from recents.outbox";
    let run = run.to_string();
    assert_eq!(conn.texts(noted).await, [run.clone(), run], "{when}");
}

/// A table with triggers that becomes a partition needs another one for updates.
#[tokio::test]
async fn a_captured_table_that_is_attached_is_not_covered_as_it_is() {
    let setup = setup(partitions()).await;
    setup.recents(&["capture", "install"]).expect(0);
    let alone = "alter table saved_run detach partition saved_run_1;
        create or replace trigger recents_capture_update after update on saved_run_1
        referencing new table as recents_new
        for each statement execute function recents.capture_updated();
        alter table saved_run attach partition saved_run_1 for values from (100) to (400)";
    setup.source().execute(alone).await;
    let status = setup.json(&["capture", "status"], 1);
    assert_eq!(status["covered"], false, "{status}");
    setup.recents(&["capture", "install"]).expect(0);
    setup.recents(&["capture", "status"]).expect(0);
}

#[tokio::test]
async fn the_functions_have_their_owners_rights_a_search_path_and_nobody_else_to_call_them() {
    for layout in [POSTGRES, partitions()] {
        let mut setup = setup(layout).await;
        setup.recents(&["capture", "install"]).expect(0);
        let mut conn = setup.source().connect().await;
        let functions = "select concat_ws(' ', proname, prosecdef, proconfig::text,
                             has_function_privilege('public', p.oid, 'execute'))
                         from pg_proc p join pg_namespace n on n.oid = p.pronamespace
                         where nspname = 'recents' and proname like 'capture\\_%' order by 1";
        let all = [
            "deleted",
            "inserted",
            "moved",
            "rekeyed",
            "truncated",
            "updated",
        ];
        let right = all
            .map(|name| format!("capture_{name} t {{\"search_path=pg_catalog, pg_temp\"}} f"))
            .to_vec();
        assert_eq!(conn.texts(functions).await, right);
        // Nor may a role that gets at the schema put them behind triggers of its own.
        let grants = [
            "grant usage on schema recents to %",
            "create schema own authorization %",
        ];
        let url = setup.store.role(&grants).await;
        let mut role = Beside::connect(Backend::Postgres, &url).await;
        role.execute("create table own.run (id bigint)").await;
        let calls = role
            .try_execute(
                "create trigger calls after insert on own.run referencing new table as recents_new
                 for each statement execute function recents.capture_inserted()",
            )
            .await;
        let refused = calls.expect_err("it may not call it").to_string();
        assert!(
            refused.contains("permission denied for function"),
            "{refused}"
        );
    }
}

/// Names that an application has before PostgreSQL's own, of everything that the functions use.
const MISLEADING: &str = "
    create function said(bigint, integer) returns boolean language plpgsql
        as $$ begin raise 'misled'; end $$;
    create function summed(bigint, integer) returns bigint language plpgsql
        as $$ begin raise 'misled'; end $$;
    create function summed(integer, integer) returns integer language plpgsql
        as $$ begin raise 'misled'; end $$;
    create function gathered(bigint[], bigint) returns bigint[] language plpgsql
        as $$ begin raise 'misled'; end $$;
    create function cardinality(anyarray) returns integer language plpgsql
        as $$ begin raise 'misled'; end $$;
    create function generate_series(integer, integer, integer) returns setof integer language plpgsql
        as $$ begin raise 'misled'; end $$;
    create function hashtextextended(text, bigint) returns bigint language plpgsql
        as $$ begin raise 'misled'; end $$;
    create function clock_timestamp() returns timestamptz language plpgsql
        as $$ begin raise 'misled'; end $$;
    create operator >= (leftarg = bigint, rightarg = integer, function = said);
    create operator + (leftarg = bigint, rightarg = integer, function = summed);
    create operator + (leftarg = integer, rightarg = integer, function = summed);
    create operator - (leftarg = integer, rightarg = integer, function = summed);
    create aggregate array_agg(bigint) (sfunc = gathered, stype = bigint[]);
    create domain int8 as text; create domain text as integer;
    create table outbox (runs integer, keys bigint[]);
    create temp table outbox (runs integer, keys bigint[]);
    create temp table recents_new (id bigint); create temp table recents_old (id bigint);
    create temp table gathered (keys bigint[]); create temp table part (keys bigint[])";

#[tokio::test]
async fn a_role_with_misleading_names_in_its_search_path_is_noted_all_the_same() {
    for layout in [POSTGRES, partitions()] {
        let mut setup = setup(layout).await;
        setup.recents(&["capture", "install"]).expect(0);
        let url = hostile(&mut setup).await;
        let mut role = Beside::connect(Backend::Postgres, &url).await;
        role.execute("set search_path = hostile").await;
        role.execute(MISLEADING).await;
        role.execute("set search_path = hostile, pg_temp, pg_catalog")
            .await;
        // More than are noted one by one.
        role.execute(
            "insert into public.saved_run
             select n, 'w', 'u', 1, pg_catalog.now() from pg_catalog.generate_series(6001, 6020) as n",
        )
        .await;
        role.execute("update public.saved_run set workspace_id = 'v'")
            .await;
        role.execute("delete from public.saved_run; truncate public.saved_run")
            .await;
        let mut conn = setup.source().connect().await;
        let noted = "select concat_ws(' ', sum(runs), bool_or(keys is null)) from recents.outbox";
        // 300 were there.
        assert_eq!(conn.texts(noted).await, ["660 t"], "{}", layout.name);
        let misled = conn.texts("select runs::text from hostile.outbox").await;
        assert!(misled.is_empty(), "{misled:?}");
    }
}

/// The url of a role that writes the history, and has a schema of its own.
async fn hostile(setup: &mut Setup) -> String {
    let grants = [
        "create schema hostile authorization %",
        "grant select, insert, update, delete, truncate on saved_run to %",
    ];
    setup.store.role(&grants).await
}

/// Its transaction is open when the installation looks which tables there are.
#[tokio::test]
async fn a_part_that_is_attached_during_the_installation_is_covered() {
    let setup = setup(POSTGRES).await;
    let mut application = setup.source().connect().await;
    application
        .execute(
            "create table late (like saved_run including constraints);
             begin; alter table late inherit saved_run",
        )
        .await;
    let mut install = setup.start(&["capture", "install"]);
    let mut beside = setup.source().connect().await;
    let waits = "select pid::text from pg_stat_activity where datname = current_database()
                 and application_name = 'recents' and wait_event_type = 'Lock'
                 and query like 'do $recents$%'";
    install
        .until("it waits", async || {
            (!beside.texts(waits).await.is_empty()).then_some(())
        })
        .await;
    application.execute("commit").await;
    install.ended().await.expect(0);
    setup.recents(&["capture", "status"]).expect(0);
}

const GIVEN_AWAY: [&str; 6] = [
    "alter function recents.capture_inserted() owner to %",
    "alter function recents.capture_updated() owner to %",
    "alter function recents.capture_deleted() owner to %",
    "alter function recents.capture_truncated() owner to %",
    "alter function recents.capture_moved() owner to %",
    "alter function recents.capture_rekeyed() owner to %",
];

/// They write with the rights of their owner, who stays the same when they are made again.
#[tokio::test]
async fn functions_whose_owner_may_not_write_the_outbox_are_told_and_mended() {
    for change in [
        "select 'the functions alone were given away'",
        "drop table recents.outbox",
    ] {
        let mut setup = setup(POSTGRES).await;
        setup.recents(&["capture", "install"]).expect(0);
        setup.store.role(&GIVEN_AWAY).await;
        let mut conn = setup.source().connect().await;
        conn.execute(change).await;
        let write = "insert into saved_run values (4999, 'w', 'u', 1, now())";
        let refused = conn.try_execute(write).await;
        assert!(refused.is_err(), "{change}: the application could write");
        let told = setup.recents(&["capture", "status"]).expect(1);
        assert!(
            told.out.contains("the application cannot write"),
            "{told:?}"
        );
        setup.recents(&["capture", "install"]).expect(0);
        setup.recents(&["capture", "status"]).expect(0);
        assert_noted(&mut conn, 5_000, change).await;
    }
}

#[tokio::test]
async fn notes_that_nobody_works_off_are_told_with_what_ends_that() {
    let setup = setup(POSTGRES).await;
    setup.recents(&["capture", "install"]).expect(0);
    let mut conn = setup.source().connect().await;
    let told = "nobody works them off, or";
    conn.execute("insert into saved_run values (4999, 'w', 'u', 1, now())")
        .await;
    let status = setup.recents(&["capture", "status"]).expect(0);
    assert!(!status.out.contains(told), "{status:?}");
    conn.execute("update recents.outbox set noted_at = noted_at - interval '2 minutes'")
        .await;
    let status = setup.recents(&["capture", "status"]).expect(0);
    assert!(status.out.contains(told), "{status:?}");
}
