//! Several writers of the same rows.

use serde_json::Value;

use crate::support::database::Backend;
use crate::support::uses::{T0, body_of};
use crate::support::{Beside, Server, TestDb, Use, both, until};

both!(servers_that_write_the_same_rows_never_conflict);

const TELL_RETRIES: [&str; 2] = ["--log-level", "info,recents::store=debug"];

fn retries(server: &Server) -> Vec<Value> {
    server
        .log
        .events()
        .into_iter()
        .filter(|event| event["message"] == "trying again")
        .collect()
}

async fn servers_that_write_the_same_rows_never_conflict(db: TestDb) {
    let mut servers = Vec::new();
    for _ in 0..4 {
        servers.push(Server::with(&db.url, &TELL_RETRIES).await);
    }
    let mut rng = fastrand::Rng::with_seed(4);
    let mut requests = Vec::new();
    for at in 0..60 {
        // Every request touches the same 200 rows, in an order of its own.
        let mut uses: Vec<_> = (0..100)
            .map(|i| Use::new("w", &format!("p{i}"), at).by("u"))
            .collect();
        rng.shuffle(&mut uses);
        let client = servers[at as usize % servers.len()].public;
        requests.push(tokio::spawn(async move {
            client.post("/v1/runs", &body_of(&uses)).await
        }));
    }
    for request in requests {
        request.await.expect("an answer").expect(200);
    }
    for server in &servers {
        assert_eq!(
            retries(server),
            Vec::<Value>::new(),
            "rows are locked in one order"
        );
    }
    let rows = db.rows().await;
    assert_eq!(rows.len(), 200);
    assert!(rows.values().all(|(micros, _)| *micros == T0 + 59));
}

/// The control of the test above, and a promise of its own: where somebody else locks rows in
/// another order, the database ends one of the two, and the service tries again.
#[tokio::test]
async fn a_deadlock_with_somebody_else_is_tried_again() {
    let db = TestDb::migrated(Backend::Postgres).await;
    // The one who waits first looks first, and then ends itself.
    db.execute(
        "do $$ begin execute format('alter database %I set deadlock_timeout = ''300ms''', current_database()); end $$",
    )
    .await;
    let server = Server::with(&db.url, &TELL_RETRIES).await;
    let client = server.public;
    let uses = |after| body_of(&[Use::new("w", "a", after), Use::new("w", "b", after)]);
    client.post("/v1/runs", &uses(0)).await.expect(200);
    for after in 1..=10 {
        let mut other = db.connect().await;
        let touch = |which| {
            format!("update recents.recent_workflow set run = run where published_run = '{which}'")
        };
        other.execute(&format!("begin; {}", touch("b"))).await;
        let write = tokio::spawn(async move { client.post("/v1/runs", &uses(after)).await });
        waits_for_a_lock(&db).await;
        // Now both wait for each other.
        let went_on = other.try_execute(&touch("a")).await.is_ok();
        other
            .execute(if went_on { "commit" } else { "rollback" })
            .await;
        assert_eq!(
            write.await.expect("an answer").expect(200).json()["applied"],
            2
        );
        assert!(
            db.rows()
                .await
                .values()
                .all(|(micros, _)| *micros == T0 + after)
        );
        if went_on {
            let tried_again = retries(&server);
            assert!(tried_again.len() == 1, "{tried_again:?}");
            return;
        }
        // A loaded machine: this time it was the test that looked first.
    }
    panic!("the server never met the deadlock");
}

async fn waits_for_a_lock(db: &TestDb) {
    let mut look = db.connect().await;
    until("the server waits for a lock", async || {
        let waiting = "select pid::text from pg_stat_activity
                       where datname = current_database() and application_name = 'recents' and wait_event_type = 'Lock'";
        (!look.texts(waiting).await.is_empty()).then_some(())
    })
    .await;
}

/// Lets each write of `w` fail by `sqlstate` until it was tried `times` times; counts the tries.
async fn fail(db: &TestDb, sqlstate: &str, times: u32) {
    db.execute(&format!(
        "create sequence tries minvalue 0 start 0;
         create function fail() returns trigger language plpgsql as $$
         begin
             if nextval('tries') < {times} then
                 raise exception 'secret words' using errcode = '{sqlstate}';
             end if;
             return null;
         end $$;
         create trigger fail before insert on recents.recent_workflow for each statement execute function fail()"
    ))
    .await;
}

async fn tries(conn: &mut Beside) -> String {
    conn.texts("select (last_value + 1)::text from tries")
        .await
        .remove(0)
}

#[tokio::test]
async fn only_conflicts_are_tried_again_and_five_times_at_the_most() {
    for (sqlstate, times, status, tried) in [
        ("40001", 3, 200, "4"),
        ("40P01", 4, 200, "5"),
        ("40001", 100, 503, "5"),
        ("XX000", 100, 500, "1"),
        ("42501", 100, 500, "1"),
        ("23514", 100, 400, "1"),
        ("57014", 100, 503, "1"),
    ] {
        let db = TestDb::migrated(Backend::Postgres).await;
        fail(&db, sqlstate, times).await;
        let server = Server::start(&db).await;
        let answer = server
            .public
            .post("/v1/runs", &body_of(&[Use::new("w", "p", 0)]))
            .await
            .expect(status);
        assert_eq!(
            tries(&mut db.connect().await).await,
            tried,
            "{sqlstate}, {times} times"
        );
        assert_eq!(
            answer.header("retry-after"),
            (status == 503).then_some("1"),
            "{sqlstate}"
        );
        assert!(
            !answer.text().contains("secret"),
            "the database's words: {}",
            answer.text()
        );
        assert_eq!(db.rows().await.len(), usize::from(status == 200));
    }
}
