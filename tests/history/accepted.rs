//! Mapping queries that are fine, however they are written.

use super::refusing::{COLUMNS, FROM, Refusing};
use crate::support::history::layout::Layout;
use crate::support::history::{History, Setup};
use crate::support::{Backend, TestDb, both};

both!(a_query_may_be_written_in_many_ways,);

async fn a_query_may_be_written_in_many_ways(db: TestDb) {
    let mut setup = Refusing::of(db).await.0;
    let columns = COLUMNS;
    for query in [
        format!("{columns} {FROM};"),
        format!("  \n{columns}\n{FROM} ;\n ; "),
        format!("{columns} {FROM} -- the newest"),
        format!("{columns} {FROM}; -- the newest"),
        format!("-- first\n/* this; */ {columns} {FROM}"),
        format!("with v as (select * from saved_run_version) {columns} from runs r join v on v.id = r.parent_version_id"),
        format!("with uses as ({columns} {FROM}) select last_used_at, uid, workspace, published_run, run from uses"),
        format!("{columns} {FROM} where lower(coalesce(r.uid, '')) <> 'nobody'"),
        format!("{} {FROM}", columns.replace("r.uid", "case when length(r.uid) > 0 then r.uid end as uid")),
        "select r.id as run, r.workspace_id as workspace, r.uid, r.updated_at as last_used_at,
                (select v.published_run_id from saved_run_version v where v.id = r.parent_version_id) as published_run
         from runs r".into(),
    ] {
        setup.query = query;
        setup.store.execute("delete from {recents}recent_workflow").await;
        println!("{}", setup.query);
        setup.backfill(&["--restart"]).await;
        setup.recents(&["verify"]).expect(0);
        setup.recents(&["config", "check"]).expect(0);
    }
    if setup.store.backend == Backend::Postgres {
        // Of the test's own, one of them only stable.
        setup.store.execute(
            "create function same(id bigint) returns bigint language sql stable as 'select id';
             create function public.trimmed(t text) returns text language sql immutable as 'select trim(t)'",
        ).await;
        setup.query = format!(
            "{} {FROM}",
            columns
                .replace("r.id as", "same(r.id) as")
                .replace("r.uid", "public.trimmed(r.uid) as uid")
        );
        setup.backfill(&["--restart"]).await;
    }
}

/// An empty history shows nothing wrong, and a query is not refused for what cannot be seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_history_is_enough_to_check_columns_and_types() {
    for backend in [Backend::Postgres, Backend::Sqlite] {
        let history = History::of(Layout::of(backend), Vec::new());
        let mut refusing = Refusing(Setup::of(TestDb::migrated(backend).await, history).await);
        refusing
            .refuses(
                &format!("{COLUMNS} {FROM} where r.created_at is null"),
                &["created_at"],
            )
            .await;
        refusing.0.query = format!("{COLUMNS} {FROM}");
        refusing.0.recents(&["backfill"]).expect(0);
    }
}
