//! A re-sync mends everything around the runs that cannot be mapped, and says how many they are.

use serde_json::{Value, json};

use super::{post_json, reaches};
use crate::capture::followed::serve;
use crate::support::history::Setup;
use crate::support::history::garbled::GARBAGE;
use crate::support::{Server, TestDb, both};

both!(
    a_re_sync_mends_the_rest_and_counts_what_cannot_be_mapped,
    a_failed_job_says_nothing_of_what_stands_in_a_run,
);

async fn resync(server: &Server, body: &Value, state: &str) -> Value {
    let asked = post_json(server, "/admin/v1/resyncs", body)
        .await
        .expect(202);
    let id = asked.json()["id"].as_str().expect("an id").to_owned();
    reaches(server, &id, state).await
}

async fn spoil(setup: &Setup) {
    for sql in [
        "delete from {recents}recent_workflow where published_run = 'p1'",
        "update {recents}recent_workflow set run = '~' where published_run = 'p2'",
    ] {
        setup.store.execute(sql).await;
    }
}

async fn a_re_sync_mends_the_rest_and_counts_what_cannot_be_mapped(db: TestDb) {
    let setup = Setup::garbled(db, 221, 400, &[0, 200, 201]).await;
    setup.recents(&["backfill"]).expect(0);
    spoil(&setup).await;
    let merged = setup.json(&["resync", "--all"], 0);
    assert_eq!(
        (&merged["unmappable"], &merged["complete"]),
        (&json!(3), &json!(true))
    );
    let dry = ["resync", "--all", "--mode", "rebuild", "--dry-run"];
    assert_eq!(setup.json(&dry, 0)["unmappable"], 3);
    let rebuild = ["resync", "--all", "--mode", "rebuild", "--yes"];
    let rebuilt = setup.recents(&rebuild).expect(0);
    assert!(rebuilt.out.ends_with("\n  unmappable: 3\n"), "{rebuilt:?}");
    let named = format!(
        "run {} cannot be mapped and is passed over: ",
        setup.key(200)
    );
    assert!(rebuilt.err.contains(&named), "{rebuilt:?}");
    setup.assert_equal("after a rebuild").await;
    let server = serve(&setup).await;
    for body in [
        json!({"all": true, "mode": "rebuild"}),
        json!({"workspace": "w1", "mode": "rebuild"}),
    ] {
        spoil(&setup).await;
        let done = resync(&server, &body, "succeeded").await;
        assert_eq!(done["result"]["unmappable"], 3, "{done}");
        if body["all"] == true {
            setup.assert_equal("after a rebuild by the service").await;
        }
    }
    let logged = server
        .log
        .message("a run cannot be mapped; it is passed over")
        .await;
    assert!(
        logged["error"]
            .as_str()
            .is_some_and(|error| error.contains(GARBAGE)),
        "{logged}"
    );
}

async fn a_failed_job_says_nothing_of_what_stands_in_a_run(db: TestDb) {
    let garbage: Vec<_> = (100..300).collect();
    let setup = Setup::garbled(db, 222, 400, &garbage).await;
    let server = serve(&setup).await;
    let failed = resync(&server, &json!({"all": true}), "failed").await;
    let said = failed["error"].as_str().expect("an error");
    assert!(
        said.contains("more than 100 runs cannot be mapped"),
        "{said}"
    );
    assert!(
        !said.contains(GARBAGE) && !said.contains("syntax"),
        "{said}"
    );
    let logged = server.log.message("the re-sync failed").await;
    assert!(
        logged["error"]
            .as_str()
            .is_some_and(|error| error.contains(GARBAGE)),
        "{logged}"
    );
}
