//! Asking for a re-sync: what is refused, what is a retry, and one at a time of a scope.

use serde_json::{Value, json};

use super::{post, post_json, post_with_key, reaches};
use crate::capture::followed::{serve, serve_with};
use crate::support::history::{Gate, Setup};
use crate::support::snapshot::{assert_snapshot, places, sections};
use crate::support::{Server, TestDb, both, until};

both!(
    every_invalid_request_is_named_and_makes_no_job,
    a_retry_is_the_same_job_and_another_body_is_refused,
    the_same_request_many_times_at_once_is_one_job,
    of_two_re_syncs_of_a_scope_the_second_is_refused_with_the_firsts_job,
    a_plan_is_there_when_a_dry_run_has_succeeded,
    without_a_history_there_is_nothing_to_re_sync_from,
    a_re_sync_is_counted,
);

const RESYNCS: &str = "/admin/v1/resyncs";

async fn jobs(server: &Server) -> Vec<Value> {
    let jobs = server.admin.get("/admin/v1/jobs").await.expect(200).json();
    jobs["jobs"].as_array().expect("jobs").clone()
}

fn id(answer: &Value) -> String {
    answer["id"].as_str().expect("an id").to_owned()
}

async fn every_invalid_request_is_named_and_makes_no_job(db: TestDb) {
    let setup = Setup::plain(db, 130, 20).await;
    let server = serve(&setup).await;
    let mut answers = Vec::new();
    for (what, body) in [
        ("nothing", json!({})),
        ("no object", json!([])),
        ("both", json!({"workspace": "5", "all": true})),
        ("not all", json!({"all": false})),
        (
            "a workspace that is none",
            json!({"workspace": "", "mode": "rebuild"}),
        ),
        ("a workspace that is null", json!({"workspace": null})),
        ("a workspace of another type", json!({"workspace": 1.5})),
        ("another mode", json!({"all": true, "mode": "mirror"})),
        ("a mode that is no text", json!({"all": true, "mode": 1})),
        (
            "a dry run that is neither",
            json!({"all": true, "dry_run": "yes"}),
        ),
        ("all of another type", json!({"all": 1})),
        ("an unknown field", json!({"all": true, "force": true})),
        (
            "several places",
            json!({"workspace": [], "mode": "x", "dry_run": 0}),
        ),
    ] {
        let answer = post_json(&server, RESYNCS, &body).await.expect(400);
        answers.push((what, places(&answer)));
    }
    let all = json!({"all": true});
    for (what, key) in [
        ("an empty key", ""),
        ("a long key", &"x".repeat(256)),
        ("a key in UTF-8", "é"),
    ] {
        let answer = post_with_key(&server, key, &all).await.expect(400);
        answers.push((what, places(&answer)));
    }
    let path = format!("{RESYNCS}?dry_run=true");
    let answer = post_json(&server, &path, &all).await.expect(400);
    answers.push(("a parameter", places(&answer)));
    assert_snapshot("invalid_resyncs", &sections(answers));
    assert_eq!(jobs(&server).await, Vec::<Value>::new());
}

async fn a_retry_is_the_same_job_and_another_body_is_refused(db: TestDb) {
    let setup = Setup::plain(db, 131, 100).await;
    setup.recents(&["backfill"]).expect(0);
    let server = serve(&setup).await;
    let body = json!({"workspace": "w1", "mode": "rebuild"});
    let asked = post_with_key(&server, "key-1", &body).await.expect(202);
    let first = asked.json();
    let path = format!("/admin/v1/jobs/{}", id(&first));
    assert_eq!(asked.header("location"), Some(path.as_str()));
    assert_eq!(first["state"], "queued");
    // As soon as it is asked for, and when it is done; however the same is written.
    for (at, body) in [
        body.clone(),
        json!({"mode": "rebuild", "workspace": "w1", "dry_run": false}),
        json!({"mode": "rebuild", "workspace": "w1", "all": false, "dry_run": null}),
    ]
    .iter()
    .enumerate()
    {
        let again = post_with_key(&server, "key-1", body).await.expect(202);
        assert_eq!(id(&again.json()), id(&first), "{body}");
        assert_eq!(again.header("location"), Some(path.as_str()));
        if at == 0 {
            reaches(&server, &id(&first), "succeeded").await;
        }
    }
    for other in [
        json!({"workspace": "w2", "mode": "rebuild"}),
        json!({"workspace": "w1"}),
        json!({"workspace": "w1", "mode": "rebuild", "dry_run": true}),
        json!({"all": true, "mode": "rebuild"}),
    ] {
        let refused = post_with_key(&server, "key-1", &other).await.expect(422);
        assert_eq!(refused.problem(), "idempotency_key_reused", "{other}");
    }
    let resyncs = async || {
        jobs(&server)
            .await
            .iter()
            .filter(|job| job["kind"] == "resync")
            .count()
    };
    assert_eq!(resyncs().await, 1);
    // Another key, or none, is another job.
    for key in [Some("key-2"), None] {
        let asked = match key {
            Some(key) => post_with_key(&server, key, &body).await,
            None => post_json(&server, RESYNCS, &body).await,
        };
        reaches(&server, &id(&asked.expect(202).json()), "succeeded").await;
    }
    assert_eq!(resyncs().await, 3);
}

