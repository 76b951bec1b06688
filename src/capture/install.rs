//! Installing the triggers.

use sqlx::{AssertSqlSafe, PgConnection, PgPool};

use super::change::{self, CHANGE_WITHIN, patiently};
use super::coverage::{self, Coverage};
use super::error::{CaptureError, by_hand, these_mend_it};
use super::outbox;
use super::rights;
use super::tables::{
    IS_FOREIGN, drop_strays, foreign_parts, is_of_another, parts_of_others, tables,
};
use super::triggers;
use crate::history::{History, Mapping};
use crate::store::{Store, audit, identity};
use crate::telemetry::chain;

/// Capture of one history, for one store.
#[derive(Debug)]
pub struct Capture<'a> {
    history: &'a History,
    pool: &'a PgPool,
    /// The store that takes the notes, and its identity.
    table: &'a Store,
    store: String,
    /// Whether it takes them from another store.
    take_over: bool,
}

impl<'a> Capture<'a> {
    /// Of a history in PostgreSQL, for this store; with `take_over` also where it is another one's.
    ///
    /// # Errors
    /// [`CaptureError::NotPostgres`]; [`CaptureError::Store`] where the store does not answer.
    pub async fn of(
        history: &'a History,
        store: &'a Store,
        take_over: bool,
    ) -> Result<Self, CaptureError> {
        let pool = outbox::pool(history).ok_or(CaptureError::NotPostgres)?;
        Ok(Self {
            history,
            pool,
            table: store,
            store: identity::of(store).await?,
            take_over,
        })
    }

    /// The statements that install it, for whoever would rather run them by hand.
    ///
    /// # Errors
    /// [`CaptureError`].
    pub async fn install_sql(&self) -> Result<String, CaptureError> {
        if let Some(store) = self.another(self.coverage().await?.store) {
            return Err(CaptureError::AnotherStore { store });
        }
        let done = async {
            let mut conn = self.pool.acquire().await?;
            let tables = tables(&mut conn, &self.history.mapping().table).await?;
            let reader = sqlx::query_scalar::<_, String>("select quote_ident(current_user)");
            let reader = reader.fetch_one(&mut *conn).await?;
            Ok(format!(
                "begin;\nset local lock_timeout = '{}ms';\n{}{}\
                 -- For the role of the service:\n{}\ncommit;\n",
                CHANGE_WITHIN.as_millis(),
                triggers::install(&self.history.mapping(), &tables, &self.store),
                drop_strays(&mut conn, &tables).await?,
                rights::grants(&reader).join("\n"),
            ))
        };
        self.check_tables().await?;
        done.await.map_err(CaptureError::Database)
    }

    /// Installs the triggers, in one transaction. Whatever is there and current stays as it is;
    /// returns whether anything was changed. Nobody knows what was noted before that, so that the audit
    /// begins anew then, and what it saw until now proves nothing.
    ///
    /// # Errors
    /// [`CaptureError`]; nothing is changed then.
    pub async fn install(&self) -> Result<bool, CaptureError> {
        let coverage = self.coverage().await?;
        if coverage.is_whole() && coverage.store.as_ref() == Some(&self.store) {
            return Ok(false);
        }
        self.make().await?;
        if let Err(error) = audit::begin_anew(self.table).await {
            let error = chain(&error);
            tracing::warn!(
                error,
                "the audit could not be begun anew; recents verify proves what it would"
            );
        }
        Ok(true)
    }

