//! Parameters of paths and queries.

use hyper::body::Bytes;
use recents::http::work::WORK;

use crate::promises::ids::odd_ids;
use crate::support::client::list_path;
use crate::support::snapshot::{assert_snapshot, places, sections};
use crate::support::uses::body_of;
use crate::support::{Server, TestDb, Use, both};

both!(
    bad_parameters_are_named,
    no_endpoint_passes_over_a_parameter_that_there_is_not,
    bad_ids_in_paths_are_named,
    the_limit_is_4_unless_given_and_100_at_the_most,
    pages_follow_each_other_by_their_cursors,
    a_cursor_of_another_list_is_refused,
);

async fn bad_parameters_are_named(db: TestDb) {
    let server = Server::start(&db).await;
    let queries = [
        "limit=0",
        "limit=101",
        "limit=-1",
        "limit=",
        "limit=4.0",
        "limit=four",
        "limit=%204",
        "limit=%2B4",
        "limit=99999999999999999999",
        "limit=4&limit=4",
        "Limit=4",
        "offset=4",
        "cursor=",
        "cursor=AAAA",
        "cursor=not%20base64",
        "cursor=%00",
        "expand=",
        "expand=everything",
        "expand=details&expand=details",
        "limit=0&cursor=x&expand=y&z=1",
    ];
    let mut answers = Vec::new();
    for query in queries {
        let path = list_path("w", None) + "?" + query;
        answers.push((query, places(&server.public.get(&path).await.expect(400))));
    }
    assert_snapshot("invalid_parameters", &sections(answers));
}

/// Whoever misspells one hears of it; probes may append what they like.
async fn no_endpoint_passes_over_a_parameter_that_there_is_not(db: TestDb) {
    let server = Server::start(&db).await;
    let headers = [("content-type", "application/json")];
    let mut lenient = Vec::new();
    for work in WORK {
        let listener = match work.path.starts_with("/v1/") {
            true => &server.public,
            false => &server.admin,
        };
        // Valid ids; no job has this one, which is not looked for.
        let path = work.path.replace(['{', '}'], "") + "?nothing=1";
        let body = Bytes::from_static(b"{}");
        let answer = listener.send(work.method, &path, &headers, body).await;
        if answer.status.is_success() {
            lenient.push(work.path);
            continue;
        }
        let document = answer.expect(400).json();
        let errors = document["errors"].as_array().expect("what is wrong");
        let named = errors
            .iter()
            .any(|error| error["parameter"] == "nothing" && error["code"] == "unknown_parameter");
        assert!(named, "{} {path}: {document}", work.method);
    }
    lenient.sort_unstable();
    assert_eq!(lenient, ["/livez", "/metrics", "/readyz"]);
    assert_eq!(db.rows().await.len(), 0);
}

async fn bad_ids_in_paths_are_named(db: TestDb) {
    let server = Server::start(&db).await;
    let long = "x".repeat(129);
    let ids = [
        "%00", "%0A", "%7F", "%C2%85", "%2E", "%2E%2E", "..", ".", "%FF", "%", "a%2", "%zz", "%+1",
        &long,
    ];
    let mut answers = Vec::new();
    for id in ids {
        let workspace = server
            .public
            .get(&format!("/v1/workspaces/{id}/recent-workflows"))
            .await;
        let user = server
            .public
            .get(&format!("/v1/workspaces/w/users/{id}/recent-workflows"))
            .await;
        answers.push((
            id,
            places(&workspace.expect(400)) + &places(&user.expect(400)),
        ));
    }
    assert_snapshot("invalid_paths", &sections(answers));
    let both = server
        .public
        .get("/v1/workspaces/%00/users/%01/recent-workflows")
        .await
        .expect(400);
    assert_eq!(
        both.json()["errors"].as_array().map(Vec::len),
        Some(2),
        "every place is named"
    );
}

async fn the_limit_is_4_unless_given_and_100_at_the_most(db: TestDb) {
    let server = Server::start(&db).await;
    let uses: Vec<_> = (0..120)
        .map(|i| Use::new("w", &format!("p{i}"), i))
        .collect();
    server
        .public
        .post("/v1/runs", &body_of(&uses))
        .await
        .expect(200);
    for (query, items) in [
        ("", 4),
        ("?limit=1", 1),
        ("?limit=100", 100),
        ("?limit=007", 7),
    ] {
        let list = server
            .public
            .get(&(list_path("w", None) + query))
            .await
            .expect(200);
        assert_eq!(list.published_runs().len(), items, "{query}");
        assert_eq!(list.published_runs()[0], "p119");
    }
}

async fn pages_follow_each_other_by_their_cursors(db: TestDb) {
    let server = Server::start(&db).await;
    // Ids that a cursor must carry through a query unharmed.
    let uses: Vec<_> = odd_ids()
        .iter()
        .enumerate()
        .map(|(i, id)| Use::new("w/é", id, i as i64 / 5).by("u&v"))
        .collect();
    server
        .public
        .post("/v1/runs", &body_of(&uses))
        .await
        .expect(200);
    let mut expected: Vec<_> = uses
        .iter()
        .map(|u| (u.micros, u.published_run.clone()))
        .collect();
    expected.sort_unstable_by(|a, b| b.cmp(a));
    for uid in [None, Some("u&v")] {
        let path = list_path("w/é", uid) + "?limit=3";
        let mut found = Vec::new();
        let mut next = path.clone();
        loop {
            let page = server.public.get(&next).await.expect(200);
            found.extend(page.published_runs());
            assert!(found.len() <= expected.len(), "the pages have no end");
            let Some(cursor) = page.json()["next_cursor"].as_str().map(ToOwned::to_owned) else {
                break;
            };
            // Used as it came: it needs no encoding.
            next = format!("{path}&cursor={cursor}");
        }
        assert_eq!(
            found,
            expected.iter().map(|(_, p)| p.clone()).collect::<Vec<_>>()
        );
    }
}

async fn a_cursor_of_another_list_is_refused(db: TestDb) {
    let server = Server::start(&db).await;
    let uses: Vec<_> = (0..9)
        .map(|i| Use::new("w", &format!("p{i}"), i).by("u"))
        .collect();
    server
        .public
        .post("/v1/runs", &body_of(&uses))
        .await
        .expect(200);
    let page = server
        .public
        .get(&list_path("w", None))
        .await
        .expect(200)
        .json();
    let cursor = page["next_cursor"].as_str().expect("a cursor");
    for (workspace, uid) in [("w", Some("u")), ("x", None), ("W", None)] {
        let path = list_path(workspace, uid) + "?cursor=" + cursor;
        let refused = server.public.get(&path).await.expect(400).json();
        assert_eq!(
            refused["errors"][0]["parameter"], "cursor",
            "{workspace} {uid:?}"
        );
        assert_eq!(refused["errors"][0]["code"], "bad_cursor");
    }
    let own = list_path("w", None) + "?limit=2&cursor=" + cursor;
    assert_eq!(
        server.public.get(&own).await.expect(200).published_runs(),
        ["p4", "p3"]
    );
}
