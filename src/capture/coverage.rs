//! Whether the triggers are there, on the history's table and on each of its partitions.

use sqlx::{AssertSqlSafe, PgConnection, PgPool};

use super::error::CaptureError;
use super::made;
use super::tables::{
    IS_FOREIGN, foreign_parts, is_of_another, ours, parts_of_others, strays, tables,
};
use super::triggers::{self, Table};
use crate::history::Mapping;

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
    /// Whether it is of this version, table, key and type, its functions are as they were made, and the
    /// store that it is for is recorded.
    pub current: bool,
    /// The identity of the store that takes the notes.
    pub store: Option<String>,
    /// The table and its partitions.
    pub tables: Vec<Covered>,
    /// Whether a MERGE that moves rows between partitions is told to no trigger.
    pub merge_is_untold: bool,
}

impl Coverage {
    /// Whether every change of the history is noted.
    pub fn is_whole(&self) -> bool {
        let covered = !self.tables.is_empty() && self.tables.iter().all(|t| t.problem.is_none());
        self.installed && self.current && covered
    }
}

/// Looks at the table and each of its partitions. Whether what is installed is current is known only
/// with the mapping that it is for.
pub(super) async fn of(
    pool: &PgPool,
    table: &str,
    mapping: Option<&Mapping>,
) -> Result<Coverage, CaptureError> {
    look(pool, table, mapping)
        .await
        .map_err(CaptureError::Database)
}

async fn look(
    pool: &PgPool,
    table: &str,
    mapping: Option<&Mapping>,
) -> Result<Coverage, sqlx::Error> {
    let mut conn = pool.acquire().await?;
    let outbox = format!(
        "select split_part(obj_description(c.oid, 'pg_class'), E'\\n', 1), {}
         from pg_class c join pg_namespace n on n.oid = c.relnamespace
         where n.nspname = 'recents' and c.relname = 'outbox'",
        triggers::owner_in_sql()
    );
    let outbox = sqlx::query_as::<_, (Option<String>, Option<String>)>(AssertSqlSafe(outbox));
    let Some((description, store)) = outbox.fetch_optional(&mut *conn).await? else {
        return Ok(Coverage {
            tables: without_outbox(&mut conn).await?,
            ..Coverage::default()
        });
    };
    let (name, tables) = (table, tables(&mut conn, table).await?);
    let mut covered = Vec::new();
    for table in &tables {
        covered.push(Covered {
            problem: problem_of(&mut conn, table).await?,
            table: table.name.clone(),
        });
    }
    if let Some(owner) = made::shut_out(&mut conn).await? {
        covered.push(Covered {
            table: "recents.outbox".into(),
            problem: Some(format!(
                "{owner}, who owns the functions of the triggers, may not write it, so that the application \
                 cannot write; `recents capture install` or `uninstall` ends that"
            )),
        });
    }
    for (table, other) in parts_of_others(&mut conn, name).await? {
        let problem = Some(is_of_another(&other));
        covered.push(Covered { table, problem });
    }
    // One that came after the installation is none of the tables that have triggers.
    for table in foreign_parts(&mut conn, name).await? {
        let problem = Some(IS_FOREIGN.into());
        covered.push(Covered { table, problem });
    }
    for (_, table) in strays(&mut conn, &tables).await? {
        let problem = "it has triggers of capture and is no part of the history, or no longer; \
                           `recents capture install` removes them (where another role owns it, \
                           `recents capture uninstall` does, and then install), and \
                           `recents verify --repair` sees to its runs";
        let problem = Some(problem.into());
        if covered.last().is_none_or(|last| last.table != table) {
            covered.push(Covered { table, problem });
        }
    }
    let current = match mapping {
        Some(mapping) => {
            description == Some(triggers::description(mapping))
                && store.is_some()
                && made::functions(&mut conn, mapping).await?
        }
        None => false,
    };
    // The root's triggers for updates fire, without what was moved in their transition tables; row triggers
    // of the partitions would see it, at their price for every row of every statement.
    let merge_is_untold = tables.iter().any(|table| table.is_partitioned)
        && sqlx::query_scalar("select current_setting('server_version_num')::int >= 150000")
            .fetch_one(&mut *conn)
            .await?;
    Ok(Coverage {
        installed: true,
        current,
        store,
        tables: covered,
        merge_is_untold,
    })
}

/// Tables whose triggers were left behind when somebody dropped the outbox.
async fn without_outbox(conn: &mut PgConnection) -> Result<Vec<Covered>, sqlx::Error> {
    let problem = "its triggers are there, and the outbox that they write is gone, so that the \
                   application cannot write; `recents capture install` or `uninstall` ends that";
    let mut covered: Vec<Covered> = Vec::new();
    for (_, table) in ours(conn).await? {
        let problem = Some(problem.into());
        if covered.iter().all(|seen| seen.table != table) {
            covered.push(Covered { table, problem });
        }
    }
    Ok(covered)
}

/// What keeps a table's changes from being noted.
async fn problem_of(conn: &mut PgConnection, table: &Table) -> Result<Option<String>, sqlx::Error> {
    if let Some(missing) = made::missing_trigger(&mut *conn, table).await? {
        return Ok(Some(format!(
            "its trigger {missing} is missing, disabled or of another version; `recents capture install` \
             makes it, and `recents verify --repair` finds what was missed"
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
