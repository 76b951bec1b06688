//! Switching the read path under load.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use serde_json::json;

use super::{lists_of, shown};
use crate::capture::followed::serve_with;
use crate::support::client::list_path;
use crate::support::history::Setup;
use crate::support::{TestDb, both};

both!(
    switching_the_path_under_load_changes_no_answer,
    recents_settings_switches_a_running_server,
);

async fn switching_the_path_under_load_changes_no_answer(db: TestDb) {
    let setup = Setup::plain(db, 21, 300).await;
    setup.recents(&["backfill"]).expect(0);
    let server = serve_with(&setup, &[]).await;
    let lists = lists_of(&setup.history.rows());
    let (done, asked) = (AtomicBool::new(false), AtomicU32::new(0));
    let switch = async {
        for at in 0.. {
            if at > 60 && asked.load(Ordering::SeqCst) > 300 {
                break;
            }
            let path = ["history", "materialized", "shadow", "auto"][at % 4];
            let body = json!({"read_path": path}).to_string().into();
            let headers = [("content-type", "application/json")];
            let settings = "/admin/v1/settings";
            server
                .admin
                .send("PATCH", settings, &headers, body)
                .await
                .expect(200);
        }
        done.store(true, Ordering::SeqCst);
    };
    let read = async {
        while !done.load(Ordering::SeqCst) {
            for ((workspace, uid), items) in &lists {
                let uid = Some(uid.as_str()).filter(|uid| !uid.is_empty());
                let path = format!("{}?limit=100", list_path(workspace, uid));
                let answer = server.public.get(&path).await.expect(200).json();
                let found = &answer["recent_workflows"];
                assert_eq!(*found, serde_json::Value::from(shown(items)), "{path}");
                asked.fetch_add(1, Ordering::SeqCst);
            }
        }
    };
    tokio::join!(switch, read);
    let mismatches = r#"recents_shadow_reads_total{result="mismatch"}"#;
    assert_eq!(server.metric(mismatches).await, 0.0);
}

async fn recents_settings_switches_a_running_server(db: TestDb) {
    let setup = Setup::plain(db, 22, 100).await;
    setup.recents(&["backfill"]).expect(0);
    let server = serve_with(&setup, &[]).await;
    // Only the history knows what is right now.
    setup
        .store
        .execute("delete from {recents}recent_workflow")
        .await;
    setup
        .recents(&["settings", "set", "read_path", "history"])
        .expect(0);
    crate::support::until("it reads the history", async || {
        let settings = server.admin.get("/admin/v1/settings").await.json();
        (settings["read_path"] == "history").then_some(())
    })
    .await;
    super::assert_lists(&server, &setup.history.rows(), "3 am").await;
}
