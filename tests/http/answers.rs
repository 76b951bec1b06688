//! What good requests are answered.

use std::time::Duration;

use recents::model::Time;
use serde_json::json;

use crate::support::client::list_path;
use crate::support::snapshot::{assert_snapshot, sections};
use crate::support::uses::body_of;
use crate::support::{Server, TestDb, Use, both};

both!(
    good_answers_look_the_same_on_both_databases,
    runs_without_a_published_run_are_skipped_and_the_counts_add_up,
    integers_are_ids_and_come_back_as_text,
    a_time_with_an_offset_is_answered_in_utc_and_no_time_is_now,
    no_user_can_be_said_in_three_ways,
    a_clock_may_be_ahead_by_the_skew_that_is_allowed,
);

async fn good_answers_look_the_same_on_both_databases(db: TestDb) {
    let server = Server::start(&db).await;
    let client = server.public;
    let runs = body_of(&[
        Use::new("5", "88", 123_456).by("u1").run("991"),
        Use::new("5", "89", 2_000_000),
        Use::new("5", "90", 1_000_000).run("993"),
    ]);
    let three_scopes = json!({
        "scopes": [{"workspace": "5", "uid": "u1"}, {"workspace": "never"}, {"workspace": 5}],
        "limit": 1,
    });
    let answers = [
        ("POST runs", client.post("/v1/runs", &runs).await),
        (
            "POST the same runs again",
            client.post("/v1/runs", &runs).await,
        ),
        (
            "GET the workspace's list",
            client.get(&list_path("5", None)).await,
        ),
        (
            "GET a user's list",
            client.get(&list_path("5", Some("u1"))).await,
        ),
        (
            "GET a list never seen",
            client.get(&list_path("never", None)).await,
        ),
        (
            "GET a page",
            client.get(&(list_path("5", None) + "?limit=1")).await,
        ),
        (
            "POST a batch of lists",
            client
                .post("/v1/recent-workflows/batch", &three_scopes)
                .await,
        ),
    ];
    let shown = answers.map(|(heading, answer)| (heading, answer.shown()));
    assert_snapshot("answers", &sections(shown));
}

async fn runs_without_a_published_run_are_skipped_and_the_counts_add_up(db: TestDb) {
    let server = Server::start(&db).await;
    let mut runs = body_of(&[
        Use::new("w", "p", 1),
        Use::new("w", "p", 2),
        Use::new("w", "p", 3),
        Use::new("w", "q", 1),
    ]);
    runs["runs"][2]["published_run"] = json!(null);
    let answer = server.public.post("/v1/runs", &runs).await.expect(200);
    assert_eq!(
        answer.json(),
        json!({"applied": 2, "superseded": 1, "skipped": 1})
    );
    assert_eq!(db.rows().await.len(), 2);
    let none = json!({"runs": [{"workspace": "w", "published_run": null}]});
    let answer = server.public.post("/v1/runs", &none).await.expect(200);
    assert_eq!(
        answer.json(),
        json!({"applied": 0, "superseded": 0, "skipped": 1})
    );
    assert_eq!(db.rows().await.len(), 2);
}

async fn integers_are_ids_and_come_back_as_text(db: TestDb) {
    let server = Server::start(&db).await;
    let integers = [
        json!(5),
        json!(-5),
        json!(0),
        json!(i64::MIN),
        json!(u64::MAX),
    ];
    for id in integers {
        let runs = json!({"runs": [{"workspace": id, "published_run": id, "uid": id, "run": id}]});
        server.public.post("/v1/runs", &runs).await.expect(200);
        let text = id.to_string();
        let list = server
            .public
            .get(&list_path(&text, Some(&text)))
            .await
            .expect(200)
            .json();
        let item = &list["recent_workflows"][0];
        assert_eq!(
            (&item["published_run"], &item["run"]),
            (&json!(text), &json!(text))
        );
    }
    let list = server.public.get(&list_path("5", None)).await.expect(200);
    assert_eq!(list.published_runs(), ["5"], "5 is \"5\" and nothing else");
}

async fn a_time_with_an_offset_is_answered_in_utc_and_no_time_is_now(db: TestDb) {
    let server = Server::start(&db).await;
    let post = async |last_used_at| {
        let run = json!({"workspace": "w", "published_run": "p", "last_used_at": last_used_at});
        server
            .public
            .post("/v1/runs", &json!({"runs": [run]}))
            .await
            .expect(200);
        let list = server
            .public
            .get(&list_path("w", None))
            .await
            .expect(200)
            .json();
        list["recent_workflows"][0]["last_used_at"]
            .as_str()
            .expect("a time")
            .to_owned()
    };
    assert_eq!(
        post(json!("1970-01-01T00:00:00Z")).await,
        "1970-01-01T00:00:00.000000Z"
    );
    assert_eq!(
        post(json!("2001-02-03T04:05:06.7+05:30")).await,
        "2001-02-02T22:35:06.700000Z"
    );
    assert_eq!(
        post(json!("2001-02-03t04:05:06.123456789-12:00")).await,
        "2001-02-03T16:05:06.123456Z"
    );
    let before = Time::now().to_string();
    let now = post(json!(null)).await;
    let after = Time::now().to_string();
    assert!(
        before <= now && now <= after,
        "{before} <= {now} <= {after}"
    );
}

async fn no_user_can_be_said_in_three_ways(db: TestDb) {
    let server = Server::start(&db).await;
    let runs = json!({"runs": [
        {"workspace": "w", "published_run": "1"},
        {"workspace": "w", "published_run": "2", "uid": null},
        {"workspace": "w", "published_run": "3", "uid": ""},
    ]});
    server.public.post("/v1/runs", &runs).await.expect(200);
    let rows = db.rows().await;
    assert_eq!(rows.len(), 3);
    assert!(rows.keys().all(|(_, uid, _)| uid.is_empty()));
}

async fn a_clock_may_be_ahead_by_the_skew_that_is_allowed(db: TestDb) {
    let usual = Server::start(&db).await;
    let strict = Server::with(&db.url, &["--max-clock-skew", "1m"]).await;
    let ahead = async |server: &Server, seconds| {
        let at = Time::now()
            .saturating_add(Duration::from_secs(seconds))
            .to_string();
        let run = json!({"workspace": "w", "published_run": "p", "last_used_at": at});
        let answer = server
            .public
            .post("/v1/runs", &json!({"runs": [run]}))
            .await;
        answer.status.as_u16()
    };
    assert_eq!(
        ahead(&usual, 290).await,
        200,
        "5 min is what is allowed unless set"
    );
    assert_eq!(ahead(&usual, 330).await, 400);
    assert_eq!(ahead(&strict, 50).await, 200);
    assert_eq!(ahead(&strict, 90).await, 400);
}
