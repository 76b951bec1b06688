//! What `capture status` sees: a part of the history, or of capture, that is not as it was installed.

use super::install::setup;
use crate::support::history::layout::{ALL, POSTGRES};
use crate::support::history::Layout;

fn partitions() -> Layout {
    let layout = ALL.into_iter().find(|layout| layout.name == "partitions");
    layout.expect("it is there")
}

#[tokio::test]
async fn a_foreign_part_is_refused_and_told_when_it_comes_later() {
    let of = "server files options (filename '/dev/null')";
    for (layout, comes) in [
        (
            POSTGRES,
            "create foreign table elsewhere () inherits (saved_run)",
        ),
        (
            partitions(),
            // No table with a unique index takes a foreign partition.
            "alter table saved_run drop constraint if exists saved_run_pkey;
             create foreign table elsewhere partition of saved_run for values from (90000) to (99999)",
        ),
    ] {
        let setup = setup(layout).await;
        let comes = &format!("{comes} {of}");
        let goes = "drop foreign table elsewhere";
        let mut conn = setup.source().connect().await;
        conn.execute(
            "create extension file_fdw; create server files foreign data wrapper file_fdw",
        )
        .await;
        conn.execute(comes).await;
        let refused = setup.recents(&["capture", "install"]).expect(2);
        let told = "public.elsewhere: it is a foreign table";
        assert!(refused.err.contains(told), "{refused:?}");
        conn.execute(goes).await;
        setup.recents(&["capture", "install"]).expect(0);
        setup.recents(&["capture", "status"]).expect(0);
        conn.execute(comes).await;
        let status = setup.json(&["capture", "status"], 1);
        assert_eq!(status["covered"], false, "{status}");
        let status = setup.recents(&["capture", "status"]).expect(1);
        assert!(status.out.contains(told), "{status:?}");
        conn.execute(goes).await;
        setup.recents(&["capture", "status"]).expect(0);
    }
}
