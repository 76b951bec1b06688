//! A query with `*`, over tables whose columns change while the service runs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use recents::details::Detail;
use serde_json::json;

use super::{LONG, Setup, card, ids};
use crate::support::{Backend, TestDb, both};

both!(
    cards_have_the_columns_of_now,
    a_card_is_never_of_two_schemas_at_once,
);

/// Workflows 0 to 2, of all of whose columns the details are.
async fn setup(db: TestDb, ttl: Duration) -> Setup {
    let query = Setup::query(&db, "id, *");
    Setup::with(db, 3, &query, ttl).await
}

/// Puts a table with other columns into the place of the workflows' one.
fn rebuild(columns: &str) -> String {
    let texts = columns.replace(',', " text,");
    format!(
        "begin; create table another ({texts} text);
         insert into another ({columns}) select {columns} from workflow;
         drop table workflow; alter table another rename to workflow; commit"
    )
}

async fn cards_have_the_columns_of_now(db: TestDb) {
    let setup = setup(db, LONG).await;
    let steps = [
        ("select 1", json!({"id": "1", "title": "t"})),
        (&*rebuild("title,id"), json!({"id": "1", "title": "t"})),
        (
            "alter table workflow add column icon text default 'i'",
            json!({"id": "1", "title": "t", "icon": "i"}),
        ),
        (
            "alter table workflow drop column title",
            json!({"id": "1", "icon": "i"}),
        ),
        (
            "alter table workflow rename column icon to picture",
            json!({"id": "1", "picture": "i"}),
        ),
    ];
    for (change, expected) in steps {
        setup.db.execute(change).await;
        setup.details.forget_all();
        let answers = setup.ask(&ids(0..4)).await;
        assert_eq!(card(answers.get("1")), expected, "after: {change}");
        assert_eq!(*answers.get("3"), Detail::Gone, "after: {change}");
    }
    assert_eq!(setup.metrics.details_failures.get(), 0);
}

async fn a_card_is_never_of_two_schemas_at_once(db: TestDb) {
    const REBUILDS: usize = 100;
    let setup = setup(db, Duration::from_nanos(1)).await;
    let mut conn = setup.db.connect().await;
    conn.execute("alter table workflow add column icon text default 'i'")
        .await;
    let done = AtomicBool::new(false);
    let rebuilt = async {
        for at in 0..REBUILDS {
            conn.execute(&rebuild(["icon,id,title", "id,title,icon"][at % 2]))
                .await;
        }
        done.store(true, Ordering::Relaxed);
    };
    let asked = async {
        let mut cards = 0;
        while !done.load(Ordering::Relaxed) {
            match setup.details.of(&["1"]).await.get("1") {
                // PostgreSQL refuses a table that was dropped while its lock was waited for.
                Detail::Unknown => {}
                detail => {
                    let expected = json!({"id": "1", "title": "t", "icon": "i"});
                    assert_eq!(card(detail), expected);
                    cards += 1;
                }
            }
        }
        cards
    };
    let ((), cards) = tokio::join!(rebuilt, asked);
    assert!(cards > 0, "some were asked for in between");
}

/// The driver panics on the name of a column that is no text.
#[tokio::test]
async fn a_driver_that_panics_says_of_no_row_that_it_is_not_there() {
    let setup = setup(TestDb::migrated(Backend::Sqlite).await, LONG).await;
    setup
        .db
        .execute(
            "pragma writable_schema = on;
             update sqlite_schema set sql = replace(sql, 'title', cast(x'ff' as text))
             where name = 'workflow';
             pragma schema_version = 1000000",
        )
        .await;
    let answers = setup.ask(&ids(0..4)).await;
    for id in ids(0..4) {
        assert_eq!(*answers.get(&id), Detail::Unknown, "{id}");
    }
    assert_eq!(setup.metrics.details_failures.get(), 1);
}
