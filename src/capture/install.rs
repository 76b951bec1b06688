//! Installing the triggers, removing them, and looking whether they are there.

use std::time::Duration;

use sqlx::{AssertSqlSafe, PgConnection, PgPool, Postgres, Row, Transaction};

use super::error::CaptureError;
use super::outbox;
use super::triggers::{self, Table};
use crate::history::History;

/// How long one try waits for transactions that write the table: the application's own statements wait
/// behind it. Less than the second after which PostgreSQL looks for deadlocks, so that it is never an
/// application's transaction that has to give way.
const LOCK_TIMEOUT: Duration = Duration::from_millis(500);
const TRIES: u32 = 4;
const BETWEEN_TRIES: Duration = Duration::from_millis(200);
/// Two that install or remove at once do so one after the other.
const LOCK_OF_INSTALLING: &str = "select pg_advisory_xact_lock(hashtext('recents.capture'))";

/// What the history's table and each of its partitions have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Covered {
    /// Its name, as SQL writes it.
    pub table: String,
    /// What is wrong with it, and what mends it; `None` where all is well.
    pub problem: Option<String>,
}

/// Whether capture is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Whether there is an outbox.
    pub installed: bool,
    /// Whether it is of this version, table, key and type.
    pub current: bool,
    /// The table and its partitions.
    pub tables: Vec<Covered>,
}

impl Coverage {
    /// Whether every change of the history is noted.
    pub fn is_whole(&self) -> bool {
        let covered = !self.tables.is_empty() && self.tables.iter().all(|t| t.problem.is_none());
        self.installed && self.current && covered
    }
}

/// Capture of one history.
#[derive(Debug)]
pub struct Capture<'a> {
    history: &'a History,
    pool: &'a PgPool,
}

impl<'a> Capture<'a> {
    /// Of a history in PostgreSQL.
    ///
    /// # Errors
    /// [`CaptureError::NotPostgres`].
    pub fn of(history: &'a History) -> Result<Self, CaptureError> {
        let pool = outbox::pool(history).ok_or(CaptureError::NotPostgres)?;
        Ok(Self { history, pool })
    }

    /// The statements that install it, for whoever would rather run them by hand.
    ///
    /// # Errors
    /// [`CaptureError::Database`] where the database does not tell the table's partitions.
    pub async fn install_sql(&self) -> Result<String, CaptureError> {
        let done = async {
            let mut conn = self.pool.acquire().await?;
            let tables = tables(&mut conn, &self.history.mapping.table).await?;
            let reader = sqlx::query_scalar::<_, String>("select quote_ident(current_user)");
            let reader = reader.fetch_one(&mut *conn).await?;
            Ok(format!(
                "begin;\nset local lock_timeout = '{}ms';\n{}{}\
                 -- For the role of the service:\n\
                 grant usage on schema recents to {reader};\n\
                 grant select, update, delete on recents.outbox to {reader};\ncommit;\n",
                LOCK_TIMEOUT.as_millis(),
                triggers::install(&self.history.mapping, &tables),
                drop_strays(&mut conn, &tables).await?,
            ))
        };
        self.check_tables().await?;
        done.await.map_err(CaptureError::Database)
    }

