//! Lists out of the history itself.

use super::{assert_lists, forced};
use crate::capture::followed::{serve_on, serve_with};
use crate::support::client::list_path;
use crate::support::history::layout::{ALL, Layout, POSTGRES};
use crate::support::history::{At, History, Run, Setup};
use crate::support::{Backend, Server, TestDb, both};

both!(
    the_history_answers_in_every_layout_as_its_table_would,
    what_is_dismissed_is_hidden_in_the_history_too,
    what_only_the_history_has_is_dismissed_too,
    with_the_tables_dropped_lists_come_from_the_history,
    lists_come_from_the_history_until_the_first_backfill_succeeded,
    what_the_application_changed_is_seen_at_once,
);

async fn the_history_answers_in_every_layout_as_its_table_would(db: TestDb) {
    let layouts = ALL
        .into_iter()
        .filter(|layout| layout.backend == db.backend);
    for (seed, layout) in (1..).zip(layouts) {
        let store = TestDb::migrated(layout.backend).await;
        let setup = Setup::of(store, History::random(layout, seed, 400)).await;
        let server = forced(&setup, "history").await;
        assert_lists(&server, &setup.history.rows(), layout.name).await;
        // Nobody has used anything there, or nobody could.
        for path in [list_path("unknown", None), list_path("1", Some("u\u{e9}'"))] {
            let answer = server.public.get(&path).await.expect(200);
            assert!(answer.published_runs().is_empty(), "{}", layout.name);
        }
    }
}

/// What is no use is no item, also where it would be the greatest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_that_are_no_use_make_no_item() {
    let layout = Layout {
        key_type: "text",
        ..POSTGRES
    };
    let good = vec![Run::new("k1", "w", 1, 0).by("u"), Run::new("k2", "w", 2, 5)];
    let history = History::of(layout, good);
    let expected = history.rows();
    let mut all = history.clone();
    let never = |key: &str, text| Run {
        at: Some(At::Never(text)),
        ..Run::new(key, "w", 1, 0)
    };
    all.runs.extend([
        never("k3", "infinity"),
        never("k4", "-infinity"),
        never("k5", "12000-01-01 00:00:00Z"),
        never("k6", "1969-12-31 23:59:59Z"),
        Run::new("a\nb", "w", 1, 100),
        Run::new("a\u{85}b", "w", 1, 100),
        Run::new("x".repeat(129), "w", 1, 100),
        Run::new("é".repeat(65), "w", 1, 100),
        Run::new("..", "w", 1, 100),
    ]);
    for (at, bad) in (100..).zip(["", ".", "a\u{7f}", &"y".repeat(129)]) {
        all.versions.insert(at, Some(bad.into()));
        all.runs.push(Run::new(format!("v{at}"), "w", at, 100));
    }
    let setup = Setup::of(TestDb::migrated(Backend::Postgres).await, all).await;
    let server = forced(&setup, "history").await;
    assert_lists(&server, &expected, "only uses").await;
    // As the table has it.
    setup.recents(&["backfill"]).expect(0);
    let table = forced(&setup, "materialized").await;
    assert_lists(&table, &expected, "the table").await;
}

/// PostgreSQL expects hardly any of a workspace's runs to be valid, and so may join them by loops, as it must
/// here: a join of a list's runs with its workflows would take longer than a list may.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_many_workflows_costs_no_more_than_in_proportion() {
    const WORKFLOWS: i64 = 16_000;
    let runs = (0..WORKFLOWS).map(|at| Run::new(at, "w", at, at).by("u"));
    let history = History::of(POSTGRES, runs.collect());
    let setup = Setup::of(TestDb::migrated(Backend::Postgres).await, history).await;
    let mut conn = setup.source().connect().await;
    for statement in [
        "create index on saved_run (parent_version_id)",
        "analyze",
        "do $$ begin
             execute format('alter database %I set enable_hashjoin = off', current_database());
             execute format('alter database %I set enable_mergejoin = off', current_database());
         end $$",
    ] {
        conn.execute(statement).await;
    }
    let server = forced(&setup, "history").await;
    for uid in [None, Some("u")] {
        let path = list_path("w", uid);
        let found = server.public.get(&path).await.expect(200).published_runs();
        assert_eq!(found, ["p15999", "p15998", "p15997", "p15996"], "{path}");
    }
}

