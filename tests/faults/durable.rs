//! What is acknowledged is on the disk, whatever the database has commits wait for.

use hyper::body::Bytes;

use crate::races::drain::drain_of;
use crate::support::history::Setup;
use crate::support::uses::body_of;
use crate::support::{Backend, Beside, Cluster, Server, TestDb, Use, until};

/// Has every session from now on not wait, and writes down what whoever changes a table waits for.
async fn hurry(db: &mut Beside, table: &str, events: &str) {
    db.execute(&format!(
        "do $$ begin execute format('alter database %I set synchronous_commit = off', current_database()); end $$;
         create table seen (waits text);
         grant insert on seen to public;
         create function see() returns trigger language plpgsql as
         $$ begin insert into public.seen values (current_setting('synchronous_commit')); return null; end $$;
         create trigger see after {events} on {table} for each statement execute function see()"
    ))
    .await;
}

const SEEN: &str = "select distinct waits from seen";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_use_is_on_the_disk_when_it_is_acknowledged_directly_and_through_a_pooler() {
    let cluster = Cluster::start();
    let pooler = cluster.pooler();
    drop(TestDb::apart(&cluster.url).await);
    let mut beside = Beside::connect(Backend::Postgres, &cluster.url).await;
    hurry(
        &mut beside,
        "recents.recent_workflow",
        "insert or update or delete",
    )
    .await;
    let body = body_of(&[Use::new("w", "p", 0)]);
    for (url, flags) in [
        (&cluster.url, &[][..]),
        (&pooler.url, &["--transaction-pooler", "true"]),
    ] {
        beside.execute("truncate seen").await;
        let server = Server::with(url, flags).await;
        server.public.post("/v1/runs", &body).await.expect(200);
        let dismissed = server
            .public
            .send("DELETE", "/v1/published-runs/p", &[], Bytes::new())
            .await;
        assert!(dismissed.status.is_success(), "{dismissed:?}");
        assert_eq!(beside.texts(SEEN).await, ["local"], "{url}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notes_go_when_what_they_led_to_is_on_the_disk() {
    let setup = Setup::plain(TestDb::migrated(Backend::Postgres).await, 116, 20).await;
    setup.recents(&["capture", "install"]).expect(0);
    let mut beside = setup.source().connect().await;
    beside
        .execute("update saved_run set updated_at = updated_at + interval '1 second'")
        .await;
    hurry(&mut beside, "recents.outbox", "delete").await;
    let url = &setup.source().url;
    let mut drain = drain_of(&setup, crate::support::database::store_at(url, 4), url).await;
    while beside
        .texts("select count(*)::text from recents.outbox")
        .await
        != ["0"]
    {
        drain.step(true).await.expect("a step");
    }
    assert_eq!(beside.texts(SEEN).await, ["local"]);
}

/// A session that had nothing set would follow the configuration.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_that_is_loaded_anew_changes_nothing_for_a_running_service() {
    let cluster = Cluster::start();
    drop(TestDb::apart(&cluster.url).await);
    let server = Server::with(&cluster.url, &["--pool-size", "1"]).await;
    let body = body_of(&[Use::new("w", "p", 0)]);
    server.public.post("/v1/runs", &body).await.expect(200);
    let mut beside = Beside::connect(Backend::Postgres, &cluster.url).await;
    let events = "insert or update or delete";
    hurry(&mut beside, "recents.recent_workflow", events).await;
    beside
        .execute("alter system set synchronous_commit = off")
        .await;
    beside.execute("select pg_reload_conf()").await;
    until("sessions that were there before follow it", async || {
        let waits = beside.texts("select current_setting('synchronous_commit')");
        (waits.await == ["off"]).then_some(())
    })
    .await;
    let body = body_of(&[Use::new("w", "p", 1)]);
    server.public.post("/v1/runs", &body).await.expect(200);
    assert_eq!(beside.texts(SEEN).await, ["on"]);
}