    /// Installs the triggers, in one transaction. Whatever is there and current stays as it is;
    /// returns whether anything was changed.
    ///
    /// # Errors
    /// [`CaptureError`]; nothing is changed then.
    pub async fn install(&self) -> Result<bool, CaptureError> {
        if self.coverage().await?.is_whole() {
            return Ok(false);
        }
        self.check_tables().await?;
        let once = async || {
            let mut tx = self.begin().await?;
            let tables = tables(&mut tx, &self.history.mapping.table).await?;
            let sql = triggers::install(&self.history.mapping, &tables)
                + &drop_strays(&mut tx, &tables).await?;
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *tx).await?;
            tx.commit().await
        };
        match patiently(once).await {
            Ok(()) => Ok(true),
            Err(error) => Err(self.explain(error, "install").await),
        }
    }

    /// Removes every trace, in one transaction; returns whether there was any.
    ///
    /// # Errors
    /// [`CaptureError`]; nothing is changed then.
    pub async fn uninstall(&self) -> Result<bool, CaptureError> {
        let once = async || {
            let mut tx = self.begin().await?;
            let sql = uninstall_sql(&mut tx, &self.history.mapping.table).await?;
            let there = !sql.is_empty();
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *tx).await?;
            // Ours as long as something else of ours is in it.
            let empty: bool = sqlx::query_scalar(
                "select exists (select from pg_namespace where nspname = 'recents')
                    and not exists (
                        select from pg_depend d join pg_namespace n
                          on d.refclassid = 'pg_namespace'::regclass and d.refobjid = n.oid
                        where n.nspname = 'recents')",
            )
            .fetch_one(&mut *tx)
            .await?;
            if there && empty {
                sqlx::raw_sql("drop schema recents")
                    .execute(&mut *tx)
                    .await?;
            }
            tx.commit().await?;
            Ok(there)
        };
        match patiently(once).await {
            Ok(there) => Ok(there),
            Err(error) => Err(self.explain(error, "uninstall").await),
        }
    }

    /// The statements that remove it.
    ///
    /// # Errors
    /// [`CaptureError::Database`].
    pub async fn uninstall_sql(&self) -> Result<String, CaptureError> {
        let done = async {
            let mut tx = self.begin().await?;
            uninstall_sql(&mut tx, &self.history.mapping.table).await
        };
        let sql = done.await.map_err(CaptureError::Database)?;
        Ok(format!("begin;\n{sql}commit;\n"))
    }

    async fn begin(&self) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
        let mut tx = outbox::begin(self.pool).await?;
        let timeout = format!("set local lock_timeout = {}", LOCK_TIMEOUT.as_millis());
        sqlx::raw_sql(AssertSqlSafe(timeout))
            .execute(&mut *tx)
            .await?;
        sqlx::query(LOCK_OF_INSTALLING).execute(&mut *tx).await?;
        Ok(tx)
    }

    /// Whether every table of the history can have triggers that see the changed rows.
    async fn check_tables(&self) -> Result<(), CaptureError> {
        let table = &self.history.mapping.table;
        let done = async {
            let mut conn = self.pool.acquire().await?;
            let known = tables(&mut conn, table).await?;
            Ok((known.is_empty(), foreign_parts(&mut conn, table).await?))
        };
        let (none, foreign) = done.await.map_err(CaptureError::Database)?;
        if none {
            return Err(CaptureError::NoTable(format!(
                "{table} is no table, so that nothing tells what changes in it; install capture on \
                 the table behind it, with [history] naming that"
            )));
        }
        match foreign {
            None => Ok(()),
            Some(part) => Err(CaptureError::NoTable(format!(
                "{part} is a foreign table: PostgreSQL does not tell triggers what changes in it, and \
                 would refuse the application's own statements; detach it first"
            ))),
        }
    }

    async fn explain(&self, error: sqlx::Error, command: &str) -> CaptureError {
        let Some(database) = error.as_database_error() else {
            return CaptureError::Database(error);
        };
        match database.code().as_deref() {
            Some("42501") => {
                let by_hand = format!(
                    "the table's owner runs what `recents capture {command} --print` shows"
                );
                let grants = match command {
                    "install" => self.missing_grants().await.unwrap_or_default(),
                    _ => String::new(),
                };
                CaptureError::Privilege {
                    problem: database.message().into(),
                    mend: match grants.is_empty() {
                        true => by_hand,
                        false => format!("these mend it:\n{grants}or {by_hand}"),
                    },
                }
            }
            Some("55P03") => CaptureError::Locked {
                table: self.history.mapping.table.clone(),
            },
            _ => CaptureError::Database(error),
        }
    }

    /// What the role needs for installing and does not have, a statement a line.
    async fn missing_grants(&self) -> Result<String, sqlx::Error> {
        let mut conn = self.pool.acquire().await?;
        let database: Vec<String> = sqlx::query_scalar(
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
        let mut lines = database;
        for table in tables(&mut conn, &self.history.mapping.table).await? {
            let grant = sqlx::query_scalar::<_, String>(
                "select format('grant trigger on %s to %I;', $1, current_user)
                 where not has_table_privilege($2::oid, 'trigger')",
            );
            let grant = grant.bind(&table.name).bind(table.oid);
            lines.extend(grant.fetch_optional(&mut *conn).await?);
        }
        Ok(lines.iter().map(|line| format!("  {line}\n")).collect())
    }

    /// Whether the table and each of its partitions is covered.
    ///
    /// # Errors
    /// [`CaptureError::Database`].
    pub async fn coverage(&self) -> Result<Coverage, CaptureError> {
        self.look().await.map_err(CaptureError::Database)
    }

    async fn look(&self) -> Result<Coverage, sqlx::Error> {
        let mut conn = self.pool.acquire().await?;
        let outbox = sqlx::query_scalar::<_, Option<String>>(
            "select obj_description(c.oid, 'pg_class') from pg_class c
             join pg_namespace n on n.oid = c.relnamespace
             where n.nspname = 'recents' and c.relname = 'outbox'",
        );
        let Some(comment) = outbox.fetch_optional(&mut *conn).await? else {
            return Ok(Coverage::default());
        };
        let tables = tables(&mut conn, &self.history.mapping.table).await?;
        let mut covered = Vec::new();
        for table in &tables {
            covered.push(Covered {
                problem: problem_of(&mut conn, table).await?,
                table: table.name.clone(),
            });
        }
        for (_, table) in strays(&mut conn, &tables).await? {
            let problem = "it has triggers of capture and is no part of the history, or no longer; \
                           `recents capture install` removes them, and `recents verify --repair` \
                           sees to its runs";
            let problem = Some(problem.into());
            if covered.last().is_none_or(|last| last.table != table) {
                covered.push(Covered { table, problem });
            }
        }
        Ok(Coverage {
            installed: true,
            current: comment == Some(triggers::description(&self.history.mapping)),
            tables: covered,
        })
    }
}

