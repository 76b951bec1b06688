//! What a history brings back: nothing.

use std::collections::BTreeSet;

use crate::capture::followed::serve;
use crate::support::command::run;
use crate::support::history::Setup;
use crate::support::uses::{Rows, T0};
use crate::support::{Backend, Beside, TestDb, both};

both!(
    neither_a_backfill_nor_a_repair_brings_back_what_was_dismissed,
    a_user_who_is_forgotten_is_gone_and_what_the_history_knows_is_told,
    what_a_history_would_bring_back_is_told_to_the_item,
    a_user_is_forgotten_also_where_the_history_cannot_be_asked,
    a_hidden_row_that_nothing_supports_is_no_difference,
);

const VISIBLE: &str =
    "select workspace || '/' || uid || '/' || published_run from {recents}recent_workflows";

async fn visible(conn: &mut Beside) -> Vec<String> {
    let mut rows = conn.texts(VISIBLE).await;
    rows.sort();
    rows
}

fn names(rows: &Rows, keep: impl Fn(&(String, String, String)) -> bool) -> Vec<String> {
    let kept = rows.keys().filter(|key| keep(key));
    let mut names: Vec<_> = kept.map(|(w, u, p)| format!("{w}/{u}/{p}")).collect();
    names.sort();
    names
}

async fn neither_a_backfill_nor_a_repair_brings_back_what_was_dismissed(db: TestDb) {
    let setup = Setup::plain(db, 95, 1_000).await;
    setup.recents(&["backfill"]).expect(0);
    setup.recents(&["dismiss", "w1"]).expect(0);
    setup.recents(&["dismiss", "w2", "p3"]).expect(0);
    setup.recents(&["dismiss", "w3", "--uid", "u1"]).expect(0);
    setup.recents(&["dismiss", "--everywhere", "p5"]).expect(0);
    let left = names(&setup.history.rows(), |(w, u, p)| {
        !(w == "w1" && u.is_empty()
            || w == "w2" && u.is_empty() && p == "p3"
            || w == "w3" && u == "u1"
            || p == "p5")
    });
    let mut conn = setup.store.connect().await;
    for again in [
        &["verify"][..],
        &["verify", "--repair"],
        &["verify", "--workspace", "w1"],
        &["backfill", "--restart"],
        &["backfill", "--restart", "--one-pass"],
        &["verify"],
    ] {
        setup.recents(again).expect(0);
        assert_eq!(visible(&mut conn).await, left, "after {again:?}");
    }
    // What a newer run uses is back.
    let newer = "update saved_run set updated_at = {now} where id = (
        select min(r.id) from saved_run r join saved_run_version v on v.id = r.parent_version_id
        where r.workspace_id = 'w2' and v.published_run_id = 'p3')";
    let now = match setup.store.backend {
        Backend::Postgres => "now() + interval '1 minute'",
        Backend::Sqlite => "(unixepoch() + 60) * 1000000",
    };
    setup.source().execute(&newer.replace("{now}", now)).await;
    setup.recents(&["verify"]).expect(3);
    setup.recents(&["backfill", "--restart"]).expect(0);
    setup.recents(&["verify"]).expect(0);
    assert!(visible(&mut conn).await.contains(&"w2//p3".into()));
    // By a repair as well, of a list that was cleared, and swept.
    let newer = newer.replace("w2", "w1").replace("p3", "p2");
    setup.source().execute(&newer.replace("{now}", now)).await;
    let told = setup.recents(&["verify", "--repair"]).expect(3).out;
    assert!(
        told.contains("missing  workspace w1 published run p2"),
        "{told}"
    );
    let of_list = |name: &String| name.starts_with("w1//");
    let back: Vec<_> = visible(&mut conn)
        .await
        .into_iter()
        .filter(of_list)
        .collect();
    assert_eq!(back, ["w1//p2"]);
}

async fn a_user_who_is_forgotten_is_gone_and_what_the_history_knows_is_told(db: TestDb) {
    let setup = Setup::plain(db, 96, 500).await;
    setup.recents(&["backfill"]).expect(0);
    setup
        .recents(&["dismiss", "w1", "p1", "--uid", "u1"])
        .expect(0);
    let server = serve(&setup).await;
    // A plan names users, too.
    let mut conn = setup.store.connect().await;
    conn.execute("delete from {recents}recent_workflow where uid = 'u1' and workspace = 'w2'")
        .await;
    setup.recents(&["resync", "--all", "--dry-run"]).expect(0);
    let planned = "select uid from {recents}job_plan where uid = 'u1'";
    assert!(!conn.texts(planned).await.is_empty());
    let told = setup.json(&["forget", "--uid", "u1"], 0);
    for count in [
        "/rows",
        "/dismissals",
        "/history_knows/runs",
        "/history_knows/items",
    ] {
        let count = told.pointer(count).and_then(serde_json::Value::as_u64);
        assert!(count > Some(0), "{told}");
    }
    assert!(conn.texts(planned).await.is_empty());
    let left = names(&setup.history.rows(), |(_, u, _)| u != "u1");
    assert_eq!(visible(&mut conn).await, left);
    drop(server);
    setup
        .source()
        .execute("update saved_run set uid = null where uid = 'u1'")
        .await;
    setup.recents(&["backfill", "--restart"]).expect(0);
    assert_eq!(
        visible(&mut conn).await,
        left,
        "the history no longer knows them"
    );
    let told = setup.recents(&["forget", "--uid", "u1"]).expect(0);
    assert!(!told.err.contains("the history still knows"), "{told:?}");
}

