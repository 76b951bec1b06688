//! Every kind of problem, provoked for real, as clients see it.

use hyper::body::Bytes;
use recents::http::problem::Code;
use serde_json::json;

use crate::capture::followed::serve;
use crate::faults::disk;
use crate::faults::values::refuse_poison;
use crate::jobs::{post, post_with_key, reaches};
use crate::settings::changed::patch;
use crate::support::client::{Answer, list_path};
use crate::support::history::{Gate, Setup};
use crate::support::snapshot::{assert_snapshot, sections};
use crate::support::uses::body_of;
use crate::support::{Backend, InProcess, Lock, Server, TestDb, Use, both};

both!(every_kind_of_problem_looks_the_same_on_both_databases);

const RUNS: &str = "/v1/runs";
const RESYNCS: &str = "/admin/v1/resyncs";

async fn every_kind_of_problem_looks_the_same_on_both_databases(db: TestDb) {
    // Half a minute, while the others are provoked.
    let patient = provoked(Code::RequestTimeout, db.backend);
    let others = async {
        let mut answers = Vec::new();
        for code in Code::ALL {
            if code != Code::RequestTimeout {
                answers.push((code, provoked(code, db.backend).await));
            }
        }
        answers
    };
    let (timeout, mut answers) = tokio::join!(patient, others);
    answers.push((Code::RequestTimeout, timeout));
    let shown = answers.iter().map(|(code, answer)| {
        assert_eq!(answer.json()["type"], code.urn());
        assert_eq!(answer.status, code.status(), "{code:?}");
        (answer.problem(), answer.shown())
    });
    let mut shown: Vec<_> = shown.collect();
    shown.sort();
    let shown = shown
        .iter()
        .map(|(code, shown)| (code.as_str(), shown.clone()));
    assert_snapshot("problems", &sections(shown));
}

/// An answer of this kind. Whoever adds a kind says here how it comes about.
async fn provoked(code: Code, backend: Backend) -> Answer {
    let db = TestDb::migrated(backend).await;
    match code {
        Code::InvalidRequest => {
            let server = Server::start(&db).await;
            server.public.post(RUNS, &json!({"runs": []})).await
        }
        Code::ValueRefused => {
            refuse_poison(&db).await;
            let server = Server::start(&db).await;
            let poison = body_of(&[Use::new("w", "poison", 0)]);
            server.public.post(RUNS, &poison).await
        }
        Code::NotFound => Server::start(&db).await.public.get("/nowhere").await,
        Code::MethodNotAllowed => Server::start(&db).await.public.get(RUNS).await,
        Code::ReadPathForced => {
            let server = Server::with(&db.url, &["--force-read-path", "materialized"]).await;
            patch(&server, &json!({"read_path": "shadow"})).await
        }
        Code::JobOverlaps => {
            let setup = Gate::setup(db).await;
            let server = serve(&setup).await;
            let closed = Gate::close(&setup, 400).await;
            let all = json!({"all": true});
            server.admin.post(RESYNCS, &all).await.expect(202);
            let answer = server.admin.post(RESYNCS, &all).await;
            closed.open().await;
            answer
        }
        Code::JobState => {
            let setup = Setup::plain(db, 140, 20).await;
            setup.recents(&["backfill"]).expect(0);
            let server = Server::start(&setup.store).await;
            let path = format!("/admin/v1/jobs/{}/pause", setup.job("id").await);
            post(&server, &path).await
        }
        Code::NoHistory => {
            let server = Server::start(&db).await;
            server.admin.post(RESYNCS, &json!({"all": true})).await
        }
        Code::RequestTimeout => {
            let server = Server::start(&db).await;
            let head = "POST /v1/runs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
            let request = format!("{head}Content-Length: 100\r\n\r\n{{");
            server.public.stalling(request).await
        }
        Code::HeaderTooLarge => {
            let server = Server::start(&db).await;
            let list = list_path("w", None);
            server.public.get_with(&list, &[("x-many", "1"); 65]).await
        }
        Code::BodyTooLarge => {
            let server = Server::start(&db).await;
            let body = " ".repeat(1024 * 1024 + 1);
            server.public.post_text(RUNS, body).await
        }
        Code::UnsupportedMediaType => {
            let server = Server::start(&db).await;
            server
                .public
                .send("POST", RUNS, &[], Bytes::from("{}"))
                .await
        }
        Code::IdempotencyKeyReused => {
            let setup = Setup::plain(db, 141, 20).await;
            let server = serve(&setup).await;
            let asked = post_with_key(&server, "key", &json!({"workspace": "w1"})).await;
            let job = asked.expect(202).json()["id"].clone();
            reaches(&server, job.as_str().expect("an id"), "succeeded").await;
            post_with_key(&server, "key", &json!({"all": true})).await
        }
        // A table that somebody changed by hand.
        Code::Internal => {
            let server = Server::start(&db).await;
            db.execute("alter table {recents}recent_workflow rename column run to renamed")
                .await;
            server.public.get(&list_path("w", None)).await
        }
        Code::DatabaseUnavailable => {
            let db = TestDb::empty(backend).await;
            let server = Server::spawn(&db.url, &["--migrate-on-start", "false"]).await;
            server.public.get(&list_path("w", None)).await
        }
        Code::StorageFull => {
            let uses = body_of(
                &(0..1_000)
                    .map(|i| Use::new("w", &format!("p{i}"), i))
                    .collect::<Vec<_>>(),
            );
            match backend {
                Backend::Sqlite => {
                    let (service, _) = disk::on_full_file(&db).await;
                    service.client.post(RUNS, &uses).await
                }
                Backend::Postgres => {
                    let server = Server::start(&db).await;
                    disk::fill(&db, "recent_workflow").await;
                    server.public.post(RUNS, &uses).await
                }
            }
        }
        Code::QueueFull => {
            let server = Server::start(&db).await;
            let (lock, client) = (Lock::take(&db).await, server.public);
            let taken = (0..10).map(|i| {
                let uses = (0..1_000).map(|j| Use::new("w", &format!("p{i}-{j}"), 1));
                let body = body_of(&uses.collect::<Vec<_>>());
                tokio::spawn(async move { client.post(RUNS, &body).await.status })
            });
            let taken: Vec<_> = taken.collect();
            server.queued(10_000).await;
            let answer = client.post(RUNS, &body_of(&[Use::new("w", "p", 1)])).await;
            lock.release().await;
            for request in taken {
                assert_eq!(request.await.expect("an answer"), 200);
            }
            answer
        }
        // Uses that come when their writer is gone.
        Code::ShuttingDown => {
            let (service, writer) = InProcess::with_writer(db.store()).await;
            writer.abort();
            assert!(writer.await.is_err_and(|error| error.is_cancelled()));
            service
                .client
                .post(RUNS, &body_of(&[Use::new("w", "p", 0)]))
                .await
        }
    }
}
