//! The triggers that note which runs changed: their SQL.
//!
//! Statement-level, with transition tables: whatever an application does, each statement appends the
//! keys of its runs to the outbox, some hundreds to a row, and does nothing else. No mapping, no
//! join, no upsert in the application's transaction.

use sha2::{Digest, Sha256};

use super::change::within_time;
use crate::history::mapping::Mapping;

/// Bytes of the keys in a row of the outbox, about: half a page, so that two rows fill one.
const ROW_BYTES: usize = 4_000;
/// Runs of a statement that are noted one to a row. Most statements change one; counting or gathering
/// them first would cost such a statement half as much again as the note.
const ALONE: usize = 8;
/// Keys that are gathered in the application's memory: 16 to 32 MB, while it changes two million rows.
const GATHERED: usize = 2_000_000;

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

/// The history's table, or a partition or child of it.
pub(super) struct Table {
    pub(super) oid: i64,
    /// As SQL writes it.
    pub(super) name: String,
    /// Whether it has partitions or is one.
    pub(super) is_partitioned: bool,
}

impl Table {
    /// The triggers that it has to have.
    pub(super) fn triggers(&self) -> impl Iterator<Item = Wanted> {
        let statement = |(event, function, referencing)| {
            let each = format!("{referencing} for each statement");
            Wanted::of(event, event, function, each.trim_start())
        };
        let key = || Wanted::of("key", "update", "capture_rekeyed", "");
        triggers_of(self.is_partitioned)
            .map(statement)
            .chain((!self.is_partitioned).then(key))
    }
}

/// A trigger that a table has to have, as PostgreSQL shows its definition, in lower case. Between the two
/// are the table's name, and where the trigger has one, its condition.
pub(super) struct Wanted {
    pub(super) name: String,
    pub(super) begins: String,
    pub(super) ends: String,
}

impl Wanted {
    fn of(name: &str, event: &str, function: &str, each: &str) -> Self {
        let name = format!("recents_capture_{name}");
        Self {
            begins: format!("create trigger {name} after {event} on "),
            ends: format!("{each} execute function recents.{function}()"),
            name,
        }
    }
}

/// A function that triggers call.
pub(super) struct Function {
    pub(super) name: String,
    /// What stands between its quotes.
    pub(super) source: String,
}

/// The search path of the functions: whatever the application's is, names mean the same. As SQL writes it
/// and as the catalogue has it.
pub(super) const SEARCH_PATH: &str = "pg_catalog, pg_temp";

/// Stands in the outbox's comment before the identity of the store that takes the notes. There, because
/// whoever may read the catalogue may read it, and it goes with the outbox.
const OWNER: &str = "of the store ";

/// The identity of the store that takes the notes, as an expression of SQL; NULL where none is recorded.
pub(super) fn owner_in_sql() -> String {
    format!(
        "(select substring(obj_description(c.oid, 'pg_class') from '{OWNER}(.*)')
          from pg_class c join pg_namespace n on n.oid = c.relnamespace
          where n.nspname = 'recents' and c.relname = 'outbox')"
    )
}

/// What is installed, for whoever finds it to compare: its version, and for what.
pub(super) fn description(mapping: &Mapping) -> String {
    let what = [outbox(mapping), create_functions(mapping)].concat()
        + &[true, false]
            .map(|parts| triggers(mapping, "", parts))
            .concat();
    let version: String = Sha256::digest(what)
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let (table, key, of) = (&mapping.table, &mapping.key, mapping.types.key.sql());
    format!("recents capture {version}: {table} {key} {of}")
}

/// The statements that install it for a store, or replace another version. They lock the history first,
/// as everybody does who writes it, parents before their partitions, and the outbox behind it.
pub(super) fn install(mapping: &Mapping, tables: &[Table], store: &str) -> String {
    let mut sql = SCHEMA.to_owned() + &create_functions(mapping);
    for table in tables {
        sql += &within_time(1);
        sql += &triggers(mapping, &table.name, table.is_partitioned);
    }
    sql += &outbox(mapping);
    sql += &functions_may_write();
    sql += IDS_GO_ON;
    let comment = format!("{}\n{OWNER}{store}", description(mapping));
    sql += &format!(
        "comment on table recents.outbox is '{}';\n",
        comment.replace('\'', "''")
    );
    sql
}

