//! What `read_database_url` names is no streaming replica of the database, or none any more.

use super::hears;
use super::standby::{asks, asks_at, position, replica_was_asked, rounds};
use crate::support::client::list_path;
use crate::support::{Backend, Beside, Cluster, Server, TestDb, Wire, recents, until};

/// After a failover positions are counted on in two logs: that of one server may be beyond a token's, and
/// lack the write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_of_another_timeline_answers_nobody() {
    let old = Cluster::start();
    drop(TestDb::apart(&old.url).await);
    let (promoted, left) = (old.standby(), old.standby());
    let mut on_promoted = Beside::connect(Backend::Postgres, &promoted.url).await;
    on_promoted.execute("select pg_promote()").await;
    // The second one follows the old one still.
    for (primary, replica, writer, why) in [
        (&old, &promoted, &promoted, "it is no standby"),
        (&promoted, &left, &old, "it is of timeline"),
    ] {
        get_ahead(replica, writer, primary).await;
        let server = asks(primary, replica).await;
        rounds(&server, 0..20).await;
        says(&server, primary, replica, why).await;
    }
}

/// Positions of two servers say nothing of each other, whatever their timelines.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_of_another_server_and_what_is_none_answer_nobody() {
    let (restored, old) = (Cluster::start(), Cluster::start());
    for cluster in [&restored, &old] {
        drop(TestDb::apart(&cluster.url).await);
    }
    let standby = old.standby();
    for (replica, first, why) in [
        (&standby, 0, "it is a standby of another server"),
        (&old, 20, "it is no standby"),
    ] {
        get_ahead(replica, &old, &restored).await;
        let server = asks(&restored, replica).await;
        rounds(&server, first..first + 20).await;
        says(&server, &restored, replica, why).await;
    }
}

/// A cold copy is of the same timeline: what was written since is in the standby still, and the positions that
/// it took are given to other writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_is_ahead_of_a_primary_that_was_put_back_answers_nobody() {
    let cluster = Cluster::start();
    drop(TestDb::apart(&cluster.url).await);
    let standby = cluster.standby();
    let copy = cluster.copy();
    let server = asks(&cluster, &standby).await;
    rounds(&server, 0..5).await;
    get_ahead(&standby, &cluster, &cluster).await;
    let said = server.log.events().len();
    cluster.put_back(copy);
    until("it listens to what was put back", async || {
        let events = server.log.events();
        let listens = |event: &&serde_json::Value| {
            event["message"] == "listening to changes of other processes"
        };
        events.iter().skip(said).find(listens).map(drop)
    })
    .await;
    rounds(&server, 5..50).await;
    let why = "it is ahead of the primary";
    says(&server, &cluster, &standby, why).await;
    rounds(&server, 50..60).await;
}

/// Each of the standbys behind one address is looked at by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_is_ahead_answers_nobody_though_another_one_behind_its_address_may() {
    let cluster = Cluster::start();
    drop(TestDb::apart(&cluster.url).await);
    let forgotten = cluster.standby();
    let copy = cluster.copy();
    get_ahead(&forgotten, &cluster, &cluster).await;
    cluster.put_back(copy);
    let anew = cluster.standby();
    let wire = Wire::among(&[&anew.url, &forgotten.url]).await;
    let server = asks_at(&cluster, &wire.url).await;
    let mut standbys = [
        Beside::connect(Backend::Postgres, &anew.url).await,
        Beside::connect(Backend::Postgres, &forgotten.url).await,
    ];
    let mut written = 0;
    let mut round = async || {
        written += 1;
        rounds(&server, written - 1..written).await;
    };
    for _ in 0..6 {
        let asked = replica_was_asked(&server).await;
        until("a replica is asked again", async || {
            round().await;
            (replica_was_asked(&server).await > asked + 4.0).then_some(())
        })
        .await;
        for standby in &mut standbys {
            let end = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                       where pid <> pg_backend_pid() and backend_type = 'client backend'";
            standby.execute(end).await;
        }
    }
    let why = "it is ahead of the primary";
    let told = |event: &serde_json::Value| event["error"].to_string().contains(why);
    server.log.event("it says why", told).await;
}

