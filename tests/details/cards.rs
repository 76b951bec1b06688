//! What becomes of a row.

use recents::details::Detail;
use serde_json::json;

use super::{LONG, Setup, card};
use crate::support::{Backend, TestDb, both};

both!(
    every_kind_of_column_becomes_json,
    a_row_that_was_not_asked_for_is_ignored_and_the_first_of_two_counts,
    ids_may_be_numbers,
    a_query_may_end_as_queries_do,
);

async fn every_kind_of_column_becomes_json(db: TestDb) {
    let (columns, expected) = match db.backend {
        Backend::Postgres => (
            r#"id, null as nothing, 9007199254740993 as whole, 1.50 as numeric, 0.1::float8 as real,
               true as yes, E'"tü\n🦀\\' as text, '{"a":[1,null]}'::jsonb as json,
               timestamptz '2026-11-20 11:00:00.123456+01' as time, date '2026-11-20' as date,
               array[1, 2] as list, 'NaN'::float8 as nan, '\x00ff'::bytea as bytes, '' as empty"#,
            r#"{"nothing":null,"whole":9007199254740993,"numeric":1.50,"real":0.1,"yes":true,
                "text":"\"tü\n🦀\\","json":{"a":[1,null]},"time":"2026-11-20T10:00:00.123456+00:00",
                "date":"2026-11-20","list":[1,2],"nan":"NaN","bytes":"\\x00ff","empty":""}"#,
        ),
        Backend::Sqlite => (
            r#"id, null as "nothing", 9007199254740993 as whole, 0.1 as real, 1e999 as much,
               '"tü' || char(10) || '🦀\' as text, x'00ff' as bytes, '' as empty,
               cast(x'ff' as text) as garbled"#,
            r#"{"nothing":null,"whole":9007199254740993,"real":0.1,"much":"Infinity",
                "text":"\"tü\n🦀\\","bytes":"\\x00ff","empty":"","garbled":"�"}"#,
        ),
    };
    let query = Setup::query(&db, columns);
    let setup = Setup::with(db, 1, &query, LONG).await;
    let expected: serde_json::Value = serde_json::from_str(expected).expect("JSON");
    assert_eq!(setup.card("0").await, expected);
    let answers = setup.details.of(&["0"]).await;
    let Detail::Card(text) = answers.get("0") else {
        panic!("{answers:?}")
    };
    assert!(
        text.contains("9007199254740993"),
        "numbers stay exact: {text}"
    );
}

async fn a_row_that_was_not_asked_for_is_ignored_and_the_first_of_two_counts(db: TestDb) {
    // Whatever is asked for, there are two rows of `0`, one of `1`, and one of nothing.
    let array = match db.backend {
        Backend::Postgres => "cardinality($1) > 0",
        Backend::Sqlite => "json_array_length($1) > 0",
    };
    let query = format!(
        "select * from (select 1 as place, '0' as published_run union all select 3, '1'
             union all select 2, '0' union all select 4, null) as all_of_them
         where {array} order by place"
    );
    let setup = Setup::with(db, 0, &query, LONG).await;
    let answers = setup.details.of(&["0", "2"]).await;
    assert_eq!(card(answers.get("0")), json!({"place": 1}));
    assert_eq!(*answers.get("2"), Detail::Gone);
    assert_eq!(*answers.get("1"), Detail::Unknown, "it was not asked for");
    let before = setup.sent();
    assert_eq!(setup.card("1").await, json!({"place": 3}));
    assert_eq!(
        setup.sent(),
        before + 1,
        "what was not asked for is not remembered"
    );
}

async fn ids_may_be_numbers(db: TestDb) {
    db.execute("create table numbered (id integer primary key); insert into numbered values (7)")
        .await;
    let query = match db.backend {
        Backend::Postgres => {
            "select id as published_run, id + 1 as next from numbered where id = any($1::int[])"
        }
        Backend::Sqlite => {
            "select id as published_run, id + 1 as next from numbered
             where id in (select value from json_each($1))"
        }
    };
    let setup = Setup::with(db, 0, query, LONG).await;
    let answers = setup.details.of(&["7", "8"]).await;
    assert_eq!(card(answers.get("7")), json!({"next": 8}));
    assert_eq!(*answers.get("8"), Detail::Gone);
}

async fn a_query_may_end_as_queries_do(db: TestDb) {
    let query = Setup::query(&db, "id, title");
    let mut setup = Setup::with(db, 1, &format!("\n{query} -- the end\n;\n"), LONG).await;
    assert_eq!(setup.card("0").await, json!({"title": "t"}));
    for end in [" ;", "; ", " -- the end"] {
        setup.db.execute("drop table workflow").await;
        setup = Setup::with(setup.db, 1, &format!("{query}{end}"), LONG).await;
        assert_eq!(setup.card("0").await, json!({"title": "t"}));
    }
}