const SCHEMA: &str = "do $recents$ begin
  if to_regnamespace('recents') is null then
    create schema recents;
  end if;
end $recents$;
";

/// Owners of the functions who may not write the outbox, so that the application cannot write its history either.
pub(super) const SHUT_OUT: &str = "select distinct pg_get_userbyid(p.proowner)::text
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace
    join pg_class c on c.relnamespace = n.oid and c.relname = 'outbox'
    where n.nspname = 'recents' and p.proname like 'capture\\_%'
      and not (has_schema_privilege(p.proowner, n.oid, 'usage')
               and has_column_privilege(p.proowner, c.oid, 'runs', 'insert')
               and has_column_privilege(p.proowner, c.oid, 'keys', 'insert'))";

/// Functions that were there keep their owner, with whose rights they write, and the outbox may be another's: it
/// was made anew, or given away.
fn functions_may_write() -> String {
    format!(
        "do $recents$
declare
  owner text;
begin
  for owner in
    {SHUT_OUT}
  loop
    execute format('grant usage on schema recents to %I', owner);
    execute format('grant insert on recents.outbox to %I', owner);
    -- Where there is nothing to give, a grant is only a warning.
    if not (has_schema_privilege(owner, 'recents', 'usage')
            and has_table_privilege(owner, 'recents.outbox', 'insert')) then
      raise insufficient_privilege using message = owner || ' may not write recents.outbox, and nothing could be granted';
    end if;
  end loop;
end $recents$;
"
    )
}

/// The ids of an outbox go on behind those of the one that was there before, however many those were: a drain
/// looks behind what it saw.
const IDS_GO_ON: &str = "do $recents$ begin
  perform setval(pg_get_serial_sequence('recents.outbox', 'id'),
                 (extract(epoch from clock_timestamp()) * 1000000)::bigint);
end $recents$;
";

fn outbox(mapping: &Mapping) -> String {
    let of = mapping.types.key.sql();
    // Notes that wait survive another version, and another type of the key that their keys can have;
    // otherwise they name nothing any more, and every row is looked at instead.
    let mut sql = format!(
        "do $recents$ begin
  if exists (select from pg_attribute where attrelid = to_regclass('recents.outbox')
             and attname = 'keys' and atttypid <> '{of}[]'::regtype) then
    begin
      alter table recents.outbox alter column keys type {of}[] using keys::text[]::{of}[];
    exception when data_exception or datatype_mismatch or cannot_coerce then
      drop table recents.outbox;
      perform set_config('recents.replaced', 'yes', true);
    end;
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
"
    );
    if mapping.types.key.has_fixed_length() {
        // Compressing what is never read twice only costs the application's transaction.
        sql += "alter table recents.outbox alter column keys set storage plain;\n";
    }
    sql
}

/// The functions that the triggers call.
pub(super) fn functions(mapping: &Mapping) -> [Function; 6] {
    let key = &mapping.key;
    let noted = |rows| (declare(mapping), note(mapping, rows));
    let (declared, new) = noted("recents_new");
    let (_, old) = noted("recents_old");
    let sum = |rows| sum(mapping, rows);
    let moved = format!(
        "{new}  if {} is distinct from {} then\n{old}  end if;\n",
        sum("recents_old"),
        sum("recents_new")
    );
    let rekeyed =
        format!("  insert into recents.outbox (runs, keys) values (1, array[old.{key}]);\n");
    let truncated = "  insert into recents.outbox (runs, keys) values (0, null);\n".to_owned();
    [
        ("inserted", declared.as_str(), &new),
        ("updated", &declared, &new),
        ("deleted", &declared, &old),
        ("truncated", "", &truncated),
        ("moved", &declared, &moved),
        ("rekeyed", "", &rekeyed),
    ]
    .map(|(name, declared, body)| Function {
        name: format!("capture_{name}"),
        source: format!(
            "
#variable_conflict use_variable
{declared}begin
{body}  return null;
end "
        ),
    })
}

