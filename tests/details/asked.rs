//! How often the application's database is asked.

use std::time::{Duration, Instant};

use recents::details::Detail;
use recents::settings::DetailsMode;
use serde_json::json;

use super::{LONG, Setup, ids};
use crate::support::{Backend, TestDb, both, until};

both!(
    a_thousand_ids_are_one_statement_however_often_each_is_named,
    what_is_known_is_not_asked_again_also_that_there_is_none,
    what_is_known_is_as_old_as_the_ttl_at_the_most,
    what_is_forgotten_is_asked_again,
    per_item_is_a_statement_an_item_and_off_is_none,
    a_part_that_fails_is_unknown_and_drops_no_card,
    what_takes_too_long_is_unknown_and_ends,
);

async fn a_thousand_ids_are_one_statement_however_often_each_is_named(db: TestDb) {
    let setup = Setup::of(db, 5_000).await;
    let mut from = 0;
    for (count, statements) in [(1, 1), (1_000, 1), (1_001, 2), (2_500, 3)] {
        let mut asked = ids(from..from + count);
        from += count;
        asked.extend_from_within(..);
        let before = setup.sent();
        let answers = setup.ask(&asked).await;
        assert_eq!(setup.sent() - before, statements, "{count} ids");
        for id in &asked {
            let expected = json!({"title": format!("Title of {id}")});
            assert_eq!(super::card(answers.get(id)), expected);
        }
    }
    let before = setup.sent();
    setup.ask(&[]).await;
    assert_eq!(setup.sent(), before, "nothing is asked for nothing");
}

async fn what_is_known_is_not_asked_again_also_that_there_is_none(db: TestDb) {
    let setup = Setup::of(db, 10).await;
    let asked = ids(0..20);
    for _ in 0..3 {
        let answers = setup.ask(&asked).await;
        assert_eq!(*answers.get("10"), Detail::Gone);
        assert!(matches!(answers.get("9"), Detail::Card(_)));
    }
    assert_eq!(setup.sent(), 1);
    // Only what is new is asked for.
    setup
        .db
        .execute("insert into workflow values ('20', 't')")
        .await;
    assert!(matches!(
        setup.ask(&ids(0..21)).await.get("20"),
        Detail::Card(_)
    ));
    assert_eq!(setup.sent(), 2);
}

async fn what_is_known_is_as_old_as_the_ttl_at_the_most(db: TestDb) {
    let query = Setup::query(&db, "id, title");
    let setup = Setup::with(db, 1, &query, Duration::from_millis(50)).await;
    assert_eq!(setup.card("0").await, json!({"title": "t"}));
    assert_eq!(*setup.details.of(&["1"]).await.get("1"), Detail::Gone);
    let change = "update workflow set title = 'new'; insert into workflow values ('1', 'back')";
    setup.db.execute(change).await;
    until("what changed is seen", async || {
        let answers = setup.details.of(&["0", "1"]).await;
        let (one, other) = (super::card(answers.get("0")), answers.get("1"));
        (one["title"] == "new" && matches!(other, Detail::Card(_))).then_some(())
    })
    .await;
}

async fn what_is_forgotten_is_asked_again(db: TestDb) {
    let query = Setup::query(&db, "id, title");
    let setup = Setup::with(db, 2, &query, LONG).await;
    let titles = async || {
        let answers = setup.details.of(&["0", "1"]).await;
        ["0", "1"].map(|id| super::card(answers.get(id))["title"].clone())
    };
    assert_eq!(titles().await, ["t", "t"]);
    setup.db.execute("update workflow set title = 'new'").await;
    assert_eq!(titles().await, ["t", "t"], "it is remembered");
    setup.details.forget("0");
    assert_eq!(titles().await, ["new", "t"]);
    setup.details.forget_all();
    assert_eq!(titles().await, ["new", "new"]);
}

