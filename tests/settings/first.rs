//! Where the settings come from when a service starts.

use serde_json::json;

use super::changed::{patch, settings, shown};
use crate::capture::followed::serve_with;
use crate::support::history::Setup;
use crate::support::{Backend, Server, TestDb, both, until};

both!(
    what_is_stored_beats_the_configuration_which_sets_the_first_one,
    auto_reads_the_history_until_the_first_backfill_succeeded,
    a_forced_read_path_needs_no_stored_one,
);

async fn what_is_stored_beats_the_configuration_which_sets_the_first_one(db: TestDb) {
    let setup = Setup::plain(db, 54, 50).await;
    let first = serve_with(
        &setup,
        &["--read-path", "shadow", "--details-mode", "per_item"],
    )
    .await;
    let configured = json!({"read_path": "shadow", "details_mode": "per_item"});
    assert_eq!(settings(&first).await, configured);
    drop(first);
    let second = serve_with(&setup, &["--read-path", "history", "--details-mode", "off"]).await;
    assert_eq!(settings(&second).await, configured, "the first one stays");
    patch(&second, &json!({"read_path": "materialized"}))
        .await
        .expect(200);
    drop(second);
    let third = serve_with(&setup, &["--read-path", "history"]).await;
    let changed = json!({"read_path": "materialized", "details_mode": "per_item"});
    assert_eq!(settings(&third).await, changed, "what was changed stays");
}

async fn auto_reads_the_history_until_the_first_backfill_succeeded(db: TestDb) {
    let setup = Setup::plain(db, 7, 50).await;
    let server = serve_with(&setup, &[]).await;
    assert_eq!(settings(&server).await["read_path"], "history");
    assert_eq!(shown(&server).await, ["history"]);
    setup.backfill(&[]).await;
    until("a backfill succeeded", async || {
        (settings(&server).await["read_path"] == "materialized").then_some(())
    })
    .await;
    assert_eq!(shown(&server).await, ["materialized"]);
    drop(server);
    let server = serve_with(&setup, &[]).await;
    assert_eq!(settings(&server).await["read_path"], "materialized");
}

async fn a_forced_read_path_needs_no_stored_one(db: TestDb) {
    let setup = Setup::plain(db, 7, 50).await;
    setup.store.execute("drop table {recents}setting").await;
    let server = serve_with(&setup, &["--force-read-path", "history"]).await;
    assert_eq!(settings(&server).await["read_path"], "history");
}

#[tokio::test]
async fn who_may_only_read_the_settings_serves_as_configured_until_they_are_stored() {
    let mut db = TestDb::migrated(Backend::Postgres).await;
    let grants = [
        "grant usage on schema recents to %",
        "grant select on all tables in schema recents to %",
    ];
    let url = db.role(&grants).await;
    let reading = Server::with(&url, &["--details-mode", "per_item"]).await;
    assert_eq!(settings(&reading).await["details_mode"], "per_item");
    let _storing = Server::with(&db.url, &["--details-mode", "off"]).await;
    until("what is stored counts", async || {
        (settings(&reading).await["details_mode"] == "off").then_some(())
    })
    .await;
}