    async fn make(&self) -> Result<(), CaptureError> {
        self.check_tables().await?;
        let once = async || {
            let mut tx = change::begin(self.pool).await?;
            let owner = AssertSqlSafe(format!("select {}", triggers::owner_in_sql()));
            let owner = sqlx::query_scalar(owner).fetch_one(&mut *tx).await?;
            if let Some(store) = self.another(owner) {
                return Ok(Err(CaptureError::AnotherStore { store }));
            }
            let mapping = self.history.mapping();
            let mut done = None;
            loop {
                // Looked at again behind the locks: a partition may have been attached while they were waited for.
                let tables = tables(&mut tx, &mapping.table).await?;
                let oids: Vec<i64> = tables.iter().map(|table| table.oid).collect();
                if done.as_ref() == Some(&oids) {
                    break;
                }
                let sql = triggers::install(&mapping, &tables, &self.store)
                    + &drop_strays(&mut tx, &tables).await?;
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *tx).await?;
                done = Some(oids);
            }
            if let Some(problem) = problem_of_tables(&mut tx, &mapping).await? {
                return Ok(Err(CaptureError::NoTable(problem)));
            }
            tx.commit().await?;
            Ok(Ok(()))
        };
        let tables = async {
            let mut conn = self.pool.acquire().await?;
            tables(&mut conn, &self.history.mapping().table).await
        };
        let tables = tables.await.map_err(CaptureError::Database)?;
        let names: Vec<String> = tables.into_iter().map(|table| table.name).collect();
        match patiently(self.pool, &names, once).await {
            Ok(done) => done,
            Err(error) => {
                let table = &self.history.mapping().table;
                Err(CaptureError::of(error, table, self.mend().await))
            }
        }
    }

    /// Whether every change of the history is noted.
    ///
    /// # Errors
    /// [`CaptureError::Database`].
    pub async fn coverage(&self) -> Result<Coverage, CaptureError> {
        let mapping = &self.history.mapping();
        coverage::of(self.pool, &mapping.table, Some(mapping)).await
    }

    /// Whether every table of the history can have triggers that see the changed rows.
    async fn check_tables(&self) -> Result<(), CaptureError> {
        let problem = async {
            let mut conn = self.pool.acquire().await?;
            problem_of_tables(&mut conn, &self.history.mapping()).await
        };
        match problem.await.map_err(CaptureError::Database)? {
            None => Ok(()),
            Some(problem) => Err(CaptureError::NoTable(problem)),
        }
    }

    /// The store that the notes are for and stay for, where that is not this one.
    fn another(&self, owner: Option<String>) -> Option<String> {
        owner.filter(|owner| !self.take_over && *owner != self.store)
    }

    /// What lets a role install that lacks a right.
    async fn mend(&self) -> String {
        let grants = missing_grants(self.history).await.unwrap_or_default();
        let by_hand = by_hand("install");
        match grants.is_empty() {
            true => by_hand,
            false => format!("{}\nor {by_hand}", these_mend_it(&grants)),
        }
    }
}

/// What the role needs for installing and does not have, a statement a line.
///
/// # Errors
/// Where the history does not answer.
pub(crate) async fn missing_grants(history: &History) -> Result<Vec<String>, sqlx::Error> {
    let Some(pool) = outbox::pool(history) else {
        return Ok(Vec::new());
    };
    let mut conn = pool.acquire().await?;
    let mut lines: Vec<String> = sqlx::query_scalar(
        "select format('grant create on database %I to %I;', current_database(), current_user)
         where to_regnamespace('recents') is null
           and not has_database_privilege(current_database(), 'create')
         union all
         select format('grant usage, create on schema recents to %I;', current_user)
         where not (has_schema_privilege(to_regnamespace('recents'), 'usage')
                    and has_schema_privilege(to_regnamespace('recents'), 'create'))",
    )
    .fetch_all(&mut *conn)
    .await?;
    for table in tables(&mut conn, &history.mapping().table).await? {
        let grant = sqlx::query_scalar::<_, String>(
            "select format('grant trigger on %s to %I;', $1, current_user)
             where not has_table_privilege($2::oid, 'trigger')",
        );
        let grant = grant.bind(&table.name).bind(table.oid);
        lines.extend(grant.fetch_optional(&mut *conn).await?);
    }
    Ok(lines)
}

/// Why capture cannot be installed on a history, if so.
///
/// # Errors
/// Where the history does not answer.
pub(crate) async fn obstacle(
    pool: &PgPool,
    mapping: &Mapping,
) -> Result<Option<String>, sqlx::Error> {
    problem_of_tables(&mut *pool.acquire().await?, mapping).await
}

/// Why some table of the history cannot have triggers that see the changed rows.
async fn problem_of_tables(
    conn: &mut PgConnection,
    mapping: &Mapping,
) -> Result<Option<String>, sqlx::Error> {
    let table = &mapping.table;
    if tables(conn, table).await?.is_empty() {
        return Ok(Some(format!(
            "{table} is no table, so that nothing tells what changes in it; install capture on \
             the table behind it, with [history] naming that"
        )));
    }
    if let Some((part, other)) = parts_of_others(conn, table).await?.first() {
        return Ok(Some(format!("{part}: {}", is_of_another(other))));
    }
    if let Some(part) = foreign_parts(conn, table).await?.first() {
        return Ok(Some(format!("{part}: {IS_FOREIGN} first")));
    }
    let is_virtual = sqlx::query_scalar(
        "select attgenerated = 'v' from pg_attribute
         where attrelid = to_regclass($1) and attname = (parse_ident($2))[1]",
    );
    let is_virtual = is_virtual.bind(table).bind(&mapping.key);
    let is_virtual = is_virtual.fetch_optional(conn).await?;
    Ok((is_virtual == Some(true)).then(|| {
        format!(
            "the key {} is generated when it is read, which triggers cannot see; make it `stored`, or \
             name another column in [history]",
            mapping.key
        )
    }))
}