async fn the_same_request_many_times_at_once_is_one_job(db: TestDb) {
    let setup = Setup::plain(db, 132, 100).await;
    let servers = [serve(&setup).await, serve(&setup).await];
    for round in 0..5 {
        let requests: Vec<_> = (0..8)
            .map(|at| {
                let admin = servers[at % 2].admin;
                tokio::spawn(async move {
                    let key = format!("key-{round}");
                    let headers = [
                        ("content-type", "application/json"),
                        ("idempotency-key", key.as_str()),
                    ];
                    let body = json!({"all": true}).to_string();
                    admin.send("POST", RESYNCS, &headers, body.into()).await
                })
            })
            .collect();
        let mut ids = Vec::new();
        for request in requests {
            let answer = request.await.expect("an answer").expect(202);
            ids.push(id(&answer.json()));
        }
        ids.dedup();
        assert_eq!(ids.len(), 1, "round {round}");
        reaches(&servers[0], &ids[0], "succeeded").await;
    }
    assert_eq!(jobs(&servers[0]).await.len(), 5);
}

async fn of_two_re_syncs_of_a_scope_the_second_is_refused_with_the_firsts_job(db: TestDb) {
    let setup = Gate::setup(db).await;
    let server = serve(&setup).await;
    let mut closed = Gate::close(&setup, 400).await;
    let asked = post_json(&server, RESYNCS, &json!({"workspace": "w1"})).await;
    let first = id(&asked.expect(202).json());
    reaches(&server, &first, "running").await;
    for body in [
        json!({"workspace": "w1"}),
        json!({"workspace": "w1", "mode": "rebuild", "dry_run": true}),
        json!({"all": true}),
    ] {
        let refused = post_json(&server, RESYNCS, &body).await.expect(409);
        assert_eq!(refused.problem(), "job_overlaps", "{body}");
        assert_eq!(refused.json()["job"], first, "{body}");
        // Nor with a key, which may be used again then.
        let refused = post_with_key(&server, "later", &body).await.expect(409);
        assert_eq!(refused.json()["job"], first, "{body}");
    }
    let refused = setup.recents(&["resync", "--all"]).expect(1);
    let said = format!("another re-sync of this table is at work (job {first})");
    assert!(refused.err.contains(&said), "{refused:?}");
    // Another workspace is nobody's business: this one waits only for a worker.
    let asked = post_json(&server, RESYNCS, &json!({"workspace": "w2"})).await;
    let second = id(&asked.expect(202).json());
    let refused = post_json(&server, RESYNCS, &json!({"all": true}))
        .await
        .expect(409);
    assert!(
        [&first, &second]
            .iter()
            .any(|job| refused.json()["job"] == **job)
    );
    until("the first is still at work", async || {
        (closed.waiting().await > 0).then_some(())
    })
    .await;
    closed.open().await;
    for job in [&first, &second] {
        reaches(&server, job, "succeeded").await;
    }
    let asked = post_with_key(&server, "later", &json!({"all": true})).await;
    let all = id(&asked.expect(202).json());
    // A paused one is in nobody's way, and may not go on while it would be in another's.
    let pause = format!("/admin/v1/jobs/{all}/pause");
    let paused = post(&server, &pause).await;
    if paused.status == 200 {
        let asked = post_json(&server, RESYNCS, &json!({"workspace": "w3"})).await;
        let third = id(&asked.expect(202).json());
        let resumed = post(&server, &format!("/admin/v1/jobs/{all}/resume")).await;
        if resumed.status == 409 {
            assert_eq!(resumed.json()["job"], third);
        }
        reaches(&server, &third, "succeeded").await;
        post(&server, &format!("/admin/v1/jobs/{all}/resume"))
            .await
            .expect(200);
    }
    reaches(&server, &all, "succeeded").await;
    setup.assert_equal("after all of them").await;
}

