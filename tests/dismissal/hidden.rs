//! What is hidden, and from whom.

use hyper::body::Bytes;
use serde_json::json;

use super::{delete, walk};
use crate::support::client::list_path;
use crate::support::uses::body_of;
use crate::support::{Backend, Server, TestDb, Use, both, recents};

both!(
    an_item_is_hidden_from_its_list_alone_until_its_next_use,
    a_cleared_list_is_empty_until_the_next_use,
    a_published_run_dismissed_everywhere_is_in_no_list,
    a_page_is_full_however_many_are_hidden,
    clocks_ahead_and_behind_hide_what_they_should,
    what_is_dated_far_ahead_is_dismissed_with_the_rest,
    what_is_invalid_dismisses_nothing,
    the_command_line_does_the_same,
);

/// Five published runs of a workspace, of `u` all but one.
/// Reads ask the database, because these tests change it beside the server too.
const CACHE_OFF: [&str; 2] = ["--cache-capacity", "0"];

async fn served(db: &TestDb) -> Server {
    let server = Server::with(&db.url, &CACHE_OFF).await;
    let uses: Vec<_> = (0..5)
        .map(|i| Use::new("w", &format!("p{i}"), i))
        .map(|usage| match usage.published_run.as_str() {
            "p4" => usage,
            _ => usage.by("u"),
        })
        .collect();
    server
        .public
        .post("/v1/runs", &body_of(&uses))
        .await
        .expect(200);
    server
}

async fn use_again(server: &Server, published_run: &str) {
    let runs = json!({"runs": [{"workspace": "w", "uid": "u", "published_run": published_run}]});
    let recorded = server
        .public
        .post("/v1/runs", &runs)
        .await
        .expect(200)
        .json();
    assert_eq!(recorded["applied"], 1, "{recorded}");
}

async fn an_item_is_hidden_from_its_list_alone_until_its_next_use(db: TestDb) {
    let server = served(&db).await;
    let path = list_path("w", Some("u"));
    delete(&server, &format!("{path}/p2")).await;
    delete(&server, &format!("{path}/p2")).await;
    delete(&server, &format!("{path}/never%2Fused")).await;
    delete(&server, &format!("{}/p3", list_path("w", None))).await;
    assert_eq!(walk(&server, "w", Some("u"), 2).await, ["p3", "p1", "p0"]);
    assert_eq!(walk(&server, "w", None, 2).await, ["p4", "p2", "p1", "p0"]);
    // In a batch, and by SQL.
    let scopes = json!({"scopes": [{"workspace": "w"}, {"workspace": "w", "uid": "u"}]});
    let lists = server
        .public
        .post("/v1/recent-workflows/batch", &scopes)
        .await
        .expect(200)
        .json();
    for (at, items) in [(0, 4), (1, 3)] {
        let list = lists["lists"][at]["recent_workflows"].as_array();
        assert_eq!(list.map(Vec::len), Some(items), "{lists}");
    }
    let view = "select published_run from {recents}recent_workflows where uid = 'u' order by 1";
    assert_eq!(db.connect().await.texts(view).await, ["p0", "p1", "p3"]);
    // The same use again is no newer one.
    let same = body_of(&[Use::new("w", "p2", 2).by("u")]);
    server.public.post("/v1/runs", &same).await.expect(200);
    assert_eq!(walk(&server, "w", Some("u"), 2).await, ["p3", "p1", "p0"]);
    use_again(&server, "p2").await;
    assert_eq!(
        walk(&server, "w", Some("u"), 2).await,
        ["p2", "p3", "p1", "p0"]
    );
    use_again(&server, "p3").await;
    assert_eq!(
        walk(&server, "w", None, 9).await,
        ["p3", "p2", "p4", "p1", "p0"]
    );
}

