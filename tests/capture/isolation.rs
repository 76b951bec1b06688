//! Whatever isolation a role or a database sets: ours is the one that our statements are written for.

use serde_json::json;

use super::followed::{Followed, quiet, serve};
use crate::support::beside::Beside;
use crate::support::client::list_path;
use crate::support::history::Setup;
use crate::support::{Backend, Cluster, Server, TestDb, until};

/// Whoever writes in another isolation is told so: what another isolation leads to needs luck to be seen.
const TRAP: &str = "
    create function trap() returns trigger language plpgsql as $$
    begin
        if current_setting('transaction_isolation') <> 'read committed' then
            raise 'written as %', current_setting('transaction_isolation');
        end if;
        return coalesce(new, old);
    end $$;
    create trigger trap before insert or update or delete on recents.recent_workflow
        for each row execute function trap();
    create trigger trap before insert or update or delete on recents.note
        for each row execute function trap();";
const SERIALIZABLE: &str = "
    do $$ begin
        execute format('alter database %I set default_transaction_isolation = serializable',
                       current_database());
    end $$";
/// Taken at its word: a mapping query does not ask that itself.
const READ_IN: &str = "
    create function read_in() returns text stable language sql
        as $$ select current_setting('transaction_isolation') $$";
const TRAP_IN_OUTBOX: &str = "
    create trigger trap before delete on recents.outbox for each row execute function trap()";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_whose_transactions_are_serializable_is_followed() {
    let mut setup = Setup::plain(TestDb::migrated(Backend::Postgres).await, 61, 300).await;
    // Runs that are read in another isolation are of another workspace.
    setup.query = setup.query.replace(
        "r.workspace_id as",
        "case read_in() when 'read committed' then r.workspace_id
         else 'read in another isolation' end as",
    );
    for sql in [TRAP, READ_IN, SERIALIZABLE] {
        setup.store.execute(sql).await;
    }
    setup.recents(&["capture", "install"]).expect(0);
    setup.store.execute(TRAP_IN_OUTBOX).await;
    setup.recents(&["backfill"]).expect(0);
    let server = serve(&setup).await;
    let followed = Followed { setup, server };
    let writers: Vec<_> = (0..3)
        .map(|writer| {
            let url = followed.setup.source().url.clone();
            tokio::spawn(async move {
                let mut conn = Beside::connect(Backend::Postgres, &url).await;
                for step in 0..100 {
                    let key = 1_000_000 + writer * 1_000 + step;
                    let sql = format!(
                        "begin isolation level serializable;
                         select count(*) from saved_run where workspace_id = 'w{writer}';
                         insert into saved_run values ({key}, 'w{writer}', 'u1', {step} % 40, now());
                         update saved_run set updated_at = now() where id = {key} - 7;
                         delete from saved_run where id = {key} - 11;
                         commit"
                    );
                    // It is for the application to try again; here, not to.
                    if conn.try_execute(&sql).await.is_err() {
                        conn.execute("rollback").await;
                    }
                }
            })
        })
        .collect();
    while !writers.iter().all(tokio::task::JoinHandle::is_finished) {
        let verified = followed.setup.recents(&["verify", "--repair"]);
        assert!(matches!(verified.code, Some(0 | 3)), "{verified:?}");
        let run = followed.setup.history.runs[0].key.clone();
        let hook = json!({"runs": [{"workspace": "w1", "published_run": "p1", "run": run}]});
        followed
            .server
            .public
            .post("/v1/runs", &hook)
            .await
            .expect(200);
    }
    for writer in writers {
        writer.await.expect("a writer");
    }
    quiet(&followed.setup).await;
    followed.assert_exact("all is drained").await;
    let log = followed.server.log.text();
    assert!(!log.contains("cannot be worked off"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_pooler_too_transactions_have_our_isolation() {
    let cluster = Cluster::start();
    let pooler = cluster.pooler();
    let db = TestDb::apart(&cluster.url).await;
    for sql in [TRAP, SERIALIZABLE] {
        db.execute(sql).await;
    }
    let server = Server::with(&pooler.url, &["--transaction-pooler", "true"]).await;
    let hook = json!({"runs": [{"workspace": "w", "published_run": "p"}]});
    server.public.post("/v1/runs", &hook).await.expect(200);
    until("it is read", async || {
        let list = server.public.get(&list_path("w", None)).await.expect(200);
        (list.published_runs() == ["p"]).then_some(())
    })
    .await;
}
