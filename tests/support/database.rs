//! Databases: one for each test, of either kind.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use recents::store::{PoolSettings, Store};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};
use tempfile::TempDir;

use super::beside::Beside;
use super::cluster::{shared_url, temp_dir};
use super::uses::Rows;

/// Which database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    Postgres,
    Sqlite,
}

/// Makes a test on each database out of `async fn name(db: TestDb)`.
macro_rules! both {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            use $crate::support::{Backend, TestDb};

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                super::$name(TestDb::migrated(Backend::Postgres).await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                super::$name(TestDb::migrated(Backend::Sqlite).await).await;
            }
        }
    )+};
}
pub(crate) use both;

/// A database of the test's own, gone when dropped.
pub(crate) struct TestDb {
    pub(crate) backend: Backend,
    pub(crate) url: String,
    kind: Kind,
}

enum Kind {
    Postgres {
        name: String,
        roles: Vec<String>,
    },
    Sqlite {
        _dir: TempDir,
    },
    /// In a cluster of the test's own, which goes as a whole.
    Apart,
}

impl TestDb {
    /// With the schema of this program.
    pub(crate) async fn migrated(backend: Backend) -> Self {
        match backend {
            Backend::Postgres => {
                static TEMPLATE: OnceLock<String> = OnceLock::new();
                // Others wait here while the first one makes it.
                let template = TEMPLATE.get_or_init(|| apart(template()));
                Self::create(&format!("template {template}")).await
            }
            Backend::Sqlite => {
                let db = Self::empty(backend).await;
                migrate(&db.url).await;
                db
            }
        }
    }

    /// The database at `url` of a cluster of the test's own, with the schema of this program.
    pub(crate) async fn apart(url: &str) -> Self {
        migrate(url).await;
        Self {
            backend: Backend::Postgres,
            url: url.to_owned(),
            kind: Kind::Apart,
        }
    }

    /// Without any schema.
    pub(crate) async fn empty(backend: Backend) -> Self {
        match backend {
            Backend::Postgres => Self::create(own_order().await).await,
            Backend::Sqlite => {
                let dir = temp_dir();
                let url = format!("sqlite://{}", dir.path().join("recents.db").display());
                let kind = Kind::Sqlite { _dir: dir };
                Self { backend, url, kind }
            }
        }
    }

    /// A PostgreSQL database made with these options.
    pub(crate) async fn create(options: &str) -> Self {
        let name = unique("recents_test");
        on_shared(&format!("create database {name} {options}"))
            .await
            .expect("a new database");
        let url = url_of(&name);
        let kind = Kind::Postgres {
            name,
            roles: Vec::new(),
        };
        Self {
            backend: Backend::Postgres,
            url,
            kind,
        }
    }

    /// The product's own store on this database.
    pub(crate) fn store(&self) -> Store {
        self.store_of(8)
    }

    /// The same, with that many connections at the most.
    pub(crate) fn store_of(&self, size: u32) -> Store {
        store_at(&self.url, size)
    }

    /// A connection beside the product's, for what only a test does.
    pub(crate) async fn connect(&self) -> Beside {
        Beside::connect(self.backend, &self.url).await
    }

    /// Runs SQL beside the product. `{recents}` qualifies a table's name.
    pub(crate) async fn execute(&self, sql: &str) {
        self.connect().await.execute(sql).await;
    }

    /// The whole table, read without the product.
    pub(crate) async fn rows(&self) -> Rows {
        self.connect().await.rows().await
    }

    /// A role that may do no more than `grants` say (`%` stands for its name); its url.
    pub(crate) async fn role(&mut self, grants: &[&str]) -> String {
        let Kind::Postgres { roles, .. } = &mut self.kind else {
            panic!("roles are PostgreSQL's")
        };
        let role = unique("recents_test_role");
        roles.push(role.clone());
        self.execute(&format!("create role {role} login")).await;
        for grant in grants {
            self.execute(&grant.replace('%', &role)).await;
        }
        self.url.replacen("//postgres@", &format!("//{role}@"), 1)
    }
}

impl Drop for TestDb {
    fn drop(&mut self) {
        // The directory of a SQLite database removes itself.
        if let Kind::Postgres { name, roles } = &mut self.kind {
            let (name, roles) = (std::mem::take(name), std::mem::take(roles));
            // As well as it goes: the cluster is thrown away after the run.
            let _ = apart(async move {
                on_shared(&format!("drop database if exists {name} with (force)")).await?;
                for role in roles {
                    on_shared(&format!("drop role if exists {role}")).await?;
                }
                Ok::<_, sqlx::Error>(())
            });
        }
    }
}

async fn template() -> String {
    let mut db = TestDb::create(own_order().await).await;
    migrate(&db.url).await;
    let Kind::Postgres { name, .. } = &mut db.kind else {
        unreachable!("made as PostgreSQL")
    };
    // Kept from being dropped: every later test begins as its copy.
    let name = std::mem::take(name);
    std::mem::forget(db);
    name
}

/// Databases sort text as a language does, not by bytes, so that an order which the product left to
/// the database shows up as a wrong one. PostgreSQL 14 has no such databases.
async fn own_order() -> &'static str {
    let mut conn = PgConnection::connect(&shared_url())
        .await
        .expect("the shared cluster");
    let version = sqlx::query("select current_setting('server_version_num')::int");
    let version: i32 = version
        .fetch_one(&mut conn)
        .await
        .expect("its version")
        .get(0);
    match version >= 150_000 {
        true => "template template0 locale 'C' locale_provider icu icu_locale 'und'",
        false => "template template0",
    }
}

/// The versions of this program's migrations, in order; some numbers may be left out.
pub(crate) fn migrations() -> Vec<u32> {
    let names = std::fs::read_dir("migrations/postgres").expect("the migrations");
    let version = |name: &str| name[1..].split("__").next()?.parse().ok();
    let mut versions: Vec<u32> = names
        .map(|name| version(name.expect("a file").file_name().to_str()?))
        .map(|version| version.expect("a version"))
        .collect();
    versions.sort_unstable();
    versions
}

/// The product's own store at this url, with that many connections at the most.
pub(crate) fn store_at(url: &str, size: u32) -> Store {
    let settings = PoolSettings {
        size,
        statement_timeout: Duration::from_secs(20),
        behind_pooler: false,
    };
    Store::open(url, settings).expect("a good url")
}

async fn migrate(url: &str) {
    let store = store_at(url, 1);
    store.migrate().await.expect("the migrations");
    store.close().await;
}

fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!(
        "{prefix}_{}_{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

fn url_of(database: &str) -> String {
    let shared = shared_url();
    let (server, _) = shared.rsplit_once('/').expect("a url with a database");
    format!("{server}/{database}")
}

async fn on_shared(sql: &str) -> Result<(), sqlx::Error> {
    let mut conn = PgConnection::connect(&shared_url()).await?;
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(&mut conn)
        .await?;
    conn.close().await
}

/// Runs `work` to its end on a thread of its own, from within whatever runtime or none.
fn apart<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(work)
    };
    std::thread::spawn(run).join().expect("what was done apart")
}
