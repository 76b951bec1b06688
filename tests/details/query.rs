//! The query is tried once, before anybody relies on it.

use std::sync::Arc;
use std::time::Duration;

use recents::config::DetailsConfig;
use recents::details::{Detail, Details, DetailsError};
use serde_json::json;

use super::{LONG, Setup, card};
use crate::support::client::list_path;
use crate::support::cluster::temp_dir;
use crate::support::command::{command, run};
use crate::support::uses::body_of;
use crate::support::{Backend, Cluster, Server, TestDb, Use, both, until};

both!(
    a_server_with_a_query_that_its_database_refuses_ends_with_2_and_says_why,
    the_query_runs_on_the_historys_database,
);

fn listed(backend: Backend) -> &'static str {
    match backend {
        Backend::Postgres => "= any($1)",
        Backend::Sqlite => "in (select value from json_each($1))",
    }
}

async fn a_server_with_a_query_that_its_database_refuses_ends_with_2_and_says_why(db: TestDb) {
    db.execute("create table workflow (id bigint primary key, title text)")
        .await;
    let listed = listed(db.backend);
    let mut queries = vec![
        (
            format!("select title from workflow where title {listed}"),
            "published_run",
        ),
        (
            format!("select id as published_run from workflows where title {listed}"),
            "workflows",
        ),
        (
            format!("select id as published_run frm workflow where title {listed}"),
            "syntax error",
        ),
        (
            format!("select title as published_run from workflow where title {listed} and id = $2"),
            "takes 2 parameters",
        ),
    ];
    // What only running it shows.
    queries.push(match db.backend {
        Backend::Postgres => (
            format!(
                "select title as published_run from workflow
                 where title {listed} and id = nextval('nosuch'::text)"
            ),
            "nosuch",
        ),
        Backend::Sqlite => (
            format!(
                "select title as published_run from workflow where title {listed} limit json('{{')"
            ),
            "malformed JSON",
        ),
    });
    if db.backend == Backend::Postgres {
        // Its ids are compared with texts.
        queries.push((
            "select id as published_run from workflow where id = any($1)".into(),
            "bigint = text",
        ));
    }
    for (query, said) in queries {
        let mut server = Server::spawn(&db.url, &["--details-query", &query]).await;
        assert_eq!(server.ended().await.code(), Some(2), "{query}");
        let last = until("it says why", async || {
            let lines = server.log.lines();
            lines.into_iter().find(|line| line.starts_with("recents: "))
        })
        .await;
        assert!(last.starts_with("recents: details.query: "), "{last}");
        assert!(last.contains(said), "{said}: {last}");
    }
}

/// One that fails takes all that is asked for together along.
#[tokio::test]
async fn the_documented_query_leaves_out_what_it_cannot_read() {
    let readme = std::fs::read_to_string("README.md").expect("the README");
    let (_, query) = readme
        .split_once("[details]\n   query = \"\"\"")
        .expect("an example");
    let (query, _) = query.split_once("\"\"\"").expect("its end");
    let db = TestDb::migrated(Backend::Postgres).await;
    db.execute(
        "create schema app;
         create table app.workflow (id bigint primary key, title text, icon text, deleted_at date);
         insert into app.workflow values (1, 't', 'i', null), (2, 't', 'i', now())",
    )
    .await;
    let setup = Setup::with(db, 0, query, LONG).await;
    let asked = ["1", "2", "abc", "99999999999999999999", "-1", "1.5", ""];
    let answers = setup.details.of(&asked).await;
    assert_eq!(card(answers.get("1")), json!({"title": "t", "icon": "i"}));
    for other in &asked[1..] {
        assert_eq!(*answers.get(other), Detail::Gone, "{other}");
    }
}

#[test]
fn a_query_that_does_not_ask_for_anything_is_refused_without_a_database() {
    let dir = temp_dir();
    let mut check = command(dir.path());
    check.args([
        "config",
        "check",
        "--details-query",
        "select id as published_run from workflow",
    ]);
    let ended = run(&mut check).expect(2);
    assert!(
        ended
            .one_line()
            .starts_with("details.query: does not use $1"),
        "{}",
        ended.err
    );
}

