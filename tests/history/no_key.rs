//! Runs without a key: nothing can name them, so that they are in no list, whatever the way.

use crate::capture::followed::serve_with;
use crate::support::client::list_path;
use crate::support::history::layout::Layout;
use crate::support::history::{History, Run, Setup};
use crate::support::{TestDb, both};

both!(a_run_without_a_key_counts_in_no_way_of_reading,);

async fn a_run_without_a_key_counts_in_no_way_of_reading(db: TestDb) {
    let layout = Layout {
        constraint: "unique",
        ..Layout::of(db.backend)
    };
    let runs = [(1, "w", 1), (2, "w", 2), (3, "v", 2)];
    let runs = runs.map(|(key, workspace, version)| Run::new(key, workspace, version, key).by("u"));
    let setup = Setup::of(db, History::of(layout, runs.to_vec())).await;
    // One of a workflow of its own, one newer than the run of a row.
    let without = "insert into saved_run_version values (3, 'p3');
                   insert into saved_run
                       select null, workspace_id, uid, 3, updated_at from saved_run where id = 1;
                   insert into saved_run select null, 'v', uid, parent_version_id, updated_at
                       from saved_run where id = 2";
    setup.source().execute(without).await;
    for args in [
        &["backfill"][..],
        &["backfill", "--one-pass", "--restart"],
        &["resync", "--workspace", "w"],
        &["resync", "--all", "--mode", "rebuild", "--yes"],
        &["verify"],
    ] {
        setup.recents(args).expect(0);
        setup.assert_equal(&args.join(" ")).await;
    }
    let wrong = "update {recents}recent_workflow set run = '~'";
    setup.store.execute(wrong).await;
    setup.recents(&["verify", "--repair"]).expect(3);
    setup.assert_equal("computed again").await;
    let server = serve_with(&setup, &["--force-read-path", "history"]).await;
    for uid in [None, Some("u")] {
        let list = server.public.get(&list_path("w", uid)).await.expect(200);
        assert_eq!(list.published_runs(), ["p2", "p1"]);
    }
}
