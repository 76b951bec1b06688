//! The triggers that note which runs changed: their SQL, and whether they are there.
//!
//! Statement-level, with transition tables: whatever an application does, each statement appends the
//! keys of its runs to the outbox, some hundreds to a row, and does nothing else. No mapping, no
//! join, no upsert in the application's transaction.

use std::time::Duration;

use sqlx::{AssertSqlSafe, PgPool, Postgres, Row, Transaction};

use super::outbox;
use crate::history::mapping::IdType;
use crate::history::{History, HistoryError};

/// How long `create trigger` waits for transactions that write the table; behind it, the
/// application's own statements would wait too.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
/// Written down with the outbox, so that the triggers of another version are recognised.
const VERSION: u32 = 1;
/// Bytes of the keys in a row of the outbox, about: half a page, so that two rows fill one.
const ROW_BYTES: usize = 4_000;

/// What each trigger fires after, which function it calls, and the changed rows that the function
/// sees.
const TRIGGERS: [Trigger; 4] = [
    (
        "insert",
        "capture_inserted",
        "referencing new table as recents_new",
    ),
    (
        "update",
        "capture_updated",
        "referencing new table as recents_new",
    ),
    (
        "delete",
        "capture_deleted",
        "referencing old table as recents_old",
    ),
    ("truncate", "capture_truncated", ""),
];