async fn the_query_runs_on_the_historys_database(db: TestDb) {
    let history = TestDb::empty(db.backend).await;
    history
        .execute(
            "create table run (id text primary key); create table workflow (id text primary key)",
        )
        .await;
    let query = format!(
        "select id as published_run from workflow where id {}",
        listed(db.backend)
    );
    let mapping = "select id as run, '1' as workspace, null as uid, '2' as published_run,
                   {time} as last_used_at from runs";
    let mapping = mapping.replace(
        "{time}",
        match db.backend {
            Backend::Postgres => "timestamptz '2026-01-01'",
            Backend::Sqlite => "1700000000000000",
        },
    );
    let there = [
        "--history-url",
        &history.url,
        "--history-table",
        "run",
        "--history-key",
        "id",
        "--history-query",
        &mapping,
        "--details-query",
        &query,
    ];
    let dir = temp_dir();
    let mut check = command(dir.path());
    check.args(["config", "check"]).args(there);
    run(&mut check).expect(0);
    // Where there is no history, it is not in the table's database.
    let mut alone = Server::spawn(&db.url, &there[8..]).await;
    assert_eq!(alone.ended().await.code(), Some(2));
    let with_history = Server::with(&db.url, &there).await;
    with_history
        .log
        .message("the query of the details was tried")
        .await;
}

#[tokio::test]
async fn a_right_that_is_missing_costs_the_details_and_no_list() {
    let mut db = TestDb::migrated(Backend::Postgres).await;
    db.execute("create table workflow (id text primary key, title text); insert into workflow values ('p', 't')")
        .await;
    let grants = [
        "grant usage on schema recents to %",
        "grant all on all tables in schema recents to %",
    ];
    let url = db.role(&grants).await;
    let query = "select id as published_run, title from workflow where id = any($1)";
    let server = Server::with(&url, &["--details-query", query]).await;
    let told = server
        .log
        .message("the query of the details cannot be tried yet; trying again")
        .await;
    assert!(told["error"].to_string().contains("grant"), "{told}");
    server
        .public
        .post("/v1/runs", &body_of(&[Use::new("w", "p", 1)]))
        .await
        .expect(200);
    let path = list_path("w", None) + "?expand=details";
    let without = server.public.get(&path).await.expect(200);
    assert_eq!(without.published_runs(), ["p"]);
    assert_eq!(without.header("recents-details"), Some("unavailable"));
    db.execute("grant select on workflow to public").await;
    server
        .log
        .message("the query of the details was tried")
        .await;
    let with = server.public.get(&path).await.expect(200).json();
    assert_eq!(
        with["recent_workflows"][0]["details"],
        json!({"title": "t"})
    );
}

#[tokio::test]
async fn nothing_is_written_by_it() {
    let db = TestDb::migrated(Backend::Postgres).await;
    db.execute(
        "create function public.spoil(id text) returns text language plpgsql as $$
             begin update public.workflow set title = 'spoilt'; return id; end $$",
    )
    .await;
    let query = Setup::query(&db, "id, public.spoil(id) as spoilt");
    let setup = Setup::with(db, 1, &query, LONG).await;
    setup.details.of(&["0"]).await;
    let titles = setup
        .db
        .connect()
        .await
        .texts("select title from workflow")
        .await;
    assert_eq!(titles, ["t"]);
    assert_eq!(setup.metrics.details_failures.get(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_away_is_waited_for_and_its_details_are_unknown_until_then() {
    let cluster = Cluster::start();
    let db = TestDb::apart(&cluster.url).await;
    let setup = Setup::of(db, 1).await;
    cluster.crash();
    let config = DetailsConfig {
        url: cluster.url.clone(),
        query: Setup::query(&setup.db, "id, title"),
        ttl: LONG,
    };
    let (settings, metrics) = (Arc::clone(&setup.settings), Arc::clone(&setup.metrics));
    let details = Arc::new(Details::open(&config, settings, metrics).expect("a good url"));
    let checking = tokio::spawn({
        let details = Arc::clone(&details);
        async move { details.check().await }
    });
    let started = std::time::Instant::now();
    let answers = details.of(&["0"]).await;
    assert_eq!(*answers.get("0"), recents::details::Detail::Unknown);
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
    assert!(!checking.is_finished());
    cluster.restart();
    let checked: Result<(), DetailsError> = checking.await.expect("no panic");
    checked.expect("a good query");
    assert_eq!(
        card(details.of(&["0"]).await.get("0")),
        json!({"title": "t"})
    );
}