async fn a_plan_is_there_when_a_dry_run_has_succeeded(db: TestDb) {
    let setup = Gate::setup(db).await;
    let server = serve(&setup).await;
    let mut closed = Gate::close(&setup, 400).await;
    let asked = post_json(
        &server,
        RESYNCS,
        &json!({"workspace": "w1", "dry_run": true}),
    )
    .await;
    let dry = id(&asked.expect(202).json());
    let plan = async |job: &str| {
        server
            .admin
            .get(&format!("/admin/v1/jobs/{job}/plan"))
            .await
    };
    let waiting = async || (closed.waiting().await > 0).then_some(());
    crate::support::until("it is at work", waiting).await;
    let early = plan(&dry).await.expect(409);
    assert_eq!(early.problem(), "job_state");
    closed.open().await;
    let done = reaches(&server, &dry, "succeeded").await;
    let told = plan(&dry).await.expect(200);
    let own = setup
        .history
        .rows()
        .keys()
        .filter(|(of, ..)| of == "w1")
        .count();
    assert_eq!(told.text().lines().count(), own);
    assert_eq!(done["result"]["added"], own);
    assert!(setup.store.rows().await.is_empty());
    let asked = post_json(&server, RESYNCS, &json!({"workspace": "w1"})).await;
    let wet = id(&asked.expect(202).json());
    reaches(&server, &wet, "succeeded").await;
    assert_eq!(plan(&wet).await.expect(404).problem(), "not_found");
    assert_eq!(plan("nowhere").await.expect(404).problem(), "not_found");
}

async fn without_a_history_there_is_nothing_to_re_sync_from(db: TestDb) {
    let server = Server::start(&db).await;
    let refused = post_json(&server, RESYNCS, &json!({"all": true}))
        .await
        .expect(409);
    assert_eq!(refused.problem(), "no_history");
    assert_eq!(jobs(&server).await, Vec::<Value>::new());
    let resync = ["resync", "--all", "--database-url", &db.url];
    let refused = crate::support::recents(&resync).expect(2);
    assert!(
        refused.one_line().starts_with("history: is not configured"),
        "{refused:?}"
    );
}

async fn a_re_sync_is_counted(db: TestDb) {
    let setup = Setup::plain(db, 133, 300).await;
    let server = serve_with(&setup, &[]).await;
    let runs = async |outcome: &str| {
        let sample = format!(r#"recents_runs_total{{source="resync",outcome="{outcome}"}}"#);
        server.metric(&sample).await
    };
    for kind in ["backfill", "resync"] {
        let sample = format!(r#"recents_job_rows_total{{kind="{kind}"}}"#);
        assert_eq!(server.metric(&sample).await, 0.0, "there from the start");
    }
    let asked = post_json(&server, RESYNCS, &json!({"all": true})).await;
    let done = reaches(&server, &id(&asked.expect(202).json()), "succeeded").await;
    let rows = setup.history.rows();
    assert_eq!(done["result"]["added"], rows.len());
    assert_eq!(done["progress"]["scanned"], 300);
    let lists = rows.keys().filter(|(_, uid, _)| uid.is_empty()).count() as f64;
    let uses = setup.history.uses().len() as f64;
    assert_eq!(runs("applied").await, lists);
    assert_eq!(runs("superseded").await, uses - lists);
    assert_eq!(runs("skipped").await, 300.0 - uses);
    let changed = server
        .metric(r#"recents_job_rows_total{kind="resync"}"#)
        .await;
    assert_eq!(changed, rows.len() as f64);
}
