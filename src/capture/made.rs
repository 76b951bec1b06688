//! Whether what stands in the catalogue is what this version makes. The outbox's comment says so, and
//! stays as it is where somebody replaced a function or a trigger by hand.

use sqlx::{AssertSqlSafe, PgConnection};

use super::triggers::{self, SEARCH_PATH, SHUT_OUT, Table};
use crate::history::Mapping;

/// Whether each function is there, with its own text, the rights of its owner and a search path of its
/// own, and not for everybody to call.
pub(super) async fn functions(
    conn: &mut PgConnection,
    mapping: &Mapping,
) -> Result<bool, sqlx::Error> {
    // Lines may end otherwise after a detour through somebody's editor.
    let sound = format!(
        "select p.proname::text, replace(p.prosrc, E'\\r', '')
         from pg_proc p join pg_namespace n on n.oid = p.pronamespace
         join pg_language l on l.oid = p.prolang
         where n.nspname = 'recents' and l.lanname = 'plpgsql' and p.prosecdef
           and p.proconfig = array['search_path={SEARCH_PATH}']
           and not has_function_privilege('public', p.oid, 'execute')"
    );
    let sound = sqlx::query_as::<_, (String, String)>(AssertSqlSafe(sound));
    let sound = sound.fetch_all(conn).await?;
    let functions = triggers::functions(mapping);
    Ok(functions.into_iter().all(|function| {
        let function = (function.name, function.source);
        sound.contains(&function)
    }))
}

/// An owner of the functions who may not write the outbox, so that the application cannot write either.
pub(super) async fn shut_out(conn: &mut PgConnection) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar(SHUT_OUT).fetch_optional(conn).await
}

/// The first trigger that a table has to have and has not, or has disabled or made otherwise.
pub(super) async fn missing_trigger(
    conn: &mut PgConnection,
    table: &Table,
) -> Result<Option<String>, sqlx::Error> {
    // `O`: always but for sessions that play back a replication. To show a condition, PostgreSQL would wait
    // for whoever has locked the table; 17 is after an update, for each row.
    let sound = sqlx::query_scalar::<_, String>(
        "select case when t.tgqual is null then lower(pg_get_triggerdef(t.oid))
                     else concat('create trigger ', t.tgname, ' after update on  execute function ',
                                 n.nspname, '.', p.proname, '()') end
         from pg_trigger t join pg_proc p on p.oid = t.tgfoid
         join pg_namespace n on n.oid = p.pronamespace
         where t.tgrelid = $1::oid and t.tgenabled in ('O', 'A')
           and (t.tgqual is null or t.tgtype = 17 and t.tgattr::text = '')",
    );
    let sound = sound.bind(table.oid).fetch_all(conn).await?;
    let mut wanted = table.triggers();
    let missing = wanted.find(|wanted| {
        let is = |text: &String| text.starts_with(&wanted.begins) && text.ends_with(&wanted.ends);
        !sound.iter().any(is)
    });
    Ok(missing.map(|wanted| wanted.name))
}