/// Tries again where a lock was not to be had.
async fn patiently<T>(
    mut once: impl AsyncFnMut() -> Result<T, sqlx::Error>,
) -> Result<T, sqlx::Error> {
    for _ in 1..TRIES {
        match once().await {
            Err(error) if code(&error) == Some("55P03".into()) => {
                tokio::time::sleep(BETWEEN_TRIES).await;
            }
            done => return done,
        }
    }
    once().await
}

fn code(error: &sqlx::Error) -> Option<std::borrow::Cow<'_, str>> {
    error.as_database_error()?.code()
}

/// What keeps a table's changes from being noted.
async fn problem_of(conn: &mut PgConnection, table: &Table) -> Result<Option<String>, sqlx::Error> {
    // `O`: always but for sessions that play back a replication.
    let enabled = sqlx::query_scalar::<_, String>(
        "select tgname::text from pg_trigger
         where tgrelid = $1::oid and tgname like 'recents\\_capture\\_%' and tgenabled in ('O', 'A')",
    );
    let enabled = enabled.bind(table.oid).fetch_all(&mut *conn).await?;
    if let Some(missing) = table.triggers().find(|name| !enabled.contains(name)) {
        return Ok(Some(format!(
            "its trigger {missing} is missing or disabled; `recents capture install` adds it, and \
             `recents verify --repair` finds what was missed"
        )));
    }
    let subscribed: bool = sqlx::query_scalar(
        "select exists (select from pg_subscription_rel where srrelid = $1::oid)",
    )
    .bind(table.oid)
    .fetch_one(conn)
    .await?;
    Ok(subscribed.then(|| {
        format!(
            "{} receives a logical replication, whose changes fire no statement triggers; \
             capture at the publisher",
            table.name
        )
    }))
}