/// The table does not hold it yet, and the server's clock is behind.
async fn what_only_the_history_has_is_dismissed_too(db: TestDb) {
    let setup = Setup::plain(db, 8, 0).await;
    let ahead = recents::model::Time::now().micros() + 3_600_000_000;
    let run = |at: i64| Run {
        at: Some(At::Micros(ahead + at)),
        ..Run::new(at, "w", 1_000 + at, 0).by("u")
    };
    for at in 0..3 {
        let version = format!(
            "insert into saved_run_version values ({}, 'p{at}')",
            1_000 + at
        );
        setup.source().execute(&version).await;
        let run = setup.history.insert(&[run(at)]);
        setup.source().execute(&run).await;
    }
    let server = serve_with(&setup, &[]).await;
    let seen = async |uid| {
        server
            .public
            .get(&list_path("w", uid))
            .await
            .expect(200)
            .published_runs()
    };
    assert_eq!(seen(None).await, ["p2", "p1", "p0"]);
    let delete = async |path: String| {
        let nothing = hyper::body::Bytes::new();
        server
            .public
            .send("DELETE", &path, &[], nothing)
            .await
            .expect(204)
    };
    delete(format!("{}/p2", list_path("w", None))).await;
    assert_eq!(seen(None).await, ["p1", "p0"]);
    setup.recents(&["dismiss", "w", "p1"]).expect(0);
    assert_eq!(seen(None).await, ["p0"]);
    delete(list_path("w", Some("u"))).await;
    assert!(seen(Some("u")).await.is_empty());
    setup.recents(&["backfill"]).expect(0);
    drop(server);
    let table = forced(&setup, "materialized").await;
    let list = table.public.get(&list_path("w", None)).await.expect(200);
    assert_eq!(list.published_runs(), ["p0"]);
    let list = table
        .public
        .get(&list_path("w", Some("u")))
        .await
        .expect(200);
    assert!(list.published_runs().is_empty());
}

async fn what_is_dismissed_is_hidden_in_the_history_too(db: TestDb) {
    let setup = Setup::plain(db, 7, 300).await;
    setup.recents(&["backfill"]).expect(0);
    let (table, history) = (
        forced(&setup, "materialized").await,
        forced(&setup, "history").await,
    );
    let lists = super::lists_of(&setup.history.rows());
    let list =
        |workspace: &str, uid: &str| list_path(workspace, Some(uid).filter(|uid| !uid.is_empty()));
    let mut targets = Vec::new();
    for (at, ((workspace, uid), items)) in lists.iter().enumerate() {
        let path = list(workspace, uid);
        match at % 3 {
            0 => targets.push(path),
            1 => targets.push(format!("{path}/{}", items[0].0)),
            _ => {}
        }
    }
    targets.push(format!("/v1/published-runs/{}", "p3"));
    for target in targets {
        let nothing = hyper::body::Bytes::new();
        let answer = table.public.send("DELETE", &target, &[], nothing).await;
        answer.expect(204);
    }
    for ((workspace, uid), _) in lists {
        let path = format!("{}?limit=100", list(&workspace, &uid));
        let expected = table.public.get(&path).await.expect(200).json();
        let found = history.public.get(&path).await.expect(200).json();
        assert_eq!(found, expected, "{path}");
        let first = format!("{}?limit=1", list(&workspace, &uid));
        let found = history.public.get(&first).await.expect(200).json();
        let expected = table.public.get(&first).await.expect(200).json();
        assert_eq!(found, expected, "{first}: a page is full");
    }
}

