//! The database is there, and lets nobody in.

use hyper::body::Bytes;
use serde_json::Value;

use super::{came_by, hears};
use crate::support::client::list_path;
use crate::support::uses::body_of;
use crate::support::{Backend, Beside, Cluster, Server, Use, until};

/// What locks the service out, what lets it in again, and what the database says of it.
const LOCKS: [(&str, &str, &str); 5] = [
    (
        "alter role app nologin",
        "alter role app login",
        "not permitted to log in",
    ),
    (
        "alter role app password 'rotated'",
        "alter role app password 'known'",
        "password authentication failed",
    ),
    (
        "revoke connect on database app from app, public",
        "grant connect on database app to app, public",
        "permission denied for database",
    ),
    (
        "alter database app allow_connections false",
        "alter database app allow_connections true",
        "not currently accepting connections",
    ),
    (
        "alter database app rename to other",
        "alter database other rename to app",
        "does not exist",
    ),
];

const ENDED: &str = "select pg_terminate_backend(pid, 10000)::text from pg_stat_activity \
                     where usename = 'app' or datname in ('app', 'other')";

/// Runs a statement, and ends the service's sessions, so that it has to connect again.
async fn turn(superuser: &mut Beside, key: &str) {
    // A database is renamed while nobody is in it, not even for a moment.
    until(key, async || {
        superuser.texts(ENDED).await;
        superuser.try_execute(key).await.ok()
    })
    .await;
    superuser.texts(ENDED).await;
}

/// From now on the role gives its password. The cluster trusts everyone else.
async fn asks_for_a_password(superuser: &mut Beside) {
    superuser
        .execute(
            "do $$ begin execute format(
                 'copy (values (''host all app 127.0.0.1/32 scram-sha-256''), (''local all all trust''),
                               (''host all all 127.0.0.1/32 trust'')) to %L',
                 current_setting('hba_file')); end $$",
        )
        .await;
    superuser.execute("select pg_reload_conf()").await;
    until("it asks for a password", async || {
        let method = "select auth_method from pg_hba_file_rules where user_name = '{app}'";
        let loaded = "select (pg_conf_load_time() > (pg_stat_file(current_setting('hba_file'))).modification)::text";
        let asked = superuser.texts(method).await == ["scram-sha-256"];
        (asked && superuser.texts(loaded).await == ["true"]).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_lets_nobody_in_is_out_of_reach() {
    let cluster = Cluster::start();
    let mut superuser = Beside::connect(Backend::Postgres, &cluster.url).await;
    superuser
        .execute("create role app login password 'known'")
        .await;
    superuser.execute("create database app owner app").await;
    asks_for_a_password(&mut superuser).await;
    let url = cluster.url.replace("//postgres@", "//app:known@");
    let url = url.replace("/postgres", "/app");
    let server = Server::with(&url, &[]).await;
    hears(&server).await;
    let client = server.public;
    let written = body_of(&[Use::new("known", "p", 0)]);
    let answer = client.post("/v1/runs", &written).await.expect(200);
    let token = answer.header("recents-session-token").expect("a token");
    let session = [("recents-session-token", token)];
    let (known, cold) = (list_path("known", None), list_path("cold", None));
    for (lock, unlock, says) in LOCKS {
        until("the list is kept", async || {
            let hits = came_by(&server, "hit").await;
            client.get(&known).await.expect(200);
            (came_by(&server, "hit").await > hits).then_some(())
        })
        .await;

        turn(&mut superuser, lock).await;
        until("what was known is given", async || {
            let answer = client.get(&known).await.expect(200);
            (answer.header("recents-stale") == Some("true")).then_some(())
        })
        .await;
        // One that was let in just before shows only when it is ready.
        superuser.texts(ENDED).await;
        // More than there are connections that are found to be dead.
        let mut refused = Vec::new();
        for _ in 0..10 {
            refused.push(client.get(&cold).await);
            refused.push(client.get_with(&known, &session).await);
            refused.push(client.post("/v1/runs", &written).await);
            refused.push(client.send("DELETE", &known, &[], Bytes::new()).await);
        }
        for answer in refused {
            let answer = answer.expect(503);
            assert_eq!(answer.problem(), "database_unavailable", "{lock}");
            assert_eq!(answer.header("retry-after"), Some("1"));
            assert!(!answer.text().contains("app"), "{}", answer.text());
        }
        until("the database is down", async || {
            let health = server.admin.get("/readyz").await.expect(200).json();
            (health["database"] == "down").then_some(())
        })
        .await;
        // By the watch, by requests, by what was to be written; each once, whatever happens how often.
        for message in [
            "the database does not answer; trying again",
            "the request failed",
            "uses were not recorded",
        ] {
            let is = |event: &Value| {
                let error = event["error"].as_str().unwrap_or_default();
                event["message"] == message && error.contains(says)
            };
            server.log.event(&format!("`{message}`: {says}"), is).await;
            let said = server.log.events().into_iter().filter(is).count();
            assert_eq!(said, 1, "{message}: {says}");
        }

        turn(&mut superuser, unlock).await;
        until("it is fresh again", async || {
            let answer = client.get_with(&known, &session).await;
            (answer.status == 200).then(|| assert_eq!(answer.header("recents-stale"), None))
        })
        .await;
        client.post("/v1/runs", &written).await.expect(200);
    }
}

/// Whether a session is ended by the server says nothing about a statement that it refuses.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_is_refused_is_no_outage() {
    let cluster = Cluster::start();
    let server = Server::with(&cluster.url, &["--cache-capacity", "0"]).await;
    let mut superuser = Beside::connect(Backend::Postgres, &cluster.url).await;
    for code in ["28000", "3D000", "42501", "55000"] {
        superuser
            .execute(&format!(
                "create or replace function fails() returns trigger language plpgsql as
                 $$ begin raise exception 'no' using errcode = '{code}'; end $$;
                 create or replace trigger fails before insert or update on recents.recent_workflow
                 execute function fails()"
            ))
            .await;
        let uses = body_of(&[Use::new("w", "p", 0)]);
        let answer = server.public.post("/v1/runs", &uses).await.expect(500);
        assert_eq!(answer.problem(), "internal", "{code}");
    }
}
