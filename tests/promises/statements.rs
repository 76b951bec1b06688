//! Statements: each text is understood by both databases, and there are few.

use recents::store::Store;
use sqlx::{Executor, SqlSafeStr};

use super::fold::record;
use super::lists::scope;
use crate::support::{Backend, TestDb, Use, both};

both!(both_databases_understand_every_statement);

async fn both_databases_understand_every_statement(db: TestDb) {
    let store = db.store();
    let mut names = std::collections::BTreeSet::new();
    for statement in recents::store::statements() {
        let text = statement.text(store.dialect());
        if !statement.is_for(store.dialect()) {
            continue;
        }
        let prepared = match &store {
            Store::Postgres(pool, _) => pool.prepare(text.into_sql_str()).await.map(drop),
            Store::Sqlite(pool, _) => pool.prepare(text.into_sql_str()).await.map(drop),
        };
        prepared.unwrap_or_else(|e| panic!("{} is not understood: {e}\n{text}", statement.name));
        assert!(
            !text.contains(['{', '}']),
            "{} has a token left: {text}",
            statement.name
        );
        assert!(
            names.insert(statement.name),
            "two statements are called {}",
            statement.name
        );
    }
    assert!(
        names.contains("raise") && names.contains("read_100"),
        "{names:?}"
    );
}

#[tokio::test]
async fn requests_of_any_size_share_few_prepared_statements() {
    let db = TestDb::migrated(Backend::Postgres).await;
    // One connection, to ask it what was prepared there.
    let store = db.store_of(1);
    let recorder = super::fold::recorder_on(&store);
    for count in [1, 2, 7, 100, 999, 1_000] {
        let uses: Vec<_> = (0..count)
            .map(|i| Use::new(&format!("w{}", i % 100), &format!("p{i}"), i).by("u"))
            .collect();
        record(&recorder, &uses).await;
    }
    for count in [1, 2, 9, 10, 11, 55, 100] {
        let scopes = (0..count).map(|i| scope(&format!("w{i}"), None));
        let requests = scopes.map(|scope| recents::read::PageRequest {
            scope,
            cursor: None,
        });
        recents::read::pages(&store, requests.collect(), 4)
            .await
            .expect("pages");
    }
    let Store::Postgres(pool, _) = &store else {
        unreachable!("a PostgreSQL database")
    };
    let prepared = sqlx::query_scalar(
        "select statement from pg_prepared_statements where statement like '%recent_workflow%'
         and statement not like '%pg_prepared_statements%' order by 1",
    );
    let prepared: Vec<String> = prepared.fetch_all(pool).await.expect("the statements");
    // A process that saw something dismissed, anywhere, reads by the other of two statements.
    let name_of = |text: &String| {
        let known = recents::store::statements()
            .find(|statement| statement.text(store.dialect()) == text.as_str());
        let name = known.expect("a statement of the store").name;
        name.replace("visible_", "read_")
    };
    let mut found: Vec<_> = prepared.iter().map(name_of).collect();
    found.sort_unstable();
    found.dedup();
    let expected = [
        "raise", "read_1", "read_100", "read_16", "read_2", "read_64",
    ];
    assert_eq!(found, expected);
}
