//! A value that the database refuses harms nobody but the request that it came with.

use crate::support::uses::body_of;
use crate::support::{Backend, Lock, Server, TestDb, Use, both};

both!(only_the_request_with_the_refused_value_fails);

/// The database cannot hold a published run whose name begins with `poison`.
pub(crate) async fn refuse_poison(db: &TestDb) {
    db.execute(match db.backend {
        Backend::Postgres => {
            "alter table recents.recent_workflow add constraint secret check (published_run not like 'poison%')"
        }
        Backend::Sqlite => {
            "create trigger secret before insert on recent_workflow when new.published_run like 'poison%'
             begin select raise(abort, 'secret'); end"
        }
    })
    .await;
}

async fn only_the_request_with_the_refused_value_fails(db: TestDb) {
    refuse_poison(&db).await;
    let server = Server::start(&db).await;
    let client = server.public;
    let lock = Lock::take(&db).await;
    let mut requests = Vec::new();
    for i in 0..40 {
        let workspace = format!("w{i}");
        let mut uses = vec![
            Use::new(&workspace, "good", 0).by("u"),
            Use::new("shared", "good", i),
        ];
        // At the start, in the middle, side by side, at the end; and with good uses of its own.
        let poisoned = [0, 17, 18, 39].contains(&i);
        if poisoned {
            uses.push(Use::new(&workspace, &format!("poison{i}"), 0));
        }
        let request = tokio::spawn(async move { client.post("/v1/runs", &body_of(&uses)).await });
        requests.push((workspace, poisoned, request));
    }
    server.queued(36 * 2 + 4 * 3).await;
    lock.release().await;
    let mut answers = Vec::new();
    for (workspace, poisoned, request) in requests {
        answers.push((workspace, poisoned, request.await.expect("an answer")));
    }
    let rows = db.rows().await;
    for (workspace, poisoned, answer) in answers {
        let recorded = rows.keys().filter(|(w, ..)| *w == workspace).count();
        if poisoned {
            let answer = answer.expect(400);
            assert_eq!(answer.problem(), "value_refused");
            assert!(
                !answer.text().contains("secret"),
                "the database's words: {}",
                answer.text()
            );
            assert_eq!(recorded, 0, "all or nothing");
        } else {
            answer.expect(200);
            assert_eq!(recorded, 2, "a neighbour of the refused value");
        }
    }
    let flushes = server.metric("recents_record_flush_seconds_count").await;
    assert!(
        flushes <= 2.0,
        "they were written together: {flushes} flushes"
    );
    let shared = &rows[&("shared".into(), String::new(), "good".into())];
    assert_eq!(
        shared.0,
        Use::new("shared", "good", 38).micros,
        "39 is the refused request's"
    );
}
