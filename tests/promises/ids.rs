//! Ids: any text of 1 to 128 bytes without control characters comes back as it was.

use super::fold::{record, recorder};
use super::lists::{scope, walk};
use crate::support::client::list_path;
use crate::support::uses::body_of;
use crate::support::{Server, TestDb, Use, both};

both!(
    every_allowed_id_comes_back_as_it_was,
    every_allowed_id_can_be_named_in_a_path,
    ids_that_look_alike_are_different,
);

/// Odd ids: every printable ASCII character, what paths, JSON, SQL and LIKE treat specially, the
/// corners of Unicode, and the longest of one-byte and of four-byte characters.
pub(crate) fn odd_ids() -> Vec<String> {
    let mut ids: Vec<String> = (' '..='~')
        .filter(|c| *c != '.')
        .map(String::from)
        .collect();
    let special = [
        "...",
        ".a",
        "a/b",
        "../x",
        "%2F",
        "%",
        "%%",
        "%00",
        "a%20b",
        "a+b",
        "?a=b&c",
        "#x",
        " a ",
        "\"",
        "\\",
        "\\u0000",
        "'; drop table recent_workflow; --",
        "{}",
        "$1",
        "null",
        "NULL",
        "0",
        "-1",
        "1e3",
        "5.0",
        "[]",
        "\u{a0}",
        "\u{ad}",
        "e\u{301}",
        "\u{e9}",
        "ß",
        "İ",
        "\u{200b}",
        "\u{202e}rtl",
        "\u{2028}",
        "\u{feff}",
        "\u{fffd}",
        "\u{ffff}",
        "\u{e000}",
        "😀",
        "\u{10ffff}",
    ];
    ids.extend(special.map(String::from));
    ids.push("x".repeat(128));
    ids.push("😀".repeat(32));
    ids.sort();
    ids.dedup();
    ids
}

async fn every_allowed_id_comes_back_as_it_was(db: TestDb) {
    let ids = odd_ids();
    let uses: Vec<_> = ids
        .iter()
        .map(|id| Use::new(id, id, 0).by(id).run(id))
        .collect();
    record(&recorder(&db), &uses).await;
    let store = db.store();
    for id in &ids {
        let one = vec![(id.clone(), uses[0].micros, Some(id.clone()))];
        assert_eq!(
            walk(&store, &scope(id, None), 10).await,
            one,
            "workspace {id:?}"
        );
        assert_eq!(
            walk(&store, &scope(id, Some(id)), 10).await,
            one,
            "user {id:?}"
        );
    }
    assert_eq!(
        db.rows().await.len(),
        2 * ids.len(),
        "two lists each, none mixed up"
    );
}

async fn every_allowed_id_can_be_named_in_a_path(db: TestDb) {
    let server = Server::start(&db).await;
    let ids = odd_ids();
    let uses: Vec<_> = ids
        .iter()
        .map(|id| Use::new(id, id, 0).by(id).run(id))
        .collect();
    let answer = server
        .public
        .post("/v1/runs", &body_of(&uses))
        .await
        .expect(200);
    assert_eq!(answer.json()["applied"], ids.len());
    for id in &ids {
        for uid in [None, Some(id.as_str())] {
            let list = server
                .public
                .get(&list_path(id, uid))
                .await
                .expect(200)
                .json();
            assert_eq!(list["recent_workflows"][0]["published_run"], **id);
            assert_eq!(list["recent_workflows"][0]["run"], **id);
        }
    }
}

async fn ids_that_look_alike_are_different(db: TestDb) {
    let alike = [
        "a", "A", "a ", " a", "á", "a\u{301}", "ａ", "0", "00", "0.0",
    ];
    let uses: Vec<_> = alike.iter().map(|id| Use::new(id, "p", 0).by(id)).collect();
    record(&recorder(&db), &uses).await;
    assert_eq!(db.rows().await.len(), 2 * alike.len());
}
