//! What the role of a service needs of the outbox. Who installs capture owns it, and may be another one.

use sqlx::PgPool;

use crate::history::HistoryError;
use crate::store::Store;
use crate::store::sqlstate::{self, INSUFFICIENT_PRIVILEGE};

/// The statements that let `role`, as SQL writes it, take notes.
pub(super) fn grants(role: &str) -> [String; 2] {
    [
        format!("grant usage on schema recents to {role};"),
        format!("grant select, update, delete on recents.outbox to {role};"),
    ]
}

/// What the role lacks of them. Asked of the catalogue, which every role may read.
///
/// # Errors
/// Where the history does not answer.
pub(super) async fn missing(pool: &PgPool) -> Result<Vec<String>, sqlx::Error> {
    let rights = sqlx::query_as::<_, (String, bool, bool)>(
        "select quote_ident(current_user), has_schema_privilege(n.oid, 'usage'),
                has_table_privilege(c.oid, 'select') and has_table_privilege(c.oid, 'update')
                    and has_table_privilege(c.oid, 'delete')
         from pg_class c join pg_namespace n on n.oid = c.relnamespace
         where n.nspname = 'recents' and c.relname = 'outbox'",
    );
    let Some((role, schema, outbox)) = rights.fetch_optional(pool).await? else {
        return Ok(Vec::new());
    };
    let lacks = [!schema, !outbox];
    let grants = grants(&role).into_iter().zip(lacks);
    Ok(grants
        .filter_map(|(grant, lacks)| lacks.then_some(grant))
        .collect())
}

/// What a role lacks for reading which store it is, and whether its tables are up to date.
///
/// # Errors
/// Where the store does not answer.
pub(crate) async fn to_read(store: &Store) -> Result<Vec<String>, sqlx::Error> {
    let Store::Postgres(pool, _) = store else {
        return Ok(Vec::new());
    };
    let lacks = sqlx::query_scalar(
        "select format('grant usage on schema recents to %I;', current_user)
         where not has_schema_privilege(to_regnamespace('recents'), 'usage')
         union all
         select format('grant select on all tables in schema recents to %I;', current_user)
         where exists (
             select from pg_class c join pg_namespace n on n.oid = c.relnamespace
             where n.nspname = 'recents' and c.relkind = 'r' and not has_table_privilege(c.oid, 'select'))",
    );
    lacks.fetch_all(&**pool).await
}

/// Whether the role may take notes.
///
/// # Errors
/// [`HistoryError::Outbox`] with what mends it.
pub(super) async fn check(pool: &PgPool) -> Result<(), HistoryError> {
    let grants = missing(pool).await.map_err(HistoryError::Database)?;
    match grants.is_empty() {
        true => Ok(()),
        false => Err(HistoryError::Outbox {
            grants: grants.join(" "),
        }),
    }
}

/// Why a statement on the outbox failed, with what mends it where the role lacks a right.
pub(super) async fn explained(pool: &PgPool, error: sqlx::Error) -> HistoryError {
    if !sqlstate::is(&error, INSUFFICIENT_PRIVILEGE) {
        return HistoryError::Database(error);
    }
    match check(pool).await {
        Err(lacks @ HistoryError::Outbox { .. }) => lacks,
        _ => HistoryError::Database(error),
    }
}
