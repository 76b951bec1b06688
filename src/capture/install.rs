//! Installing the triggers, removing them, and looking whether they are there.

use std::time::Duration;

use sqlx::{AssertSqlSafe, PgConnection, PgPool, Postgres, Row, Transaction};

use super::error::CaptureError;
use super::outbox;
use super::triggers::{self, Table};
use crate::history::History;

/// How long `create trigger` waits for transactions that write the table; behind it, the
/// application's own statements would wait too.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

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
        self.installed && self.current && self.tables.iter().all(|t| t.problem.is_none())
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
                "begin;\nset local lock_timeout = '{}s';\n{}{}\
                 -- For the role of the service:\n\
                 grant usage on schema recents to {reader};\n\
                 grant select, update, delete on recents.outbox to {reader};\ncommit;\n",
                LOCK_TIMEOUT.as_secs(),
                drop_strays(&mut conn, &tables).await?,
                triggers::install(&self.history.mapping, &tables),
            ))
        };
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
        let done = async {
            let mut tx = self.begin().await?;
            let tables = tables(&mut tx, &self.history.mapping.table).await?;
            let sql = drop_strays(&mut tx, &tables).await?
                + &triggers::install(&self.history.mapping, &tables);
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *tx).await?;
            tx.commit().await
        };
        match done.await {
            Ok(()) => Ok(true),
            Err(error) => Err(self.explain(error, "install").await),
        }
    }

    /// Removes every trace, in one transaction; returns whether there was any.
    ///
    /// # Errors
    /// [`CaptureError`]; nothing is changed then.
    pub async fn uninstall(&self) -> Result<bool, CaptureError> {
        let done = async {
            let mut tx = self.begin().await?;
            let sql = uninstall_sql(&mut tx).await?;
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
        match done.await {
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
            uninstall_sql(&mut tx).await
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
        Ok(tx)
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
                           `recents capture install` removes them, and `recents backfill \
                           --restart` and `recents verify --repair` see to its runs";
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
             `recents backfill --restart` finds what was missed"
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

/// The history's table and all its partitions and children.
async fn tables(conn: &mut PgConnection, table: &str) -> Result<Vec<Table>, sqlx::Error> {
    let rows = sqlx::query(
        "with recursive tree (oid) as (
             select to_regclass($1)::oid
             union all select i.inhrelid from pg_inherits i join tree t on i.inhparent = t.oid
         )
         select c.oid::bigint, format('%I.%I', n.nspname, c.relname),
                c.relkind = 'p' or c.relispartition
         from tree t join pg_class c on c.oid = t.oid join pg_namespace n on n.oid = c.relnamespace
         where c.relkind in ('r', 'p') order by c.oid",
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

/// Statements that drop what is there; empty where nothing is.
async fn uninstall_sql(conn: &mut PgConnection) -> Result<String, sqlx::Error> {
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
    .fetch_all(conn)
    .await?;
    Ok(statements
        .iter()
        .map(|statement| format!("{statement}\n"))
        .collect())
}
