//! Rows that no history could have made: named, and no trouble for the others of their batch.

use crate::support::history::layout::{self, Layout, POSTGRES};
use crate::support::history::{At, History, Run, Setup};
use crate::support::uses::T0;
use crate::support::{Backend, TestDb, both};

use super::found::key;

both!(rows_whose_ids_are_no_values_of_the_historys_types_disturb_no_others);

/// Texts that are no number of an id column, or not as it is written.
const NO_NUMBERS: [&str; 14] = [
    "abc",
    "67x",
    "",
    " 67",
    "67 ",
    "+67",
    "067",
    "67.0",
    "0x43",
    "6.7e1",
    "9223372036854775808",
    "99999999999999999999",
    "٦٧",
    "nan",
];

const UUID: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";

/// Texts that are no uuid, or not as it is written.
const NO_UUIDS: [&str; 8] = [
    "urn:uuid:67e55044-10b1-426f-9247-bb680e5fe0c8",
    "{67e55044-10b1-426f-9247-bb680e5fe0c8}",
    "67E55044-10B1-426F-9247-BB680E5FE0C8",
    "67e5504410b1426f9247bb680e5fe0c8",
    "67e5-5044-10b1-426f-9247-bb68-0e5f-e0c8",
    "67e55044-10b1-426f-9247-bb680e5fe0c",
    "67e55044-10b1-426f-9247-bb680e5fe0c8 ",
    "null",
];

/// Rows with junk in each column, each beside a row that is right and one that is wrong.
async fn put_junk(setup: &Setup, junk: &[&str], workspace: &str, published_run: &str) {
    let newest = |run: &str| (T0, Some(run.to_owned()));
    let right = setup.history.runs[0].key.clone();
    for text in junk.iter().filter(|text| !text.is_empty()) {
        setup
            .put(&key(text, "", published_run), &newest(&right))
            .await;
        setup.put(&key(workspace, "", text), &newest(&right)).await;
        setup.put(&key(workspace, text, text), &newest(text)).await;
        setup.put(&key(text, text, text), &newest(text)).await;
    }
    // Wrong ones, whose keys have uses.
    for (at, ((workspace, uid, published_run), (micros, _))) in
        setup.history.rows().iter().enumerate()
    {
        let wrong = (
            micros + at as i64 % 3 - 1,
            Some(junk[at % junk.len()].to_owned()),
        );
        if at % 2 == 0 {
            setup.put(&key(workspace, uid, published_run), &wrong).await;
        }
    }
}

async fn rows_whose_ids_are_no_values_of_the_historys_types_disturb_no_others(db: TestDb) {
    let mut layouts: Vec<_> = layout::NUMBERS
        .into_iter()
        .filter(|layout| layout.backend == db.backend)
        .collect();
    if db.backend == Backend::Postgres {
        layouts.push(Layout {
            name: "small numbers",
            key_type: "int",
            id_type: "smallint",
            ..POSTGRES
        });
        layouts.push(Layout {
            name: "uuids",
            key_type: "uuid",
            id_type: "uuid",
            ..POSTGRES
        });
        layouts.push(Layout {
            name: "text of fixed length",
            id_type: "char(40)",
            ..POSTGRES
        });
    }
    for layout in layouts {
        println!("{}", layout.name);
        let uuids = layout.id_type == "uuid";
        let id = |n: i64| {
            if uuids {
                UUID.replacen("67", &n.to_string(), 1)
            } else {
                n.to_string()
            }
        };
        let runs = (10..70).map(|n| {
            let key = if uuids { id(n) } else { n.to_string() };
            Run {
                at: Some(At::Micros(T0 + n % 7)),
                ..Run::new(key, &id(n % 3 + 67), n % 5, 0).by("u")
            }
        });
        let mut history = History::of(layout, runs.collect());
        history.versions = (0..5)
            .map(|version| (version, Some(id(version + 67))))
            .collect();
        let store = TestDb::migrated(layout.backend).await;
        let setup = Setup::of(store, history).await;
        setup.backfill(&[]).await;
        let junk = if uuids {
            &NO_UUIDS[..]
        } else {
            &NO_NUMBERS[..]
        };
        put_junk(&setup, junk, &id(67), &id(68)).await;
        let found = setup.verify(&[]).await;
        let extra = found.values().filter(|(kind, ..)| kind == "extra").count();
        assert_eq!(
            extra,
            junk.iter().filter(|text| !text.is_empty()).count() * 4
        );
        for workspace in junk.iter().filter(|text| !text.is_empty()) {
            let workspace = format!("--workspace={workspace}");
            let summary = setup.json(&["verify", &workspace], 3);
            assert_eq!(
                (&summary["runs"], &summary["differences"]),
                (&0.into(), &2.into()),
                "{workspace}"
            );
        }
        setup.recents(&["verify", "--repair"]).expect(3);
        setup.assert_equal("after the repair").await;
        assert!(setup.verify(&[]).await.is_empty());
    }
}