async fn with_the_tables_dropped_lists_come_from_the_history(db: TestDb) {
    let setup = Setup::plain(db, 8, 200).await;
    setup.recents(&["backfill"]).expect(0);
    let before = forced(&setup, "history").await;
    drop_tables(&setup).await;
    assert_lists(&before, &setup.history.rows(), "dropped below it").await;
    let after = forced(&setup, "history").await;
    assert_lists(&after, &setup.history.rows(), "dropped before").await;
    let path = list_path("w1", None);
    let table = forced(&setup, "materialized").await;
    table.public.get(&path).await.expect(503);
}

/// The table's database does not even answer, and the history is in another one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_tables_database_gone_lists_come_from_a_history_elsewhere() {
    let history = History::random(POSTGRES, 14, 200);
    let setup = Setup::apart(TestDb::migrated(Backend::Postgres).await, history).await;
    let nowhere = "postgres://postgres@127.0.0.1:1/none";
    let forced = ["--force-read-path", "history"];
    // Ready, so that a balancer sends it somebody.
    let server = serve_on(nowhere, &setup, &forced).await;
    for ((workspace, uid), items) in super::lists_of(&setup.history.rows()).iter().take(3) {
        let path = list_path(workspace, Some(uid.as_str()).filter(|uid| !uid.is_empty()));
        let answer = server.public.get(&format!("{path}?limit=100")).await;
        let found = &answer.expect(200).json()["recent_workflows"];
        assert_eq!(
            *found,
            serde_json::Value::from(super::shown(items)),
            "{path}"
        );
    }
}

/// All but what the migrations themselves keep.
async fn drop_tables(setup: &Setup) {
    let mut conn = setup.store.connect().await;
    let drop = match setup.store.backend {
        Backend::Postgres => {
            "drop table recents.recent_workflow, recents.dismissal, recents.note, recents.setting,
             recents.job, recents.job_plan cascade"
        }
        Backend::Sqlite => {
            "drop view if exists recent_workflows; drop table recent_workflow; drop table dismissal;
             drop table note; drop table setting; drop table job_plan; drop table job"
        }
    };
    conn.execute(drop).await;
}

async fn lists_come_from_the_history_until_the_first_backfill_succeeded(db: TestDb) {
    let setup = Setup::plain(db, 9, 200).await;
    let server = serve_with(&setup, &[]).await;
    assert_lists(&server, &setup.history.rows(), "an empty table").await;
    assert_eq!(path_of(&server).await, "history");
    // A file has what is in it, and not the history.
    let file = setup.dir.path().join("file.csv");
    std::fs::write(&file, "workspace,published_run,last_used_at,run\n").expect("a file");
    let file = file.to_str().expect("a path");
    setup.recents(&["backfill", "--from", file]).expect(0);
    let path = setup.recents(&["settings", "get", "read_path"]).expect(0);
    assert_eq!(path.out.trim(), "history");
    setup.recents(&["backfill"]).expect(0);
    crate::support::until("it reads the table", async || {
        (path_of(&server).await == "materialized").then_some(())
    })
    .await;
    assert_lists(&server, &setup.history.rows(), "backfilled").await;
}

async fn path_of(server: &Server) -> String {
    let settings = server.admin.get("/admin/v1/settings").await.expect(200);
    settings.json()["read_path"]
        .as_str()
        .expect("a path")
        .into()
}

async fn what_the_application_changed_is_seen_at_once(db: TestDb) {
    let setup = Setup::plain(db, 10, 50).await;
    let server = forced(&setup, "history").await;
    let path = list_path("new", None);
    for at in 0..20 {
        let run = Run::new(1_000 + at, "new", at % 3, 1_000 + at);
        let mut history = setup.history.clone();
        history
            .versions
            .insert(at % 3, Some(format!("q{}", at % 3)));
        let version = format!(
            "update saved_run_version set published_run_id = 'q{}' where id = {}",
            at % 3,
            at % 3
        );
        setup.source().execute(&version).await;
        setup.source().execute(&history.insert(&[run])).await;
        let answer = server.public.get(&path).await.expect(200);
        assert_eq!(answer.published_runs()[0], format!("q{}", at % 3), "{at}");
    }
}
