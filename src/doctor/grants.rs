//! What a role lacks to read the history.

use sqlx::AssertSqlSafe;

use super::STATEMENT_WITHIN;
use crate::config::HistoryConfig;
use crate::history::{self, HistoryError};

/// Statements that let the role read these relations, as far as it may not. Asked of the catalogue, which
/// every role may read.
const MISSING: &str = "
with named as (
    select parse_ident(name) as parts from unnest($1::text[]) as name
), read as (
    select distinct n.oid as schema, n.nspname, c.oid, c.relname
    from named join pg_catalog.pg_class c
      on c.relname = parts[cardinality(parts)] and c.relkind in ('r', 'p', 'v', 'm', 'f')
    join pg_catalog.pg_namespace n
      on n.oid = c.relnamespace and n.nspname = coalesce(parts[cardinality(parts) - 1], 'public')
)
select format('grant usage on schema %I to %I;', nspname, current_user)
from read where not has_schema_privilege(schema, 'usage')
union
select format('grant select on %I.%I to %I;', nspname, relname, current_user)
from read where not has_any_column_privilege(oid, 'select')
order by 1 desc";

/// What lets the role read the history's table and what the mapping query joins; empty where that is not
/// what is amiss.
pub(super) async fn missing(of: &HistoryConfig) -> Result<Vec<String>, HistoryError> {
    if of.url.starts_with("sqlite:") {
        return Ok(Vec::new());
    }
    let judged = history::judge(of)?;
    let mut names = vec![of.table.clone()];
    names.extend(judged.relation_names());
    let pool = history::connect_postgres_within(of, STATEMENT_WITHIN).await?;
    let grants = sqlx::query_scalar(AssertSqlSafe(MISSING)).bind(names);
    grants
        .fetch_all(&pool)
        .await
        .map_err(HistoryError::Database)
}