async fn a_cleared_list_is_empty_until_the_next_use(db: TestDb) {
    let server = served(&db).await;
    delete(&server, &list_path("w", Some("u"))).await;
    assert!(walk(&server, "w", Some("u"), 4).await.is_empty());
    assert_eq!(walk(&server, "w", None, 4).await.len(), 5);
    use_again(&server, "p0").await;
    assert_eq!(walk(&server, "w", Some("u"), 4).await, ["p0"]);
    delete(&server, &list_path("w", None)).await;
    assert!(walk(&server, "w", None, 4).await.is_empty());
    assert_eq!(walk(&server, "w", Some("u"), 4).await, ["p0"]);
    // Another list is not touched.
    server
        .public
        .post("/v1/runs", &body_of(&[Use::new("v", "p0", 0)]))
        .await
        .expect(200);
    assert_eq!(walk(&server, "v", None, 4).await, ["p0"]);
}

async fn a_published_run_dismissed_everywhere_is_in_no_list(db: TestDb) {
    let server = served(&db).await;
    let others: Vec<_> = (0..50)
        .map(|i| Use::new(&format!("w{i}"), "p3", i).by("u"))
        .collect();
    server
        .public
        .post("/v1/runs", &body_of(&others))
        .await
        .expect(200);
    delete(&server, "/v1/published-runs/p3").await;
    for i in 0..50 {
        assert!(
            walk(&server, &format!("w{i}"), Some("u"), 4)
                .await
                .is_empty()
        );
    }
    assert_eq!(walk(&server, "w", None, 4).await, ["p4", "p2", "p1", "p0"]);
    let count = "select cast(count(*) as text) from {recents}dismissal";
    assert_eq!(
        db.connect().await.texts(count).await,
        ["1"],
        "one watermark"
    );
    // A use that was under way comes too late.
    let late = json!({"runs": [{"workspace": "w", "published_run": "p3"}]});
    server.public.post("/v1/runs", &late).await.expect(200);
    assert_eq!(walk(&server, "w", None, 4).await, ["p4", "p2", "p1", "p0"]);
}

async fn a_page_is_full_however_many_are_hidden(db: TestDb) {
    let server = Server::with(&db.url, &CACHE_OFF).await;
    for part in 0..5_i64 {
        let uses: Vec<_> = (part * 500..part * 500 + 500)
            .map(|i| Use::new("w", &format!("p{i:04}"), i / 7))
            .collect();
        server
            .public
            .post("/v1/runs", &body_of(&uses))
            .await
            .expect(200);
    }
    let all = walk(&server, "w", None, 100).await;
    assert_eq!(all.len(), 2_500);
    // Watermarks without a sweep: the rows are still there.
    db.execute(
        "insert into {recents}dismissal (workspace, uid, published_run, until)
         select workspace, uid, published_run, last_used_at from {recents}recent_workflow
         where published_run not like '%3'",
    )
    .await;
    let visible: Vec<_> = all.into_iter().filter(|p| p.ends_with('3')).collect();
    for limit in [4, 100] {
        assert_eq!(walk(&server, "w", None, limit).await, visible);
    }
    recents_ok(&db, &["dismiss", "--everywhere", "p0003"]).await;
    let rows = db.rows().await.len();
    assert_eq!(rows, visible.len() - 1, "what is hidden was swept");
    assert_eq!(
        walk(&server, "w", None, 7).await,
        visible[..visible.len() - 1]
    );
}

async fn clocks_ahead_and_behind_hide_what_they_should(db: TestDb) {
    let server = Server::start(&db).await;
    let now = recents::model::Time::now().micros();
    let (ahead, later) = (now + 120_000_000, now + 121_000_000);
    let send = async |published_run: &str, micros| {
        let usage = Use::new("w", published_run, 0).at(micros);
        server
            .public
            .post("/v1/runs", &body_of(&[usage]))
            .await
            .expect(200);
    };
    // Used by a clock that is ahead: the watermark reaches up to it.
    send("ahead", ahead).await;
    delete(&server, &format!("{}/ahead", list_path("w", None))).await;
    assert!(walk(&server, "w", None, 4).await.is_empty());
    send("ahead", now + 60_000_000).await;
    assert!(
        walk(&server, "w", None, 4).await.is_empty(),
        "older than what was hidden"
    );
    send("ahead", later).await;
    assert_eq!(walk(&server, "w", None, 4).await, ["ahead"]);
    // A clock that is behind stays hidden for as long.
    send("behind", now - 50_000_000).await;
    delete(&server, &format!("{}/behind", list_path("w", None))).await;
    send("behind", now - 10_000_000).await;
    assert_eq!(walk(&server, "w", None, 4).await, ["ahead"]);
    // Clearing hides the newest, however far ahead it is, and nothing that is used from then on.
    delete(&server, &list_path("w", None)).await;
    assert!(walk(&server, "w", None, 4).await.is_empty());
    send("other", recents::model::Time::now().micros() + 1_000).await;
    assert_eq!(walk(&server, "w", None, 4).await, ["other"]);
    send("ahead", later).await;
    assert_eq!(walk(&server, "w", None, 4).await, ["other"]);
}

