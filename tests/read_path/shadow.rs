//! The table held against the history behind each answer.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{assert_lists, forced};
use crate::capture::followed::{Followed, quiet};
use crate::support::client::list_path;
use crate::support::history::layout::POSTGRES;
use crate::support::history::{History, Run, Setup};
use crate::support::{Backend, Server, TestDb, both, until};

both!(
    answers_come_from_the_history_and_a_wrong_table_is_counted,
    where_the_table_cannot_be_read_the_history_answers_all_the_same,
);

async fn seen(server: &Server, result: &str) -> f64 {
    let sample = format!(r#"recents_shadow_reads_total{{result="{result}"}}"#);
    server.metric(&sample).await
}

async fn answers_come_from_the_history_and_a_wrong_table_is_counted(db: TestDb) {
    let setup = Setup::plain(db, 11, 300).await;
    setup.recents(&["backfill"]).expect(0);
    let server = forced(&setup, "shadow").await;
    for result in ["match", "mismatch", "error"] {
        assert_eq!(seen(&server, result).await, 0.0, "there from the start");
    }
    assert_lists(&server, &setup.history.rows(), "a right table").await;
    until("right lists are counted", async || {
        (seen(&server, "match").await > 0.0).then_some(())
    })
    .await;
    assert_eq!(seen(&server, "mismatch").await, 0.0);
    let lists = super::lists_of(&setup.history.rows());
    let ((workspace, _), items) = lists
        .iter()
        .find(|((_, uid), items)| uid.is_empty() && items.len() > 2)
        .expect("a list");
    let first = &items[0].0;
    let of_first = format!("workspace = '{workspace}' and uid = '' and published_run = '{first}'");
    let (micro, row) = match setup.store.backend {
        Backend::Postgres => (
            "interval '1 microsecond'",
            "timestamptz '2023-11-14 22:13:21Z', 'no-such-run'",
        ),
        Backend::Sqlite => ("1", "1700000001000000, 'no-such-run'"),
    };
    let table = "{recents}recent_workflow";
    let columns = "(workspace, uid, published_run, last_used_at, run)";
    let invented = format!("insert into {table} {columns} values ('{workspace}', '', 'p~', {row})");
    for (planted, removed) in [
        (
            format!("update {table} set last_used_at = last_used_at - {micro} where {of_first}"),
            format!("update {table} set last_used_at = last_used_at + {micro} where {of_first}"),
        ),
        (
            format!("update {table} set last_used_at = last_used_at + {micro} where {of_first}"),
            format!("update {table} set last_used_at = last_used_at - {micro} where {of_first}"),
        ),
        (
            invented,
            format!("delete from {table} where published_run = 'p~'"),
        ),
    ] {
        setup.store.execute(&planted).await;
        let before = seen(&server, "mismatch").await;
        let path = format!("{}?limit=100", list_path(workspace, None));
        let answer = server.public.get(&path).await.expect(200).json();
        let shown = super::shown(items);
        assert_eq!(answer["recent_workflows"], serde_json::Value::from(shown));
        until(&planted, async || {
            (seen(&server, "mismatch").await == before + 1.0).then_some(())
        })
        .await;
        setup.store.execute(&removed).await;
    }
    server
        .log
        .message("a list of the table is not what the history says")
        .await;
}

async fn where_the_table_cannot_be_read_the_history_answers_all_the_same(db: TestDb) {
    let setup = Setup::plain(db, 12, 100).await;
    let server = forced(&setup, "shadow").await;
    let drop = match setup.store.backend {
        Backend::Postgres => "drop table recents.recent_workflow cascade",
        Backend::Sqlite => "drop view if exists recent_workflows; drop table recent_workflow",
    };
    setup.store.execute(drop).await;
    assert_lists(&server, &setup.history.rows(), "without a table").await;
    until("errors are counted", async || {
        (seen(&server, "error").await > 0.0).then_some(())
    })
    .await;
    assert_eq!(seen(&server, "mismatch").await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_no_list_is_taken_for_wrong() {
    let setup = Setup::of(
        TestDb::migrated(Backend::Postgres).await,
        History::random(POSTGRES, 13, 300),
    )
    .await;
    setup.recents(&["capture", "install"]).expect(0);
    setup.recents(&["backfill"]).expect(0);
    let server = forced(&setup, "shadow").await;
    let followed = Followed { setup, server };
    let done = AtomicBool::new(false);
    let write = async {
        for at in 0..600 {
            let run = Run::new(
                10_000 + at,
                ["w1", "w2"][at as usize % 2],
                at % 40,
                50_000_000 + at,
            );
            let run = run.by(["u1", "u2"][at as usize / 7 % 2]);
            followed.app(&followed.setup.history.insert(&[run])).await;
            if at % 5 == 4 {
                let gone = format!("delete from saved_run where id = {}", 10_000 + at - 2);
                followed.app(&gone).await;
            }
        }
        done.store(true, Ordering::SeqCst);
    };
    let read = async {
        while !done.load(Ordering::SeqCst) {
            for (workspace, uid) in [("w1", None), ("w2", Some("u1")), ("w2", None)] {
                let path = list_path(workspace, uid);
                followed.server.public.get(&path).await.expect(200);
            }
        }
    };
    tokio::join!(write, read);
    quiet(&followed.setup).await;
    let path = list_path("w1", None);
    until("answers were compared to the end", async || {
        let before = seen(&followed.server, "match").await;
        followed.server.public.get(&path).await.expect(200);
        until("one more", async || {
            (seen(&followed.server, "match").await > before).then_some(())
        })
        .await;
        Some(())
    })
    .await;
    assert_eq!(seen(&followed.server, "mismatch").await, 0.0);
    assert_eq!(seen(&followed.server, "error").await, 0.0);
    assert!(seen(&followed.server, "match").await > 100.0);
}