/// The history's table and all its partitions and children, parents first.
async fn tables(conn: &mut PgConnection, table: &str) -> Result<Vec<Table>, sqlx::Error> {
    let rows = sqlx::query(
        "with recursive tree (oid, depth) as (
             select to_regclass($1)::oid, 0
             union all
             select i.inhrelid, t.depth + 1 from pg_inherits i join tree t on i.inhparent = t.oid
         )
         select c.oid::bigint, format('%I.%I', n.nspname, c.relname),
                c.relkind = 'p' or c.relispartition
         from tree t join pg_class c on c.oid = t.oid join pg_namespace n on n.oid = c.relnamespace
         where c.relkind in ('r', 'p') group by 1, 2, 3 order by min(t.depth), c.oid::bigint",
    );
    let rows = rows.bind(table).fetch_all(conn).await?;
    let table = |row: &sqlx::postgres::PgRow| {
        Ok(Table {
            oid: row.try_get(0)?,
            name: row.try_get(1)?,
            is_partitioned: row.try_get(2)?,
        })
    };
    rows.iter().map(table).collect()
}

/// Triggers of ours on tables that are no part of the history, such as detached partitions: the
/// trigger, and its table.
async fn strays(
    conn: &mut PgConnection,
    tables: &[Table],
) -> Result<Vec<(String, String)>, sqlx::Error> {
    let known: Vec<i64> = tables.iter().map(|table| table.oid).collect();
    let strays = sqlx::query_as(
        "select quote_ident(t.tgname), format('%I.%I', n.nspname, c.relname)
         from pg_trigger t join pg_class c on c.oid = t.tgrelid
           join pg_namespace n on n.oid = c.relnamespace
         where t.tgname like 'recents\\_capture\\_%' and c.oid::bigint <> all($1)
         order by 2, 1",
    );
    strays.bind(known).fetch_all(conn).await
}

async fn drop_strays(conn: &mut PgConnection, tables: &[Table]) -> Result<String, sqlx::Error> {
    let strays = strays(conn, tables).await?;
    let drop = |(trigger, table)| format!("drop trigger {trigger} on {table};\n");
    Ok(strays.into_iter().map(drop).collect())
}

/// A part of the history's table that is a foreign table.
async fn foreign_parts(
    conn: &mut PgConnection,
    table: &str,
) -> Result<Option<String>, sqlx::Error> {
    let part = sqlx::query_scalar(
        "with recursive tree (oid) as (
             select to_regclass($1)::oid
             union all select i.inhrelid from pg_inherits i join tree t on i.inhparent = t.oid
         )
         select c.oid::regclass::text from tree t join pg_class c on c.oid = t.oid
         where c.relkind = 'f' order by 1 limit 1",
    );
    part.bind(table).fetch_optional(conn).await
}

/// Statements that drop what is there; empty where nothing is. The history is locked first, parents
/// before their partitions, as by everybody who writes it.
async fn uninstall_sql(conn: &mut PgConnection, table: &str) -> Result<String, sqlx::Error> {
    let statements: Vec<String> = sqlx::query_scalar(
        "select statement from (
             select 1 as step, format('drop trigger %I on %I.%I;', t.tgname, n.nspname, c.relname)
                 as statement
             from pg_trigger t join pg_class c on c.oid = t.tgrelid
               join pg_namespace n on n.oid = c.relnamespace
             where t.tgname like 'recents\\_capture\\_%'
             union all
             select 2, format('drop function recents.%I();', p.proname)
             from pg_proc p join pg_namespace n on n.oid = p.pronamespace
             where n.nspname = 'recents' and p.proname like 'capture\\_%'
             union all
             select 3, 'drop table recents.outbox;' where to_regclass('recents.outbox') is not null
         ) as steps order by step, statement",
    )
    .fetch_all(&mut *conn)
    .await?;
    if statements.is_empty() {
        return Ok(String::new());
    }
    let is_table = !tables(conn, table).await?.is_empty();
    let lock = is_table.then(|| triggers::lock(table, "access exclusive"));
    let statements = statements.iter().map(|statement| format!("{statement}\n"));
    Ok(lock.into_iter().chain(statements).collect())
}