/// Event, function, transition tables.
type Trigger = (&'static str, &'static str, &'static str);

/// Of a partitioned table and its partitions: an update that moves a row fires no row triggers for
/// updates, so that the keys before are compared with those behind. Elsewhere that would only store
/// all old rows of a large update.
const UPDATE_OF_PARTITIONS: Trigger = (
    "update",
    "capture_moved",
    "referencing old table as recents_old new table as recents_new",
);

/// Why capture could not be installed, removed or looked at.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The history is no PostgreSQL.
    #[error("capture needs a history in PostgreSQL; SQLite has no triggers per statement")]
    NotPostgres,
    /// The role may not do it.
    #[error(
        "the role lacks a privilege: {problem}; an owner of the database mends it with:\n{grants}"
    )]
    Privilege {
        /// What PostgreSQL says.
        problem: String,
        /// Statements that mend it.
        grants: String,
    },
    /// A transaction holds the table.
    #[error(
        "a transaction holds {table} and did not end within 2 seconds, so nothing was changed; \
         try again in a quieter moment"
    )]
    Locked {
        /// The history's table.
        table: String,
    },
    /// The database failed.
    #[error("the history's database failed")]
    Database(#[source] sqlx::Error),
    /// The history failed.
    #[error(transparent)]
    History(#[from] HistoryError),
}

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
    pub async fn sql(&self) -> Result<String, CaptureError> {
        let mut conn = self.pool.acquire().await.map_err(CaptureError::Database)?;
        let tables = tables(&mut conn, &self.history.mapping.table).await;
        let tables = tables.map_err(CaptureError::Database)?;
        let reader = sqlx::query_scalar::<_, String>("select quote_ident(current_user)");
        let reader = reader
            .fetch_one(&mut *conn)
            .await
            .map_err(CaptureError::Database)?;
        Ok(format!(
            "begin;\nset local lock_timeout = '{}s';\n{}\n{}commit;\n",
            LOCK_TIMEOUT.as_secs(),
            self.install_sql(&tables),
            rights_of(&reader)
        ))
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
            sqlx::raw_sql(AssertSqlSafe(self.install_sql(&tables)))
                .execute(&mut *tx)
                .await?;
            tx.commit().await
        };
        done.await.map_err(|error| self.explain(error))?;
        Ok(true)
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
        done.await.map_err(|error| self.explain(error))
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

    fn explain(&self, error: sqlx::Error) -> CaptureError {
        let table = &self.history.mapping.table;
        let Some(database) = error.as_database_error() else {
            return CaptureError::Database(error);
        };
        match database.code().as_deref() {
            Some("42501") => CaptureError::Privilege {
                problem: database.message().into(),
                grants: format!(
                    "  grant create on database <the history's> to <this role>;\n  \
                     grant trigger on {table} to <this role>;  -- and on each of its partitions\n\
                     or runs, as the table's owner, what `recents capture install --print` shows"
                ),
            },
            Some("55P03") => CaptureError::Locked {
                table: table.clone(),
            },
            _ => CaptureError::Database(error),
        }
    }

    /// Whether the table and each of its partitions is covered.
    ///
    /// # Errors
    /// [`CaptureError::Database`].
    pub async fn coverage(&self) -> Result<Coverage, CaptureError> {
        self.look().await.map_err(|error| self.explain(error))
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
        let mut covered = Vec::new();
        for table in tables(&mut conn, &self.history.mapping.table).await? {
            covered.push(Covered {
                problem: problem_of(&mut conn, &table).await?,
                table: table.name,
            });
        }
        Ok(Coverage {
            installed: true,
            current: comment.as_deref() == Some(&self.description()),
            tables: covered,
        })
    }

    /// What was installed, for the next version to compare.
    fn description(&self) -> String {
        let mapping = &self.history.mapping;
        format!(
            "recents capture {VERSION}: {} {} {}",
            mapping.table,
            mapping.key,
            mapping.types.key.sql()
        )
    }

    fn install_sql(&self, tables: &[Table]) -> String {
        let mapping = &self.history.mapping;
        let of = mapping.types.key.sql();
        // Notes that wait survive another version; where the key has another type they name nothing
        // any more, so that every row is looked at instead.
        let mut sql = format!(
            "create schema if not exists recents;
do $recents$ begin
  if exists (select from pg_attribute where attrelid = to_regclass('recents.outbox')
             and attname = 'keys' and atttypid <> '{of}[]'::regtype) then
    drop table recents.outbox;
    perform set_config('recents.replaced', 'yes', true);
  end if;
end $recents$;
create table if not exists recents.outbox (
  id bigint generated always as identity primary key,
  runs integer not null,
  -- NULL: every run.
  keys {of}[],
  noted_at timestamptz not null default clock_timestamp()
) with (autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0.01,
        autovacuum_vacuum_insert_threshold = -1, autovacuum_vacuum_cost_delay = 0,
        vacuum_truncate = off);
insert into recents.outbox (runs, keys)
  select 0, null where current_setting('recents.replaced', true) = 'yes';
{storage}comment on table recents.outbox is {description};
",
            description = literal(&self.description()),
            storage = match mapping.types.key {
                // Compressing what is never read twice only costs the application's transaction.
                IdType::Text | IdType::Other => String::new(),
                _ => "alter table recents.outbox alter column keys set storage plain;\n".into(),
            },
        );
        let functions = TRIGGERS.map(|(event, function, _)| (event, function));
        for (event, function) in functions
            .into_iter()
            .chain([("moved", "capture_moved"), ("rekeyed", "capture_rekeyed")])
        {
            sql += &format!(
                "create or replace function recents.{function}() returns trigger language plpgsql
security definer set search_path = pg_catalog, pg_temp as $recents$
begin
{body}
  return null;
end $recents$;
revoke all on function recents.{function}() from public;
",
                body = self.body(event),
            );
        }
        for table in tables {
            sql += &self.triggers_of(table);
        }
        sql
    }

    fn triggers_of(&self, table: &Table) -> String {
        let (name, key) = (&table.name, &self.history.mapping.key);
        let mut sql = String::new();
        for trigger in TRIGGERS {
            let (event, function, referencing) = match trigger {
                ("update", ..) if table.is_partitioned => UPDATE_OF_PARTITIONS,
                trigger => trigger,
            };
            sql += &format!(
                "create or replace trigger recents_capture_{event} after {event} on {name}
  {referencing} for each statement execute function recents.{function}();
alter table {name} enable trigger recents_capture_{event};
"
            );
        }
        if !table.is_partitioned {
            sql += &format!(
                "create or replace trigger recents_capture_key after update of {key} on {name}
  for each row when (old.{key} is distinct from new.{key})
  execute function recents.capture_rekeyed();
alter table {name} enable trigger recents_capture_key;
"
            );
        }
        sql
    }

    /// What a trigger does. The only word of the user in it is the key column's name.
    fn body(&self, event: &str) -> String {
        let key = &self.history.mapping.key;
        let of = self.history.mapping.types.key;
        let per_row = ROW_BYTES / of.bytes();
        // Most statements change a few rows: one aggregate is half the price of parts of a window.
        let note = |rows: &str| {
            format!(
                "  insert into recents.outbox (runs, keys)
  select count(*), array_agg(c.k)
  from (select n.{key} as k from {rows} as n where n.{key} is not null limit {per_row} + 1) as c
  having count(*) between 1 and {per_row};
  if not found then
    insert into recents.outbox (runs, keys)
    select count(*), array_agg(c.k)
    from (select n.{key} as k, (row_number() over () - 1) / {per_row} as part
          from {rows} as n where n.{key} is not null) as c
    group by c.part;
  end if;"
            )
        };
        // Keys are the same before and after an update, unless the key itself was updated.
        let hash = match of {
            IdType::Int2 | IdType::Int4 | IdType::Int8 => format!("hashint8extended(n.{key}, 0)"),
            IdType::Uuid => format!("uuid_hash_extended(n.{key}, 0)"),
            IdType::Text | IdType::Other => format!("hashtextextended(n.{key}::text, 0)"),
        };
        let sum = |rows: &str| format!("(select bit_xor({hash}) from {rows} as n)");
        match event {
            "insert" | "update" => note("recents_new"),
            "rekeyed" => {
                format!("  insert into recents.outbox (runs, keys) values (1, array[old.{key}]);")
            }
            "moved" => format!(
                "{}\n  if {} is distinct from {} then\n{}\n  end if;",
                note("recents_new"),
                sum("recents_old"),
                sum("recents_new"),
                note("recents_old")
            ),
            "delete" => note("recents_old"),
            _ => "  insert into recents.outbox (runs, keys) values (0, null);".into(),
        }
    }
}