fn create_functions(mapping: &Mapping) -> String {
    functions(mapping)
        .map(|Function { name, source }| {
            format!(
                "create or replace function recents.{name}() returns trigger language plpgsql
security definer set search_path = {SEARCH_PATH} as $recents${source}$recents$;
revoke all on function recents.{name}() from public;
"
            )
        })
        .concat()
}

/// What a table's triggers fire after, call and see, the one of its key apart.
fn triggers_of(is_partitioned: bool) -> impl Iterator<Item = Trigger> {
    TRIGGERS.into_iter().map(move |trigger| match trigger {
        ("update", ..) if is_partitioned => UPDATE_OF_PARTITIONS,
        trigger => trigger,
    })
}

fn triggers(mapping: &Mapping, table: &str, is_partitioned: bool) -> String {
    let key = &mapping.key;
    let mut sql = String::new();
    for (event, function, referencing) in triggers_of(is_partitioned) {
        // Replacing one that is disabled enables it.
        sql += &format!(
            "create or replace trigger recents_capture_{event} after {event} on {table}
  {referencing} for each statement execute function recents.{function}();
"
        );
    }
    if !is_partitioned {
        // Not only where the statement names the key: a trigger of the application may change it.
        let (old, new) = match mapping.types.key.has_fixed_length() {
            true => (format!("old.{key}"), format!("new.{key}")),
            // By its bytes: two spellings that a collation takes for equal are two keys.
            false => (
                format!("old.{key}::text collate \"C\""),
                format!("new.{key}::text collate \"C\""),
            ),
        };
        sql += &format!(
            "create or replace trigger recents_capture_key after update on {table}
  for each row when ({old} is distinct from {new})
  execute function recents.capture_rekeyed();
"
        );
    }
    sql
}

/// What [`note`] needs.
fn declare(mapping: &Mapping) -> String {
    let of = mapping.types.key;
    let own = match of.has_fixed_length() {
        true => "  behind bigint;\n".to_owned(),
        false => format!("  noted {0}; noting {0}[];\n", of.sql()),
    };
    format!("declare\n  many bigint;\n{own}")
}

/// Notes the keys of the changed `rows`. The only word of the user in it is the key column's name.
fn note(mapping: &Mapping, rows: &str) -> String {
    let (key, of) = (&mapping.key, mapping.types.key);
    let per_row = ROW_BYTES / of.bytes();
    let keys = format!("select n.{key} as k from {rows} as n where n.{key} is not null");
    let alone = format!(
        "  insert into recents.outbox (runs, keys) select 1, array[n.k] from ({keys} limit {ALONE}) as n;
  get diagnostics many = row_count;
"
    );
    // Slices of one array take a quarter of the time of any grouping, but finding the start of a
    // slice among texts would mean walking all before it.
    alone
        + &match of.has_fixed_length() {
            true => format!(
                "  behind := {ALONE};
  while many >= {ALONE} loop
    insert into recents.outbox (runs, keys)
    select cardinality(part.keys), part.keys
    from (select array_agg(n.k) as keys from ({keys} offset behind limit {GATHERED}) as n) as gathered,
      lateral (select gathered.keys[i : i + {per_row} - 1] as keys
               from generate_series(1, cardinality(gathered.keys), {per_row}) as i) as part;
    get diagnostics many = row_count;
    behind := behind + {GATHERED};
  end loop;
"
            ),
            false => format!(
                "  if many >= {ALONE} then
    many := 0;
    for noted in {keys} offset {ALONE} loop
      many := many + 1;
      noting[many] := noted;
      if many = {per_row} then
        insert into recents.outbox (runs, keys) values (many, noting);
        many := 0;
      end if;
    end loop;
    if many > 0 then
      insert into recents.outbox (runs, keys) values (many, noting[1:many]);
    end if;
  end if;
"
            ),
        }
}

/// Keys are the same before and after an update, unless the key itself was updated.
fn sum(mapping: &Mapping, rows: &str) -> String {
    let key = &mapping.key;
    // Of the text: the hash of an integer is the same for many that a change of shards makes of it.
    format!("(select bit_xor(hashtextextended(n.{key}::text collate \"C\", 0)) from {rows} as n)")
}
