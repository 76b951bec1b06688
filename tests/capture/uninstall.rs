//! Removing capture, whatever became of the history and of its mapping.

use std::time::{Duration, Instant};

use super::followed::{Followed, plain};
use super::install::{TRACES, setup};
use crate::cli::doctor::{doctor, finding};
use crate::support::history::Setup;
use crate::support::history::layout::{ALL, POSTGRES};
use crate::support::{Backend, TestDb, until};

/// Installed, and then changed by the application's owner; with what was there before.
async fn changed(setup: &Setup, change: &str) -> Vec<String> {
    let mut conn = setup.source().connect().await;
    let before = conn.texts(TRACES).await;
    setup.recents(&["capture", "install"]).expect(0);
    conn.execute(change).await;
    before
}

/// Uninstalls and sees that nothing is left.
async fn assert_removed(setup: &Setup, before: &[String], change: &str) {
    setup.recents(&["capture", "uninstall"]).expect(0);
    let left = setup.source().connect().await.texts(TRACES).await;
    assert_eq!(left, before, "{change}");
    let again = setup.recents(&["capture", "uninstall"]).expect(0);
    assert!(again.err.contains("nothing to remove"), "{again:?}");
}

#[tokio::test]
async fn a_key_that_was_renamed_is_told_and_the_application_can_write_again() {
    let setup = setup(POSTGRES).await;
    let change = "alter table saved_run rename column id to run_id";
    let before = changed(&setup, change).await;
    let mut application = setup.source().connect().await;
    let insert = "insert into saved_run values (9001, 'w', 'u', 1, now())";
    application
        .try_execute(insert)
        .await
        .expect_err("the trigger names the key");
    let status = setup.json(&["capture", "status"], 1);
    assert_eq!(status["covered"], false, "{status}");
    let misfit = status["misfit"].as_str().unwrap_or_default();
    assert!(misfit.contains("column \"id\" does not exist"), "{status}");
    let told = setup.recents(&["capture", "status"]).expect(1);
    assert!(told.out.contains(misfit), "{told:?}");
    assert!(told.err.contains("cannot write"), "{told:?}");
    assert_removed(&setup, &before, change).await;
    application.execute(insert).await;
}

/// A backfill does not find what was deleted or moved while nobody noted it.
#[tokio::test]
async fn what_was_missed_before_another_installation_is_left_to_verify() {
    let setup = setup(POSTGRES).await;
    let first = setup.recents(&["capture", "install"]).expect(0);
    assert!(first.err.contains("recents backfill"), "{first:?}");
    setup.recents(&["backfill"]).expect(0);
    setup.recents(&["capture", "uninstall"]).expect(0);
    setup.source().execute("delete from saved_run").await;
    let again = setup.recents(&["capture", "install"]).expect(0);
    assert!(again.err.contains("recents verify --repair"), "{again:?}");
    assert!(!again.err.contains("recents backfill"), "{again:?}");
    setup.recents(&["verify", "--repair"]).expect(3);
    setup.recents(&["verify"]).expect(0);
}

/// What was proved before says nothing of a time in which nobody noted, or a function that somebody changed.
#[tokio::test]
async fn a_proof_from_before_another_installation_is_one_no_longer() {
    let setup = setup(POSTGRES).await;
    let audit = || finding(&doctor(&setup, &[], 0), "audit");
    setup.recents(&["capture", "install"]).expect(0);
    setup.recents(&["backfill"]).expect(0);
    setup.recents(&["verify"]).expect(0);
    assert_eq!(audit().0, "ok");
    setup.recents(&["capture", "install"]).expect(0);
    assert_eq!(audit().0, "ok", "nothing was changed");
    let empty = "create or replace function recents.capture_deleted() returns trigger language plpgsql
                 security definer set search_path = pg_catalog, pg_temp as 'begin return null; end'";
    setup.source().execute(empty).await;
    setup.recents(&["capture", "install"]).expect(0);
    let (verdict, detail, mend) = audit();
    assert_eq!(verdict, "warning", "{detail}");
    assert!(
        detail.contains("not since capture was installed"),
        "{detail}"
    );
    assert!(mend.starts_with("recents verify"), "{mend}");
    setup.recents(&["verify"]).expect(0);
    setup.recents(&["capture", "uninstall"]).expect(0);
    setup.recents(&["capture", "install"]).expect(0);
    assert_eq!(audit().0, "warning");
    setup.recents(&["verify"]).expect(0);
    assert_eq!(audit().0, "ok");
}

/// Changes that a service follows one after the other, behind an installation that it saw go and come.
const CHANGES: usize = 5;
/// Each is seen within some ten milliseconds, the first one within a few seconds. Those that only a look at
/// everything finds take five seconds each.
const SOON: Duration = Duration::from_secs(15);

