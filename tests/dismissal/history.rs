//! What a history brings back: nothing.

use crate::capture::followed::serve;
use crate::support::history::Setup;
use crate::support::uses::{Rows, T0};
use crate::support::{Backend, Beside, TestDb, both};

both!(
    neither_a_backfill_nor_a_repair_brings_back_what_was_dismissed,
    a_user_who_is_forgotten_is_gone_and_what_the_history_knows_is_told,
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
}

async fn a_user_who_is_forgotten_is_gone_and_what_the_history_knows_is_told(db: TestDb) {
    let setup = Setup::plain(db, 96, 500).await;
    setup.recents(&["backfill"]).expect(0);
    setup
        .recents(&["dismiss", "w1", "p1", "--uid", "u1"])
        .expect(0);
    let server = serve(&setup).await;
    let told = setup.recents(&["forget", "--uid", "u1"]).expect(0);
    assert!(told.err.contains("the history still knows"), "{told:?}");
    let left = names(&setup.history.rows(), |(_, u, _)| u != "u1");
    let mut conn = setup.store.connect().await;
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
