//! A history in parts: the table follows what is done through the parent, to a part, and with parts.

use super::changes::follow;
use super::followed::{Followed, plain};
use crate::support::history::layout::POSTGRES;
use crate::support::history::{History, Layout, Setup};
use crate::support::{Backend, TestDb};

/// Partitions by key, one with partitions of its own, another with columns in other places.
pub(super) const PARTITIONS: Layout = Layout {
    name: "partitions",
    after: "partition by range (id)",
    parts: "create table part_0 partition of saved_run for values from (minvalue) to (300)
                partition by range (id);
            create table part_0_0 partition of part_0 for values from (minvalue) to (150);
            create table part_0_1 partition of part_0 default;
            create table part (gone int, like saved_run including all);
            alter table part drop column gone;
            alter table saved_run attach partition part default;",
    ..POSTGRES
};

/// A child by INHERITS, with columns in other places. Runs get there by its own name only.
const CHILDREN: Layout = Layout {
    name: "children",
    parts: "create table part (gone int, like saved_run including all);
            alter table part drop column gone;
            alter table part inherit saved_run;",
    ..POSTGRES
};

/// Partitions by what an update changes without its run's key.
const BY_WORKSPACE: Layout = Layout {
    name: "partitions by workspace",
    constraint: "not null",
    after: "partition by list (workspace_id)",
    parts: "create table part_a partition of saved_run for values in ('w1', 'w2')
                partition by hash (id);
            create table part_a_0 partition of part_a for values with (modulus 2, remainder 0);
            create table part_a_1 partition of part_a for values with (modulus 2, remainder 1);
            create table part_b partition of saved_run for values in ('w3', 'moved');
            create table part partition of saved_run default;
            create unique index on saved_run (workspace_id, id);
            create index on saved_run (id);",
    ..POSTGRES
};

async fn followed(layout: Layout, seed: u64) -> Followed {
    let store = TestDb::migrated(Backend::Postgres).await;
    let setup = Setup::of(store, History::random(layout, seed, 400)).await;
    let followed = Followed::start(setup).await;
    if layout.name == CHILDREN.name {
        let to_the_child = "with gone as (delete from only saved_run where id % 2 = 0 returning *)
                            insert into part select * from gone";
        followed.app(to_the_child).await;
        followed.assert_exact("moved to a child").await;
    }
    followed
}

