//! Details: the application's own query, asked seldom and believed exactly.

mod asked;
mod cards;
mod pages;
mod query;
mod reshaped;
mod served;

use std::sync::Arc;
use std::time::Duration;

use recents::config::DetailsConfig;
use recents::details::{Answers, Detail, Details};
use recents::settings::{Change, Configured, DetailsMode, ReadPathChoice, Settings};
use recents::store::Store;
use recents::telemetry::Metrics;
use serde_json::Value;

use crate::support::{Backend, TestDb};

/// Long enough to be for ever.
const LONG: Duration = Duration::from_secs(3_600);

/// Details of the workflows of an application beside the table.
struct Setup {
    db: TestDb,
    store: Store,
    settings: Arc<Settings>,
    metrics: Arc<Metrics>,
    details: Arc<Details>,
}

impl Setup {
    /// Workflows 0 to `count`, each with a title.
    async fn of(db: TestDb, count: u32) -> Self {
        let query = Self::query(&db, "id, 'Title of ' || id as title");
        Self::with(db, count, &query, LONG).await
    }

    /// A query that returns these columns, the first one as the published run.
    fn query(db: &TestDb, columns: &str) -> String {
        let listed = match db.backend {
            Backend::Postgres => "any($1)",
            Backend::Sqlite => "(select value from json_each($1))",
        };
        let equals = if db.backend == Backend::Postgres {
            "="
        } else {
            "in"
        };
        let (id, others) = columns.split_once(',').expect("columns");
        format!("select {id} as published_run, {others} from workflow where id {equals} {listed}")
    }

    async fn with(db: TestDb, count: u32, query: &str, ttl: Duration) -> Self {
        let create = match db.backend {
            Backend::Postgres => {
                "create table workflow (id text primary key, title text);
                 insert into workflow select n, 't' from generate_series(0, {count} - 1) as n"
            }
            Backend::Sqlite => {
                "create table workflow (id text primary key, title text);
                 insert into workflow with recursive n(n) as
                     (select 0 union all select n + 1 from n where n + 1 < {count})
                 select cast(n as text), 't' from n"
            }
        };
        db.execute(&create.replace("{count}", &count.to_string()))
            .await;
        let store = db.store();
        let metrics = Arc::new(Metrics::new(&store));
        let configured = Configured {
            read_path: ReadPathChoice::Auto,
            force_read_path: None,
            details_mode: DetailsMode::Batched,
            has_history: false,
        };
        let settings = Arc::new(Settings::new(configured, Arc::clone(&metrics)));
        let config = DetailsConfig {
            url: db.url.clone(),
            query: query.to_owned(),
            ttl,
        };
        let details = Details::open(&config, Arc::clone(&settings), Arc::clone(&metrics));
        let details = Arc::new(details.expect("a good url"));
        details.check().await.expect("a good query");
        Self {
            db,
            store,
            settings,
            metrics,
            details,
        }
    }

    async fn mode(&self, mode: DetailsMode) {
        let change = Change {
            details_mode: Some(mode),
            ..Change::default()
        };
        self.settings.set(&self.store, change).await.expect("set");
    }

    async fn ask(&self, ids: &[String]) -> Answers {
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        self.details.of(&ids).await
    }

    /// The one card, which there is.
    async fn card(&self, id: &str) -> Value {
        card(self.details.of(&[id]).await.get(id))
    }

    /// How many statements were sent so far.
    fn sent(&self) -> u64 {
        self.metrics.details_statements.get()
    }
}

#[track_caller]
fn card(detail: &Detail) -> Value {
    let Detail::Card(card) = detail else {
        panic!("no card: {detail:?}")
    };
    serde_json::from_str(card).expect("JSON")
}

fn ids(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}