/// The databases of a server share its log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_database_of_the_standby_answers_nobody() {
    let cluster = Cluster::start();
    drop(TestDb::apart(&cluster.url).await);
    let mut beside = Beside::connect(Backend::Postgres, &cluster.url).await;
    let named = |cluster: &Cluster, name: &str| {
        let (server, _) = cluster.url.rsplit_once('/').expect("a url with a database");
        format!("{server}/{name}")
    };
    let serve = async |database: &str, replica: &str| {
        let flags = ["--read-database-url", replica, "--cache-capacity", "0"];
        let server = Server::with(database, &flags).await;
        hears(&server).await;
        server
    };
    let wrong = "insert into recents.recent_workflow values ('w', '', 'wrong', now(), null)";
    for name in ["app", "restored"] {
        beside.execute(&format!("create database {name}")).await;
        drop(TestDb::apart(&named(&cluster, name)).await);
    }
    let mut old = Beside::connect(Backend::Postgres, &named(&cluster, "app")).await;
    let standby = cluster.standby();
    let (app, on_standby) = (named(&cluster, "app"), named(&standby, "app"));

    old.execute(wrong).await;
    let misled = serve(&cluster.url, &on_standby).await;
    rounds(&misled, 0..10).await;
    let told = |event: &serde_json::Value| event["error"].to_string().contains("another database");
    misled.log.event("it says why", told).await;

    // As it is restored beside the old one, and takes its name.
    let server = serve(&app, &on_standby).await;
    let path = list_path("w", None);
    until("the replica answers", async || {
        server.public.get(&path).await.expect(200);
        (replica_was_asked(&server).await > 1.0).then_some(())
    })
    .await;
    drop(old);
    let swap =
        "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = 'app'";
    let rename = "alter database app rename to before";
    until("nobody is in it", async || {
        beside.execute(swap).await;
        beside.try_execute(rename).await.ok()
    })
    .await;
    beside
        .execute("alter database restored rename to app")
        .await;
    until("the restored one answers", async || {
        let list = server.public.get(&path).await;
        (list.status == 200 && list.published_runs().is_empty()).then_some(())
    })
    .await;
    rounds(&server, 0..30).await;
}

/// Has a server, or a standby of the one that writes, pass another one by far.
async fn get_ahead(replica: &Cluster, writer: &Cluster, primary: &Cluster) {
    let [mut at, mut writes] = [
        Beside::connect(Backend::Postgres, &replica.url).await,
        Beside::connect(Backend::Postgres, &writer.url).await,
    ];
    let far = position(primary).await;
    let is_far = format!(
        "select (case when pg_is_in_recovery() then pg_last_wal_replay_lsn()
                      else pg_current_wal_flush_lsn() end > '{far}'::pg_lsn + 33554432)::text"
    );
    // No more than that: the log is not kept for a standby that is still to come.
    while writes.texts(&is_far).await != ["true"] {
        let fill = "create table if not exists filler (n int); insert into filler values (1)";
        writes.execute(fill).await;
        writes.execute("select pg_switch_wal()").await;
    }
    until("the replica is far ahead", async || {
        (at.texts(&is_far).await == ["true"]).then_some(())
    })
    .await;
}

/// The server and the doctor say why the replica is not read.
async fn says(server: &Server, primary: &Cluster, replica: &Cluster, why: &str) {
    let told = |event: &serde_json::Value| event["error"].to_string().contains(why);
    server.log.event("it says why", told).await;
    let urls = [
        "--database-url",
        &primary.url,
        "--read-database-url",
        &replica.url,
    ];
    let told = recents(&[&["doctor", "--json"][..], &urls].concat())
        .expect(1)
        .out;
    assert!(told.contains(why), "{told}");
}