/// Every kind of statement, and a truncate of the part and of everything.
async fn follow_all(layout: Layout, seed: u64, table: &str) {
    let followed = followed(layout, seed).await;
    follow(&followed, table).await;
    let more = "insert into part select 60000 + n, 'w' || n % 5, 'u1', n % 40, now()
                from generate_series(1, 50) n";
    for statement in [more, "truncate only part", more, "truncate saved_run"] {
        followed.app(statement).await;
        followed.assert_exact(statement).await;
    }
    assert!(followed.setup.store.rows().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_are_followed_through_their_parent() {
    follow_all(PARTITIONS, 300, "saved_run").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_is_followed_directly() {
    follow_all(PARTITIONS, 301, "part").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn children_are_followed_through_their_parent() {
    follow_all(CHILDREN, 302, "saved_run").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_is_followed_directly() {
    follow_all(CHILDREN, 303, "part").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_move_between_partitions_are_followed() {
    let followed = followed(BY_WORKSPACE, 304).await;
    let steps = [
        (
            "an update",
            "update saved_run set workspace_id = 'w1' where id % 3 = 0",
        ),
        (
            "an update with a time that steps back",
            "update saved_run set workspace_id = 'moved', updated_at = updated_at - interval '1 year' where workspace_id = 'w1' and id % 2 = 0",
        ),
        (
            "an update to no workspace",
            "update saved_run set workspace_id = null where workspace_id = 'w2' and id % 2 = 0",
        ),
        (
            "an update from there",
            "update saved_run set workspace_id = 'w' || id % 6 where workspace_id is null",
        ),
        (
            "an update with another key",
            "update saved_run set workspace_id = 'moved', id = id + 100000 where id % 5 = 0",
        ),
        (
            "another key, within a partition of partitions",
            "update part_a set id = id + 200000 where id % 3 = 1",
        ),
        (
            "another key, in a partition",
            "update part_b set id = id + 300000 where id % 3 = 1",
        ),
        (
            "a merge that inserts",
            "merge into saved_run r using (select id from saved_run where id % 4 = 0 union all values (400001)) as s (id) on s.id = r.id when matched then update set workspace_id = case r.workspace_id when 'w3' then 'w1' else 'w3' end when not matched then insert values (s.id, 'w1', 'u1', 1, now())",
        ),
        (
            "a merge that deletes",
            "merge into saved_run r using (select id from saved_run where id % 4 = 1) as s on s.id = r.id when matched and r.id % 8 = 1 then delete when matched then update set workspace_id = 'w4'",
        ),
        (
            "an insert on conflict",
            "insert into saved_run values (400001, 'w1', 'u2', 2, now() - interval '1 day'), (400002, 'w1', 'u2', 2, now()) on conflict (workspace_id, id) do update set uid = excluded.uid, updated_at = excluded.updated_at",
        ),
        (
            "an insert on conflict into a partition",
            "insert into part_a values (400001, 'w1', 'u3', 2, now()) on conflict (workspace_id, id) do update set uid = excluded.uid, updated_at = excluded.updated_at",
        ),
        (
            "a move by hand",
            "with gone as (delete from part_b where id % 2 = 0 returning *) insert into part_a select id, 'w2', uid, parent_version_id, updated_at from gone",
        ),
        (
            "an update that a trigger sends elsewhere",
            "create function elsewhere() returns trigger language plpgsql as $$ begin new.workspace_id = 'moved'; return new; end $$; create trigger elsewhere before update on saved_run for each row execute function elsewhere(); update saved_run set uid = 'u5' where workspace_id = 'w4'; drop trigger elsewhere on saved_run",
        ),
        ("a truncate of a partition", "truncate part_b"),
        ("a truncate of a partition of partitions", "truncate part_a"),
    ];
    for (what, statement) in steps {
        followed.app(statement).await;
        followed.assert_exact(what).await;
    }
}

/// However many keys change, both the old ones and the new ones.
#[tokio::test]
async fn updates_of_keys_of_every_size_are_noted_whole() {
    for (key_type, key, other) in [
        ("bigint", "n", "id + 10000"),
        ("uuid", "md5(n::text)::uuid", "md5(id::text)::uuid"),
        ("text", "'k' || n", "'other ' || id"),
    ] {
        let layout = Layout {
            key_type,
            after: "partition by hash (id)",
            parts: "create table part_0 partition of saved_run for values with (modulus 2, remainder 0);
                    create table part_1 partition of saved_run for values with (modulus 2, remainder 1);",
            ..POSTGRES
        };
        let store = TestDb::migrated(Backend::Postgres).await;
        let setup = Setup::of(store, History::random(layout, 309, 0)).await;
        setup.recents(&["capture", "install"]).expect(0);
        let mut conn = setup.source().connect().await;
        // Around what is noted alone, and around what fills a row of the outbox, for each key type.
        for size in [1, 7, 8, 9, 16, 17, 108, 109, 259, 509, 1_300] {
            conn.execute(&format!(
                "insert into saved_run select {key}, 'w', null, 1, now() from generate_series(1, {size}) n;
                 truncate recents.outbox; update saved_run set id = {other}"
            ))
            .await;
            let noted = conn
                .texts(
                    "with noted as (select unnest(keys) as key from recents.outbox)
                     select concat_ws(' ', count(*), count(distinct key), count(r.id))
                     from noted left join saved_run r on r.id = key",
                )
                .await;
            let whole = format!("{} {} {size}", 2 * size, 2 * size);
            assert_eq!(noted, [whole], "{key_type}, {size} rows");
            conn.execute("delete from saved_run; truncate recents.outbox")
                .await;
        }
    }
}

/// PostgreSQL tells no trigger what becomes of these rows, as README and `capture status` say. Where a newer
/// one does, that is to be taken back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_a_merge_moves_untold_are_mended_by_verify_repair() {
    let followed = followed(BY_WORKSPACE, 305).await;
    let moves = "merge into saved_run r using (values ('w3', 'w5')) as s (gone, comes)
                 on s.gone = r.workspace_id when matched then update set workspace_id = s.comes";
    // The inserts are told, with the new keys among them, and not the old ones.
    let other_keys =
        "merge into saved_run r using (values ('w5', 'w3'), ('none', 'w3')) as s (gone, comes)
                      on s.gone = r.workspace_id
                      when matched then update set workspace_id = s.comes, id = id + 500000
                      when not matched then insert values (500000, s.comes, 'u1', 1, now())";
    for (merge, gone) in [(moves, "w3"), (other_keys, "w5")] {
        followed.app(merge).await;
        followed.quiet().await;
        followed.setup.recents(&["verify"]).expect(3);
        followed.setup.recents(&["verify", "--repair"]).expect(3);
        followed.assert_exact(merge).await;
        let rows = followed.setup.store.rows().await;
        assert!(rows.keys().all(|key| key.0 != gone), "{gone}: {rows:?}");
    }
    let status = |setup: &Setup| setup.json(&["capture", "status"], 0)["merge_is_untold"].clone();
    assert_eq!(status(&followed.setup), true);
    let told = followed.setup.recents(&["capture", "status"]).expect(0);
    assert!(
        told.out.contains("hint       a MERGE that moves rows"),
        "{told:?}"
    );
    let whole = plain(TestDb::migrated(Backend::Postgres).await, 306, 10).await;
    assert_eq!(status(&whole.setup), false, "it has no partitions");
}

/// What is done to the tables themselves fires no trigger: install, then repair, as README says.
async fn mended(followed: &Followed, change: &str, is_covered: bool) {
    followed.app(change).await;
    let status = |code| followed.setup.recents(&["capture", "status"]).expect(code);
    status(if is_covered { 0 } else { 1 });
    followed.setup.recents(&["capture", "install"]).expect(0);
    status(0);
    followed.quiet().await;
    followed.setup.recents(&["verify"]).expect(3);
    followed.setup.recents(&["verify", "--repair"]).expect(3);
    followed.assert_exact(change).await;
}

async fn parts_come_and_go(layout: Layout, seed: u64, detach: &str, attach: &str) {
    let followed = followed(layout, seed).await;
    mended(&followed, detach, false).await;
    // On its own it is none of ours.
    followed
        .app("update part set workspace_id = 'elsewhere', id = id + 10000 where id % 3 = 0")
        .await;
    followed.assert_exact("changed while it was apart").await;
    mended(&followed, attach, false).await;
    for statement in [
        "update part set workspace_id = 'back' where id % 2 = 0",
        "update saved_run set uid = 'u7', id = id + 20000 where id % 5 = 0",
        "delete from part where id % 3 = 1",
    ] {
        followed.app(statement).await;
        followed.assert_exact(statement).await;
    }
    // Away and back with its triggers on.
    let changed = "update part set workspace_id = 'changed' where id % 7 = 0";
    let away_and_back = format!("begin; {detach}; {changed}; {attach}; commit");
    followed.app(&away_and_back).await;
    followed.setup.recents(&["capture", "status"]).expect(0);
    followed.assert_exact("away and back").await;
    mended(&followed, "drop table part", true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_come_and_go() {
    let detach = "alter table saved_run detach partition part";
    let attach = "alter table saved_run attach partition part default";
    parts_come_and_go(PARTITIONS, 306, detach, attach).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn children_come_and_go() {
    let detach = "alter table part no inherit saved_run";
    let attach = "alter table part inherit saved_run";
    parts_come_and_go(CHILDREN, 307, detach, attach).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_partition_is_followed_through_its_parent_at_once_and_directly_when_installed() {
    let followed = followed(PARTITIONS, 308).await;
    followed
        .app("create table part_2 partition of saved_run for values from (50000) to (60000);
              insert into saved_run select 50000 + n, 'new', 'u1', n % 40, now() from generate_series(1, 50) n;
              update saved_run set workspace_id = 'newer' where id between 50000 and 50010")
        .await;
    followed.setup.recents(&["capture", "status"]).expect(1);
    followed.assert_exact("through its parent").await;
    followed.setup.recents(&["capture", "install"]).expect(0);
    followed.setup.recents(&["capture", "status"]).expect(0);
    followed
        .app("update part_2 set workspace_id = 'newest' where id % 2 = 0; delete from part_2 where id % 3 = 0")
        .await;
    followed.assert_exact("directly").await;
}