/// A history dates runs as it likes; the hook would not take them.
async fn what_is_dated_far_ahead_is_dismissed_with_the_rest(db: TestDb) {
    let server = served(&db).await;
    let year_9999 = match db.backend {
        Backend::Postgres => "'9999-01-01Z'",
        Backend::Sqlite => "253370764800000000",
    };
    let ahead = format!(
        "update {{recents}}recent_workflow set last_used_at = {year_9999} where published_run in ('p1', 'p2')"
    );
    db.connect().await.execute(&ahead).await;
    delete(&server, "/v1/published-runs/p1").await;
    assert_eq!(
        walk(&server, "w", Some("u"), 2).await,
        ["p2", "p3", "p0"],
        "everywhere"
    );
    assert_eq!(walk(&server, "w", None, 2).await, ["p2", "p4", "p3", "p0"]);
    delete(&server, &list_path("w", None)).await;
    assert!(walk(&server, "w", None, 2).await.is_empty(), "the list");
    assert_eq!(walk(&server, "w", Some("u"), 2).await, ["p2", "p3", "p0"]);
    // A wrong time of one item is not the others'.
    use_again(&server, "p3").await;
    assert_eq!(walk(&server, "w", None, 2).await, ["p3"]);
}

async fn what_is_invalid_dismisses_nothing(db: TestDb) {
    let server = served(&db).await;
    let long = "x".repeat(129);
    for path in [
        format!("{}?limit=4", list_path("w", None)),
        format!("{}/{long}", list_path("w", None)),
        format!("{}/%00", list_path("w", None)),
        format!("/v1/workspaces/{long}/recent-workflows"),
        format!("/v1/published-runs/{long}"),
    ] {
        let answer = server
            .public
            .send("DELETE", &path, &[], Bytes::new())
            .await
            .expect(400);
        assert!(
            answer
                .text()
                .contains("urn:recents:problem:invalid_request"),
            "{path}"
        );
    }
    assert_eq!(walk(&server, "w", None, 4).await.len(), 5);
    let wrong = server
        .public
        .send("PUT", "/v1/published-runs/p", &[], Bytes::new())
        .await;
    assert_eq!(wrong.expect(405).header("allow"), Some("DELETE"));
}

async fn the_command_line_does_the_same(db: TestDb) {
    let server = served(&db).await;
    recents_ok(&db, &["dismiss", "w", "p2", "--uid", "u"]).await;
    recents_ok(&db, &["dismiss", "w", "p4"]).await;
    recents_ok(&db, &["dismiss", "--everywhere", "p0"]).await;
    assert_eq!(walk(&server, "w", Some("u"), 4).await, ["p3", "p1"]);
    assert_eq!(walk(&server, "w", None, 4).await, ["p3", "p2", "p1"]);
    recents_ok(&db, &["dismiss", "w"]).await;
    assert!(walk(&server, "w", None, 4).await.is_empty());
    recents_ok(&db, &["forget", "--uid", "u"]).await;
    assert!(walk(&server, "w", Some("u"), 4).await.is_empty());
    for table in ["recent_workflow", "dismissal"] {
        let of_user = format!("select uid from {{recents}}{table} where uid = 'u'");
        assert!(
            db.connect().await.texts(&of_user).await.is_empty(),
            "{table}"
        );
    }
}

async fn recents_ok(db: &TestDb, args: &[&str]) {
    recents(&[args, &["--database-url", &db.url]].concat()).expect(0);
}
