//! A service whose role did not install capture: what it lacks is told as the statements that mend it.

use std::process::Command;

use serde_json::Value;

use super::followed::{quiet, serve_with};
use super::install::setup;
use crate::support::command::Ended;
use crate::support::history::Setup;
use crate::support::history::layout::POSTGRES;
use crate::support::until;

/// Installed and filled by somebody else; and the url of a role that only reads the history.
async fn installed_by_another() -> (Setup, String) {
    let mut setup = setup(POSTGRES).await;
    setup.recents(&["capture", "install"]).expect(0);
    setup.recents(&["backfill"]).expect(0);
    let reads = "grant select on saved_run, saved_run_version to %";
    let url = setup.store.role(&[reads]).await;
    (setup, url)
}

fn as_role(setup: &Setup, url: &str, args: &[&str], code: i32) -> Ended {
    let mut command: Command = setup.command(args);
    command.env("RECENTS_HISTORY_URL", url);
    Ended::from(command.output().expect("it runs")).expect(code)
}

/// The statements that a message ends with.
#[track_caller]
fn grants(told: &str) -> String {
    let at = told.find("grant ");
    let at = at.unwrap_or_else(|| panic!("no grants: {told}"));
    told[at..].trim().to_owned()
}

#[tokio::test]
async fn status_tells_the_grants_that_the_role_lacks_and_no_others() {
    let (setup, url) = installed_by_another().await;
    let told = as_role(&setup, &url, &["capture", "status"], 1);
    let both = grants(&told.err);
    assert!(
        both.starts_with("grant usage on schema recents to "),
        "{both}"
    );
    assert_eq!(both.matches("grant ").count(), 2, "{both}");
    setup.source().execute(&both).await;
    as_role(&setup, &url, &["capture", "status"], 0);
    // Also where only looking at the notes is allowed.
    let role = both.rsplit(' ').next().unwrap_or_default();
    let revoke = format!("revoke delete on recents.outbox from {role}");
    setup.source().execute(&revoke).await;
    let told = as_role(&setup, &url, &["capture", "status"], 1);
    let one = grants(&told.err);
    assert_eq!(one.matches("grant ").count(), 1, "{one}");
    setup.source().execute(&one).await;
    as_role(&setup, &url, &["capture", "status"], 0);
}

/// Also where it may not yet look at the table.
#[tokio::test]
async fn who_installs_hears_at_once_of_all_that_it_lacks() {
    let mut setup = setup(POSTGRES).await;
    let reads = "grant select on saved_run, saved_run_version to %";
    let url = setup.store.role(&[reads]).await;
    let install = |code| {
        let mut command: Command = setup.command(&["capture", "install"]);
        command.env("RECENTS_DATABASE_URL", &url);
        command.env("RECENTS_HISTORY_URL", &url);
        Ended::from(command.output().expect("it runs")).expect(code)
    };
    let lacks = grants(&install(1).err);
    assert_eq!(lacks.matches("grant ").count(), 4, "{lacks}");
    setup.source().execute(&lacks).await;
    install(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_may_not_drain_says_what_lets_it() {
    let (setup, url) = installed_by_another().await;
    let server = serve_with(&setup, &["--history-url", &url]).await;
    let mut conn = setup.source().connect().await;
    conn.execute("update saved_run set workspace_id = 'moved' where id % 2 = 0")
        .await;
    let says = async |message: &str, lacks: usize| {
        let is = |event: &Value| {
            let error = event["error"].as_str().unwrap_or_default();
            event["message"] == message && error.matches("grant ").count() == lacks
        };
        let event = server.log.event("it says so", is).await;
        grants(event["error"].as_str().unwrap_or_default())
    };
    let both = says("the outbox is not drained", 2).await;
    let role = both.trim_end_matches(';').rsplit(' ').next();
    let role = role.unwrap_or_default();
    // How much waits, nobody knows; since when, it does.
    until("the lag grows", async || {
        let lag = server.metric("recents_capture_lag_seconds").await;
        (lag > 1.0).then_some(())
    })
    .await;
    // Now it may look, and not take.
    let look = format!("{both} revoke update, delete on recents.outbox from {role}");
    conn.execute(&look).await;
    let one = says("notes cannot be worked off; trying again", 1).await;
    conn.execute(&one).await;
    quiet(&setup).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_doctor_says_lets_the_role_take_notes() {
    let (setup, url) = installed_by_another().await;
    let doctor = |code| {
        let ended = as_role(&setup, &url, &["doctor", "--json"], code);
        let told: Value = serde_json::from_str(&ended.out).expect("JSON");
        let findings = told.as_array().expect("findings");
        let of = |finding: &&Value| finding["check"] == "outbox";
        findings.iter().find(of).cloned().expect("it was looked at")
    };
    let lacks = doctor(1);
    assert_eq!(lacks["verdict"], "failure", "{lacks}");
    let mend = lacks["mend"].as_str().unwrap_or_default();
    setup.source().execute(mend).await;
    assert_eq!(doctor(0)["verdict"], "ok");
}
