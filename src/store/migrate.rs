//! Migrations: refinery, over the sqlx connection, under one lock.

use std::collections::BTreeMap;

use refinery::{Migration, Runner};
use refinery_core::traits::r#async::{AsyncMigrate, AsyncQuery, AsyncTransaction};
use sqlx::{AssertSqlSafe, Row};
use time::OffsetDateTime;

use super::{Conn, Dialect, Store, StoreError, on_both, with_retries};
use crate::cache::{Changed, Reason};

mod postgres {
    refinery::embed_migrations!("migrations/postgres");
}
mod sqlite {
    refinery::embed_migrations!("migrations/sqlite");
}

/// The table in which refinery writes what it applied.
const APPLIED_TABLE: &str = "refinery_schema_history";
/// "recents" in ASCII: the advisory lock that one migration at a time holds.
const LOCK_KEY: i64 = 0x72_65_63_65_6e_74_73;
/// How long to wait for another process's migration, and for locks on the tables. Longer, and the
/// application's own statements would queue up behind ours.
const LOCK_TIMEOUT: &str = "5s";

/// Why the schema is not what this program needs.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// A migration that was applied reads differently in this program.
    #[error(
        "migration V{version}__{name} was applied to this database with another text than this \
         program has; run the version of recents that applied it, or restore the database"
    )]
    Changed {
        /// Its number.
        version: i32,
        /// Its name.
        name: String,
    },
    /// The database is ahead of the program.
    #[error(
        "the database has schema version {found}, this program knows {known} at the most; \
         run a newer recents"
    )]
    Newer {
        /// The version of the database.
        found: i32,
        /// The newest version that the program knows.
        known: i32,
    },
    /// Some migrations are missing.
    #[error("the database lacks {pending} migration(s); run `recents migrate`")]
    Pending {
        /// How many.
        pending: usize,
    },
    /// Not every id can be written in the database.
    #[error(
        "the database's encoding is {found}, which has no room for every id; make one with \
         `create database … encoding 'UTF8' template template0` for database_url"
    )]
    Encoding {
        /// Its encoding, as PostgreSQL names it.
        found: String,
    },
    /// A migration failed; nothing was changed.
    #[error("the migration failed and was rolled back: {0}")]
    Failed(#[from] refinery::Error),
}

impl Store {
    fn runner(&self) -> Runner {
        match self {
            Self::Postgres(..) => postgres::migrations::runner(),
            Self::Sqlite(..) => sqlite::migrations::runner(),
        }
    }

    /// Brings the schema up to date; safe from any number of processes at once. Returns how many
    /// migrations were applied.
    ///
    /// Where there is nothing to do, it takes no lock and needs no right to create anything.
    ///
    /// # Errors
    /// [`StoreError::Schema`] where the schema is newer or changed, or the database of another encoding than UTF-8;
    /// nothing was changed then.
    pub async fn migrate(&self) -> Result<usize, StoreError> {
        // SQLite does not wait for every lock: that of a database which others open or close just now is busy
        // at once.
        with_retries(|| self.migrate_once()).await
    }

    async fn migrate_once(&self) -> Result<usize, StoreError> {
        match self.check_schema().await {
            Ok(()) => return Ok(0),
            Err(StoreError::Schema(error)) if matches!(*error, MigrateError::Pending { .. }) => {}
            Err(error) => return Err(error),
        }
        let runner = self.runner();
        let mut tx = self.begin_migration().await?;
        if let Conn::Postgres(conn) = tx.conn() {
            // Statements of a migration take the time that they take; only waiting is bounded.
            let lock = format!(
                "set local statement_timeout = 0; set local lock_timeout = '{LOCK_TIMEOUT}'; \
                 select pg_advisory_xact_lock({LOCK_KEY});"
            );
            sqlx::raw_sql(AssertSqlSafe(lock))
                .execute(&mut *conn)
                .await?;
            // Asked first: `if not exists` demands the right to create even where it exists.
            let exists = sqlx::query("select 1 where to_regnamespace('recents') is not null");
            if exists.fetch_optional(&mut *conn).await?.is_none() {
                sqlx::raw_sql("create schema recents").execute(conn).await?;
            }
        }
        // Another process may have been here while this one waited for the lock.
        let applied = applied(&mut tx.conn()).await?;
        match compare(&applied, runner.get_migrations()) {
            Ok(()) => return Ok(0),
            Err(MigrateError::Pending { .. }) => {}
            Err(error) => return Err(Box::new(error).into()),
        }
        let report = run(runner, tx.conn())
            .await
            .map_err(|e| Box::new(MigrateError::from(e)))?;
        tx.changes(Changed::Everything, Reason::Change);
        tx.commit().await?;
        Ok(report)
    }

    /// The tables that migrations made, and somebody took away since.
    ///
    /// # Errors
    /// Where the database does not answer.
    pub async fn gone_tables(&self) -> Result<Vec<String>, StoreError> {
        let migrations = self.runner();
        let made = migrations
            .get_migrations()
            .iter()
            .filter_map(Migration::sql);
        let made = made.flat_map(str::lines).filter_map(|line| {
            let (name, _) = line.strip_prefix("create table ")?.split_once(' ')?;
            Some(name.to_owned())
        });
        let mut gone = Vec::new();
        let mut tx = self.begin_reading().await?;
        for table in made {
            if !exists(&mut tx.conn(), &table).await? {
                gone.push(table);
            }
        }
        Ok(gone)
    }

    /// Whether the schema is the one that this program needs.
    ///
    /// # Errors
    /// [`StoreError::Schema`] with what differs.
    pub async fn check_schema(&self) -> Result<(), StoreError> {
        let runner = self.runner();
        let mut tx = self.begin_reading().await?;
        check_encoding(tx.conn()).await?;
        let applied = applied(&mut tx.conn()).await?;
        Ok(compare(&applied, runner.get_migrations()).map_err(Box::new)?)
    }
}