/// The outbox is another one then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_follows_at_once_what_changes_behind_another_installation() {
    let followed = plain(TestDb::migrated(Backend::Postgres).await, 58, 100).await;
    // Longer than the drain expects notes of lower ids than those that it saw, which is two seconds.
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(3) {
        // A row of the outbox each.
        let changes = "do $$ begin for n in 1..10 loop
                           update saved_run set updated_at = now()
                               where id = (select min(id) from saved_run);
                       end loop; end $$";
        followed.app(changes).await;
        followed.quiet().await;
    }
    followed.setup.recents(&["capture", "uninstall"]).expect(0);
    followed.setup.recents(&["capture", "install"]).expect(0);
    let installed = Instant::now();
    for change in 0..CHANGES {
        let workspace = format!("behind {change}");
        let sql = format!(
            "insert into saved_run values (30000 + {change}, '{workspace}', null,
                 (select min(id) from saved_run_version where published_run_id is not null), now())"
        );
        followed.app(&sql).await;
        until("it is followed", async || {
            let rows = followed.setup.store.rows().await;
            rows.keys().any(|key| key.0 == workspace).then_some(())
        })
        .await;
    }
    let took = installed.elapsed();
    assert!(took < SOON, "{CHANGES} changes took {took:?}");
}

#[tokio::test]
async fn a_query_that_is_refused_is_told_and_no_obstacle() {
    let mut setup = setup(POSTGRES).await;
    let before = changed(&setup, "select").await;
    setup.query += " limit 1";
    let status = setup.json(&["capture", "status"], 1);
    let misfit = status["misfit"].as_str().unwrap_or_default();
    assert!(misfit.contains("LIMIT"), "{status}");
    assert_removed(&setup, &before, "a query that is refused").await;
}

#[tokio::test]
async fn triggers_are_removed_wherever_they_are() {
    let partitions = ALL.into_iter().find(|layout| layout.name == "partitions");
    let partitions = partitions.expect("it is there");
    for (layout, change) in [
        (POSTGRES, "drop table saved_run"),
        (POSTGRES, "alter table saved_run rename to somebodys_run"),
        (
            POSTGRES,
            "create schema elsewhere; alter table saved_run set schema elsewhere",
        ),
        (
            POSTGRES,
            "alter trigger recents_capture_insert on saved_run rename to renamed",
        ),
        (partitions, "select"),
        (
            partitions,
            "alter table saved_run detach partition saved_run_1; drop table saved_run",
        ),
    ] {
        let setup = setup(layout).await;
        let before = changed(&setup, change).await;
        assert_removed(&setup, &before, change).await;
    }
}

#[tokio::test]
async fn what_is_printed_removes_as_much() {
    let setup = setup(POSTGRES).await;
    let change = "alter table saved_run rename to somebodys_run";
    let before = changed(&setup, change).await;
    let printed = setup
        .recents(&["capture", "uninstall", "--print"])
        .expect(0);
    setup.source().execute(&printed.out).await;
    let left = setup.source().connect().await.texts(TRACES).await;
    assert_eq!(left, before);
}

#[tokio::test]
async fn a_table_that_is_held_is_named_and_left_as_it_is() {
    let setup = setup(POSTGRES).await;
    setup.recents(&["capture", "install"]).expect(0);
    let mut holder = setup.source().connect().await;
    holder
        .execute("begin; delete from saved_run where id = 1")
        .await;
    let refused = setup.recents(&["capture", "uninstall"]).expect(1);
    let told = "a transaction holds public.saved_run";
    assert!(refused.err.contains(told), "{refused:?}");
    holder.execute("rollback").await;
    setup.recents(&["capture", "status"]).expect(0);
}

/// No fault of anybody's: there is nothing to mend.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_service_says_that_capture_was_uninstalled_and_no_more() {
    let followed = Followed::start(setup(POSTGRES).await).await;
    // That it knows of capture is seen by what it follows.
    followed
        .app("insert into saved_run values (9998, 'first', 'u', 1, now())")
        .await;
    followed.quiet().await;
    let Followed { setup, server } = followed;
    setup.recents(&["capture", "uninstall"]).expect(0);
    let uninstalled = "capture was uninstalled: what changes in the history is noted no more";
    until("it is told", async || {
        let told = format!("\"message\":\"{uninstalled}\"");
        server.log.text().contains(&told).then_some(())
    })
    .await;
    let log = server.log.text();
    assert!(!log.contains("notes cannot be worked off"), "{log}");
    // Installed anew, it goes on.
    setup.recents(&["capture", "install"]).expect(0);
    let followed = Followed { setup, server };
    followed
        .app("insert into saved_run values (9999, 'anew', 'u', 1, now())")
        .await;
    followed.assert_exact("after another installation").await;
}