/// What keeps a table's changes from being noted.
async fn problem_of(
    conn: &mut sqlx::PgConnection,
    table: &Table,
) -> Result<Option<String>, sqlx::Error> {
    let found = sqlx::query(
        "select tgname::text, tgenabled::text from pg_trigger
             where tgrelid = $1::oid and tgname like 'recents\\_capture\\_%'",
    );
    let found = found.bind(table.oid).fetch_all(&mut *conn).await?;
    let mut enabled = Vec::new();
    for row in found {
        let (name, state): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        // `O`: always but for sessions that play back a replication.
        if state == "O" || state == "A" {
            enabled.push(name);
        }
    }
    let key = (!table.is_partitioned).then_some("key");
    let events = TRIGGERS.iter().map(|(event, ..)| *event).chain(key);
    let missing = events.into_iter().find(|event| {
        let name = format!("recents_capture_{event}");
        !enabled.contains(&name)
    });
    if let Some(event) = missing {
        return Ok(Some(format!(
            "its trigger recents_capture_{event} is missing or disabled; `recents capture \
                 install` adds it, and `recents backfill --restart` finds what was missed"
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

/// What a service that runs as another role needs beside.
fn rights_of(reader: &str) -> String {
    format!(
        "-- For the role of the service:\ngrant usage on schema recents to {reader};\n\
         grant select, update, delete on recents.outbox to {reader};\n"
    )
}

/// The history's table, or a partition or child of it.
struct Table {
    oid: i64,
    /// As SQL writes it.
    name: String,
    /// Whether it has partitions or is one.
    is_partitioned: bool,
}

/// The history's table and all its partitions and children.
async fn tables(conn: &mut sqlx::PgConnection, table: &str) -> Result<Vec<Table>, sqlx::Error> {
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

/// Statements that drop what is there; empty where nothing is.
async fn uninstall_sql(conn: &mut Transaction<'static, Postgres>) -> Result<String, sqlx::Error> {
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
    .fetch_all(&mut **conn)
    .await?;
    Ok(statements
        .iter()
        .map(|statement| format!("{statement}\n"))
        .collect())
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
