//! A history that a running service follows.

use crate::support::history::setup::same;
use crate::support::history::{Layout, Setup};
use crate::support::uses::Rows;
use crate::support::{Server, TestDb, until};

/// A history with capture installed, its backfill done, and a service that drains.
pub(crate) struct Followed {
    pub(crate) setup: Setup,
    pub(crate) server: Server,
}

impl Followed {
    /// Follows a history, installed before the backfill, as it should be.
    pub(crate) async fn start(setup: Setup) -> Self {
        setup.recents(&["capture", "install"]).expect(0);
        setup.recents(&["backfill"]).expect(0);
        let server = serve(&setup).await;
        Self { setup, server }
    }

    /// Runs statements of the application.
    pub(crate) async fn app(&self, sql: &str) {
        self.setup.source().execute(sql).await;
    }

    /// Waits until every note is worked off.
    pub(crate) async fn quiet(&self) {
        quiet(&self.setup).await;
    }

    /// When it is quiet: the table says what the history says, by a query of the test's own and by
    /// verify.
    pub(crate) async fn assert_exact(&self, when: &str) {
        self.quiet().await;
        same(
            &self.setup.store.rows().await,
            &grouped(&self.setup).await,
            when,
        );
        self.setup.recents(&["verify"]).expect(0);
    }
}

pub(crate) async fn serve(setup: &Setup) -> Server {
    serve_with(setup, &[]).await
}

pub(crate) async fn serve_with(setup: &Setup, more: &[&str]) -> Server {
    serve_on(&setup.store.url, setup, more).await
}

/// Serves another store. Without the audit, unless asked for: it looks at the history, and mends what a test
/// spoils for others to find.
pub(crate) async fn serve_on(store: &str, setup: &Setup, more: &[&str]) -> Server {
    let layout = &setup.history.layout;
    let mut flags = vec![
        "--history-table",
        layout.table,
        "--history-key",
        layout.key,
        "--history-query",
        &setup.query,
    ];
    if let Some(apart) = &setup.apart
        && !more.contains(&"--history-url")
    {
        flags.extend(["--history-url", &apart.url]);
    }
    if !more.contains(&"--audit") {
        flags.extend(["--audit", "false"]);
    }
    flags.extend(more);
    Server::with(store, &flags).await
}

/// Waits until every note is worked off, those that were set aside apart.
pub(crate) async fn quiet(setup: &Setup) {
    let (mut source, mut store) = (setup.source().connect().await, setup.store.connect().await);
    until("every note is worked off", async || {
        let outbox = source
            .texts("select count(*)::text from recents.outbox")
            .await;
        let notes = "select cast(count(*) as text) from {recents}note where error is null";
        let notes = store.texts(notes).await;
        (outbox == ["0"] && notes == ["0"]).then_some(())
    })
    .await;
}

/// What the history says, by one query of PostgreSQL that shares nothing with the product's.
pub(crate) async fn grouped(setup: &Setup) -> Rows {
    let Layout { table, key, .. } = setup.history.layout;
    let sql = format!(
        "with uses as (
             select r.workspace_id::text as w, r.uid, v.published_run_id::text as p, r.{key}::text as run,
                 (extract(epoch from r.updated_at) * 1000000)::bigint as micros
             from {table} r join saved_run_version v on v.id = r.parent_version_id
             where r.workspace_id is not null and v.published_run_id is not null
               and r.updated_at is not null
         ), lists as (
             select w, '' as u, p, micros, run from uses
             union all select w, uid, p, micros, run from uses where uid <> ''
         )
         select distinct on (w, u, p) json_build_array(w, u, p, micros, run)::text
         from lists order by w, u, p, micros desc, run collate \"C\" desc"
    );
    let rows = setup.source().connect().await.texts(&sql).await;
    rows.iter()
        .map(|row| {
            let (w, u, p, micros, run) = serde_json::from_str(row).expect("a row");
            ((w, u, p), (micros, run))
        })
        .collect()
}

/// A plain PostgreSQL history of `runs` random runs, followed into a table of this database.
pub(crate) async fn plain(db: TestDb, seed: u64, runs: usize) -> Followed {
    use crate::support::history::History;
    use crate::support::history::layout::POSTGRES;
    let history = History::random(POSTGRES, seed, runs);
    Followed::start(Setup::of(db, history).await).await
}