async fn what_a_history_would_bring_back_is_told_to_the_item(db: TestDb) {
    let mut setup = Setup::plain(db, 97, 1_000).await;
    // Users are numbers.
    let number = match setup.store.backend {
        Backend::Postgres => "nullif(substr(r.uid, 2), '')::int as uid",
        Backend::Sqlite => "cast(nullif(substr(r.uid, 2), '') as integer) as uid",
    };
    setup.query = setup.query.replace("r.uid", number);
    setup.recents(&["backfill"]).expect(0);
    // They have nothing left that would name a run.
    for workspace in 0..6 {
        let workspace = format!("w{workspace}");
        setup
            .recents(&["dismiss", &workspace, "--uid", "1"])
            .expect(0);
    }
    setup.recents(&["dismiss", "--everywhere", "p5"]).expect(0);
    let of_user = "select published_run from {recents}recent_workflow where uid = '1'";
    let mut conn = setup.store.connect().await;
    assert!(conn.texts(of_user).await.is_empty());

    let told = setup.recents(&["forget", "--uid", "1"]).expect(0).err;
    let rows = setup.history.rows();
    let items: BTreeSet<_> = rows
        .keys()
        .filter(|(_, uid, published_run)| uid == "u1" && published_run != "p5")
        .collect();
    let workspaces: BTreeSet<_> = items.iter().map(|(workspace, ..)| workspace).collect();
    let runs = "select cast(count(*) as text) from saved_run r
        join saved_run_version v on v.id = r.parent_version_id
        where r.uid = 'u1' and r.workspace_id is not null and v.published_run_id is not null
          and r.updated_at is not null";
    let runs = setup.source().connect().await.texts(runs).await;
    let expected = format!(
        "{} runs of theirs: a service that audits, the next backfill or a repair brings back {} items in {} workspaces",
        runs[0],
        items.len(),
        workspaces.len()
    );
    assert!(told.contains(&expected), "{told}, not {expected}");
    setup.recents(&["backfill", "--restart"]).expect(0);
    let back = "select published_run from {recents}recent_workflows where uid = '1'";
    assert_eq!(conn.texts(back).await.len(), items.len());

    let nobody = setup.recents(&["forget", "--uid", "01"]).expect(0).err;
    assert!(nobody.contains("removed 0 rows"), "{nobody}");
    assert!(nobody.contains("the history knows nothing"), "{nobody}");
}

async fn a_user_is_forgotten_also_where_the_history_cannot_be_asked(db: TestDb) {
    let setup = Setup::plain(db, 98, 200).await;
    setup.recents(&["backfill"]).expect(0);
    let mut forget = setup.command(&["forget", "--uid", "u1"]);
    let forget = forget.env(
        "RECENTS_HISTORY_URL",
        "postgres://nobody@127.0.0.1:1/nowhere",
    );
    let told = run(forget).expect(1).err;
    assert!(told.contains("rows and 0 dismissals of the user"), "{told}");
    assert!(told.contains("cannot be read"), "{told}");
    let left = setup.store.rows().await;
    assert!(!left.is_empty() && left.keys().all(|key| key.1 != "u1"));
}

/// As when a run goes while a better one of its key is hidden: that one is not written in its place.
async fn a_hidden_row_that_nothing_supports_is_no_difference(db: TestDb) {
    let setup = Setup::plain(db, 97, 100).await;
    setup.recents(&["backfill"]).expect(0);
    let invented = ("w1".to_owned(), String::new(), "invented".to_owned());
    setup.put(&invented, &(T0, Some("1".into()))).await;
    setup.recents(&["verify"]).expect(3);
    let (until, later) = match setup.store.backend {
        Backend::Postgres => ("'2023-11-14 22:13:20Z'", "until + interval '1 microsecond'"),
        Backend::Sqlite => ("1700000000000000", "until + 1"),
    };
    // One microsecond short of it, then of it.
    setup
        .store
        .execute(&format!(
            "insert into {{recents}}dismissal values ('w1', '', 'invented', {until});
             update {{recents}}dismissal set until = {}",
            later.replace('+', "-")
        ))
        .await;
    setup.recents(&["verify"]).expect(3);
    let of_it = format!("update {{recents}}dismissal set until = {later}");
    setup.store.execute(&of_it).await;
    setup.recents(&["verify"]).expect(0);
    let planned = setup.json(&["resync", "--all", "--mode", "rebuild", "--dry-run"], 0);
    assert_eq!(planned["removed"], 0, "{planned}");
}
