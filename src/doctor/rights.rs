//! Whether the table's database takes writes, and what the role may do there.

use sqlx::PgConnection;

use super::asked::{alone, row, text};
use super::findings::Findings;
use crate::store::PgStore;

/// Whether the role may read and write the tables.
pub(super) async fn privileges(pool: &PgStore, findings: &mut Findings<'_>) {
    alone("privileges", pool, findings, rights).await;
}

/// Whether the database takes writes at all; returns whether it is a primary.
pub(super) async fn writing(pool: &PgStore, findings: &mut Findings<'_>) -> bool {
    let mut is_primary = true;
    let look = async |conn: &mut PgConnection, findings: &mut Findings<'_>| {
        is_primary = writes(conn, findings).await;
    };
    alone("writing", pool, findings, look).await;
    is_primary
}

async fn writes(conn: &mut PgConnection, findings: &mut Findings<'_>) -> bool {
    let check = "writing";
    let sql = "select pg_is_in_recovery(), current_setting('transaction_read_only'),
                quote_ident(current_user), quote_ident(current_database()),
                (select source from pg_settings where name = 'default_transaction_read_only')";
    let row = match row(conn, sql).await {
        Ok(row) => row,
        Err(error) => {
            findings.unknown(check, &error);
            return true;
        }
    };
    let text = |at: usize| text(&row, at).unwrap_or_default();
    if text(0) == "t" {
        findings.fail(
            check,
            "it is a hot standby: nothing can be written there",
            "name the primary in database_url; a standby belongs into read_database_url",
        );
        return false;
    }
    let (user, database) = (text(2), text(3));
    match text(1) == "on" {
        false => findings.ok(check, "the database takes writes"),
        true => findings.fail(
            check,
            format!("{user} only reads: default_transaction_read_only is on"),
            match text(4) == "client" {
                true => "take default_transaction_read_only out of database_url".into(),
                // Beats what is set for the role, the database or the server.
                false => format!(
                    "alter role {user} in database {database} \
                     set default_transaction_read_only = off;"
                ),
            },
        ),
    }
    true
}

/// What says which database and which history of it a position is of: of everybody, unless somebody took it away.
const SAYS_WHERE: &str = "'pg_control_system()', 'pg_control_checkpoint()', 'pg_current_wal_insert_lsn()', \
                          'pg_current_wal_flush_lsn()', 'pg_walfile_name(pg_lsn)', 'pg_last_wal_replay_lsn()'";

async fn rights(conn: &mut PgConnection, findings: &mut Findings<'_>) {
    let check = "privileges";
    let sql = format!(
        "select quote_ident(current_user), quote_ident(current_database()),
                coalesce(has_schema_privilege(s.oid, 'usage'), false),
                coalesce(has_schema_privilege(s.oid, 'create'), false),
                has_database_privilege(current_database(), 'create'), s.oid is not null,
                exists (select from pg_class where relnamespace = s.oid
                                               and relname = 'recent_workflow'),
                (select string_agg(c.relname || ': ' || r.name, ', ')
                 from pg_class c, unnest(array['select', 'insert', 'update', 'delete']) as r (name)
                 where c.relnamespace = s.oid and c.relkind = 'r' and c.relname <> 'outbox'
                   and not has_table_privilege(c.oid, r.name)),
                (select string_agg(f.name, ', ') from unnest(array[{SAYS_WHERE}]) as f (name)
                 where not has_function_privilege('pg_catalog.' || f.name, 'execute'))
         from (select to_regnamespace('recents')::oid as oid) as s"
    );
    let row = match row(conn, &sql).await {
        Ok(row) => row,
        Err(error) => return findings.unknown(check, &error),
    };
    let text = |at: usize| text(&row, at);
    let is = |at: usize| text(at).is_some_and(|text| text == "t");
    let (user, database) = (text(0).unwrap_or_default(), text(1).unwrap_or_default());
    let (use_schema, create_in_schema, create_schema) = (is(2), is(3), is(4));
    let (schema_is_there, tables_are_there) = (is(5), is(6));
    match text(7) {
        None if !schema_is_there && !create_schema => findings.fail(
            check,
            format!(
                "{user} may not make the schema recents; or the database's owner runs recents migrate"
            ),
            format!("grant create on database {database} to {user};"),
        ),
        None if !schema_is_there => findings.ok(check, format!("{user} may make the schema")),
        None if !(tables_are_there || use_schema && create_in_schema) => findings.fail(
            check,
            format!(
                "{user} may not make tables in the schema recents; or its owner runs recents migrate"
            ),
            format!("grant usage, create on schema recents to {user};"),
        ),
        None if !tables_are_there => findings.ok(check, format!("{user} may make the tables")),
        None if use_schema => match text(8) {
            None => findings.ok(check, format!("{user} may read and write the tables")),
            Some(functions) => findings.fail(
                check,
                format!("{user} may not call {functions}: no answer can say what it is of"),
                format!("grant execute on function {functions} to {user};"),
            ),
        },
        missing => {
            let schema = (!use_schema).then(|| "the schema: usage".to_owned());
            let missing: Vec<_> = schema.into_iter().chain(missing).collect();
            findings.fail(
                check,
                format!("{user} lacks {}", missing.join(", ")),
                format!(
                    "grant usage on schema recents to {user}; grant select, insert, update, delete \
                     on all tables in schema recents to {user};"
                ),
            );
        }
    }
}
