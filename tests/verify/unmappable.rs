//! Runs that cannot be mapped keep nothing else from being proven and mended.

use serde_json::json;

use super::found::{differences, found, key};
use crate::support::history::garbled::GARBAGE;
use crate::support::history::{At, Setup};
use crate::support::{TestDb, both};

both!(
    what_differs_around_a_run_that_cannot_be_mapped_is_found_and_mended,
    a_row_whose_run_cannot_be_mapped_is_not_said_to_be_wrong,
    a_workspace_is_verified_around_such_a_run,
);

const PLACES: [usize; 3] = [0, 200, 399];

async fn what_differs_around_a_run_that_cannot_be_mapped_is_found_and_mended(db: TestDb) {
    let setup = Setup::garbled(db, 211, 400, &PLACES).await;
    setup.recents(&["backfill"]).expect(0);
    let clean = setup.recents(&["verify"]).expect(0);
    assert!(clean.out.starts_with("400 runs, "), "{clean:?}");
    assert!(clean.out.contains(" 0 differences, "), "{clean:?}");
    let named = format!("run {} cannot be mapped", setup.key(200));
    assert!(clean.err.contains(&named), "{clean:?}");
    assert!(
        clean.err.contains("\n3 runs cannot be mapped: "),
        "{clean:?}"
    );
    let clean = setup.json(&["verify"], 0);
    assert_eq!(
        (&clean["unmappable"], &clean["differences"]),
        (&json!(3), &json!(0))
    );
    // Of the very workspace and workflow of these runs, and of others.
    for sql in [
        "delete from {recents}recent_workflow where published_run in ('p1', 'p2')",
        "update {recents}recent_workflow set run = '~' where published_run = 'p3'",
    ] {
        setup.store.execute(sql).await;
    }
    setup.put(&key("w1", "", "nothing"), &(1, None)).await;
    let differing = differences(&setup.store.rows().await, &setup.history.rows());
    assert!(differing.len() > 20, "{} say little", differing.len());
    setup.verify_is(&[], differing.clone()).await;
    let repaired = setup.recents(&["verify", "--repair", "--json"]).expect(3);
    let (mended, summary) = found(&repaired);
    assert_eq!((mended, &summary["unmappable"]), (differing, &json!(3)));
    setup.assert_equal("after the repair").await;
    assert_eq!(setup.json(&["verify"], 0)["differences"], 0);
}

async fn a_row_whose_run_cannot_be_mapped_is_not_said_to_be_wrong(db: TestDb) {
    let mut setup = Setup::garbled(db, 212, 400, &[]).await;
    setup.recents(&["backfill"]).expect(0);
    let before = setup.store.rows().await;
    // The run of a row, and of its user's.
    let (of, (_, run)) = before
        .iter()
        .find(|(of, _)| !of.1.is_empty())
        .expect("a row");
    let run = run.clone().expect("its run");
    let broken = format!("update saved_run set updated_at = '{GARBAGE}' where id = {run}");
    setup.source().execute(&broken).await;
    for args in [
        &["verify"][..],
        &["verify", "--repair"],
        &["verify", "--workspace", &of.0],
    ] {
        let verified = setup.json(args, 0);
        assert_eq!(
            (&verified["unmappable"], &verified["differences"]),
            (&json!(1), &json!(0)),
            "{args:?}"
        );
    }
    assert_eq!(setup.store.rows().await, before, "nothing is known of it");
    // A newer use of the same row is found all the same.
    let broken = setup.history.runs.iter_mut().find(|of| of.key == run);
    let broken = broken.expect("the run");
    let mut newer = broken.clone();
    broken.at = Some(At::Never(GARBAGE));
    newer.key = "100000".into();
    newer.at = Some(At::Micros(1_800_000_000_000_000));
    let insert = setup.history.insert(std::slice::from_ref(&newer));
    setup.source().execute(&insert).await;
    setup.history.runs.push(newer);
    let repaired = setup.json(&["verify", "--repair"], 3);
    assert!(repaired["differences"].as_u64() >= Some(1), "{repaired}");
    let rows = setup.store.rows().await;
    assert_eq!(rows[of], setup.history.rows()[of]);
}

async fn a_workspace_is_verified_around_such_a_run(db: TestDb) {
    let setup = Setup::garbled(db, 213, 400, &PLACES).await;
    setup.recents(&["backfill"]).expect(0);
    let lost = "delete from {recents}recent_workflow where published_run = 'p1'";
    setup.store.execute(lost).await;
    let all = differences(&setup.store.rows().await, &setup.history.rows());
    for (workspace, unmappable) in [("w1", 3), ("w2", 0)] {
        let own = |of: &str| of == workspace;
        let mut expected = all.clone();
        expected.retain(|(of, ..), _| own(of));
        assert!(!expected.is_empty());
        let runs = setup.history.runs.iter().filter(|run| {
            // The join drops the others.
            let version = run
                .version
                .filter(|v| setup.history.versions.contains_key(v));
            run.workspace.as_deref().is_some_and(own) && version.is_some()
        });
        let runs = runs.count();
        let repaired = setup.recents(&["verify", "--json", "--repair", "--workspace", workspace]);
        let (found, summary) = found(&repaired.expect(3));
        assert_eq!(found, expected, "{workspace}");
        assert_eq!(
            (&summary["unmappable"], &summary["runs"]),
            (&json!(unmappable), &json!(runs)),
            "{workspace}"
        );
        let clean = setup.json(&["verify", "--workspace", workspace], 0);
        assert_eq!(clean["unmappable"], unmappable, "{workspace}");
    }
}