/// An id that a database has no characters for fails all that is read, written and told together with it.
async fn check_encoding(conn: Conn<'_>) -> Result<(), StoreError> {
    let Conn::Postgres(conn) = conn else {
        return Ok(());
    };
    let encoding = sqlx::query("select current_setting('server_encoding')");
    let found: String = encoding.fetch_one(conn).await?.try_get(0)?;
    match found.as_str() {
        "UTF8" => Ok(()),
        _ => Err(Box::new(MigrateError::Encoding { found }).into()),
    }
}

fn compare(applied: &BTreeMap<i32, Migration>, known: &[Migration]) -> Result<(), MigrateError> {
    let newest = known.iter().map(Migration::version).max().unwrap_or(0);
    for (&version, migration) in applied {
        match known.iter().find(|k| k.version() == version) {
            None => {
                return Err(MigrateError::Newer {
                    found: version,
                    known: newest,
                });
            }
            Some(k) if k.checksum() != migration.checksum() => {
                return Err(MigrateError::Changed {
                    version,
                    name: migration.name().into(),
                });
            }
            Some(_) => {}
        }
    }
    match known.len() - applied.len() {
        0 => Ok(()),
        pending => Err(MigrateError::Pending { pending }),
    }
}

fn table_name(dialect: Dialect) -> String {
    match dialect {
        Dialect::Postgres => format!("recents.{APPLIED_TABLE}"),
        Dialect::Sqlite => APPLIED_TABLE.into(),
    }
}

/// Whether there is such a table, by its name as migrations write it.
async fn exists(conn: &mut Conn<'_>, table: &str) -> Result<bool, StoreError> {
    Ok(on_both!(Conn, conn, |conn, dialect| {
        let text = match dialect {
            Dialect::Postgres => "select 1 where to_regclass($1) is not null",
            Dialect::Sqlite => "select 1 from sqlite_master where name = $1",
        };
        let exists = sqlx::query(text).bind(table);
        exists.fetch_optional(&mut **conn).await?.is_some()
    }))
}

async fn applied(conn: &mut Conn<'_>) -> Result<BTreeMap<i32, Migration>, StoreError> {
    let table = match conn {
        Conn::Postgres(_) => table_name(Dialect::Postgres),
        Conn::Sqlite(_) => table_name(Dialect::Sqlite),
    };
    if !exists(conn, &table).await? {
        return Ok(BTreeMap::new());
    }
    let migrations = on_both!(Conn, conn, |conn, dialect| {
        let text = format!(
            "select version, name, applied_on, checksum from {} order by version",
            table_name(dialect)
        );
        let rows = sqlx::query(AssertSqlSafe(text))
            .fetch_all(&mut **conn)
            .await?;
        rows.iter()
            .map(migration_of)
            .collect::<Result<Vec<_>, _>>()?
    });
    Ok(migrations.into_iter().map(|m| (m.version(), m)).collect())
}

fn migration_of<'r, R>(row: &'r R) -> Result<Migration, sqlx::Error>
where
    R: Row,
    usize: sqlx::ColumnIndex<R>,
    i32: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
    String: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
{
    let text = |index| row.try_get::<String, _>(index);
    let rfc3339 = &time::format_description::well_known::Rfc3339;
    let bad = |e: Box<dyn std::error::Error + Send + Sync>| sqlx::Error::Decode(e);
    let applied_on = OffsetDateTime::parse(&text(2)?, rfc3339).map_err(|e| bad(e.into()))?;
    let checksum = text(3)?
        .parse()
        .map_err(|e: std::num::ParseIntError| bad(e.into()))?;
    Ok(Migration::applied(
        row.try_get(0)?,
        text(1)?,
        applied_on,
        checksum,
    ))
}

async fn run(runner: Runner, conn: Conn<'_>) -> Result<usize, refinery::Error> {
    let table = match &conn {
        Conn::Postgres(_) => table_name(Dialect::Postgres),
        Conn::Sqlite(_) => table_name(Dialect::Sqlite),
    };
    let mut adapter = Adapter(conn);
    let migrations = runner.get_migrations();
    let report = adapter
        .migrate(
            migrations,
            true,
            true,
            false,
            refinery::Target::Latest,
            &table,
        )
        .await?;
    Ok(report.applied_migrations().len())
}

/// refinery over a connection that is already within the transaction that holds the lock: one
/// driver for both databases, and all migrations or none.
struct Adapter<'c>(Conn<'c>);

impl AsyncTransaction for Adapter<'_> {
    type Error = sqlx::Error;

    async fn execute<'a, T: Iterator<Item = &'a str> + Send + 'a>(
        &'a mut self,
        queries: T,
    ) -> Result<usize, sqlx::Error> {
        let mut count = 0;
        for query in queries {
            let text = AssertSqlSafe(query.to_owned());
            on_both!(Conn, &mut self.0, |conn, _dialect| {
                sqlx::raw_sql(text).execute(&mut **conn).await?;
            });
            count += 1;
        }
        Ok(count)
    }
}

impl AsyncQuery<Vec<Migration>> for Adapter<'_> {
    async fn query<'a>(&'a mut self, query: &'a str) -> Result<Vec<Migration>, sqlx::Error> {
        let text = AssertSqlSafe(query.to_owned());
        on_both!(Conn, &mut self.0, |conn, _dialect| {
            let rows = sqlx::query(text).fetch_all(&mut **conn).await?;
            rows.iter().map(migration_of).collect()
        })
    }
}

impl AsyncMigrate for Adapter<'_> {}