async fn per_item_is_a_statement_an_item_and_off_is_none(db: TestDb) {
    let setup = Setup::of(db, 50).await;
    let asked = ids(0..60);
    setup.mode(DetailsMode::Off).await;
    let answers = setup.ask(&asked).await;
    assert!(asked.iter().all(|id| *answers.get(id) == Detail::Unknown));
    assert_eq!(setup.sent(), 0);
    let mut found = Vec::new();
    for (mode, statements) in [(DetailsMode::Batched, 1), (DetailsMode::PerItem, 60)] {
        setup.mode(mode).await;
        setup.details.forget_all();
        let before = setup.sent();
        let answers = setup.ask(&asked).await;
        assert_eq!(setup.sent() - before, statements, "{mode:?}");
        found.push(
            asked
                .iter()
                .map(|id| answers.get(id).clone())
                .collect::<Vec<_>>(),
        );
    }
    assert_eq!(found[0], found[1], "the answers are the same");
    assert_eq!(
        found[0]
            .iter()
            .filter(|detail| **detail == Detail::Gone)
            .count(),
        10
    );
}

/// A column that takes the whole statement with it where the workflow `bad` is among those asked for.
fn poison(backend: Backend) -> &'static str {
    match backend {
        Backend::Postgres => "case when id = 'bad' then cast(title as int) end",
        Backend::Sqlite => "case when id = 'bad' then json(title) end",
    }
}

async fn a_part_that_fails_is_unknown_and_drops_no_card(db: TestDb) {
    let query = Setup::query(&db, &format!("id, {} as poison", poison(db.backend)));
    let setup = Setup::with(db, 2_500, &query, LONG).await;
    setup
        .db
        .execute("insert into workflow values ('bad', 'x')")
        .await;
    let mut asked = ids(0..2_999);
    asked.insert(1_500, "bad".into());
    let answers = setup.ask(&asked).await;
    for (at, id) in asked.iter().enumerate() {
        let detail = answers.get(id);
        match at {
            1_000..2_000 => assert_eq!(*detail, Detail::Unknown, "{id}"),
            2_501.. => assert_eq!(*detail, Detail::Gone, "{id}"),
            _ => assert!(matches!(detail, Detail::Card(_)), "{id}: {detail:?}"),
        }
    }
    assert_eq!(setup.metrics.details_failures.get(), 1);
    setup
        .db
        .execute("delete from workflow where id = 'bad'")
        .await;
    let (before, answers) = (setup.sent(), setup.ask(&asked).await);
    assert_eq!(
        setup.sent() - before,
        1,
        "only what failed is asked for again"
    );
    assert_eq!(*answers.get("bad"), Detail::Gone);
    assert!(matches!(answers.get("1500"), Detail::Card(_)));
}

async fn what_takes_too_long_is_unknown_and_ends(db: TestDb) {
    let slow = match db.backend {
        Backend::Postgres => "(select 'slept' from pg_sleep(600))",
        Backend::Sqlite => {
            "(with recursive n(n) as (select 1 union all select n + 1 from n) select max(n) from n)"
        }
    };
    let column = format!("case when id = 'slow' then {slow} end");
    let query = Setup::query(&db, &format!("id, {column} as slow"));
    let setup = Setup::with(db, 10, &query, LONG).await;
    setup
        .db
        .execute("insert into workflow values ('slow', 't')")
        .await;
    let started = Instant::now();
    // As many as there are connections.
    let all: Vec<_> = (0..4)
        .map(|n| {
            let details = std::sync::Arc::clone(&setup.details);
            tokio::spawn(async move {
                let own = format!("own{n}");
                details.forget("slow");
                details.of(&["slow", &own]).await.get("slow").clone()
            })
        })
        .collect();
    for one in all {
        assert_eq!(one.await.expect("an answer"), Detail::Unknown);
    }
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
    assert!(setup.metrics.details_failures.get() >= 1);
    // None of them goes on: the connections are free again.
    let asked = ids(0..10);
    until("details can be loaded again", async || {
        let answers = setup.ask(&asked).await;
        matches!(answers.get("9"), Detail::Card(_)).then_some(())
    })
    .await;
    if setup.db.backend == Backend::Postgres {
        let mut conn = setup.db.connect().await;
        let active = "select count(*)::text from pg_stat_activity
                      where query like '%pg_sleep(600)%' and state = 'active'
                        and datname = current_database() and pid <> pg_backend_pid()";
        until("no statement goes on", async || {
            (conn.texts(active).await == ["0"]).then_some(())
        })
        .await;
    }
}
