//! The tables that hold the runs of a PostgreSQL history: which of them a plan reads whole, and the
//! indexes that would end that.

use serde_json::Value;
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};

/// The history's table, or a partition or child of it.
pub(super) struct Part {
    /// Its schema and its name, as a plan has them.
    pub(super) relation: (String, String),
    /// As SQL writes it.
    name: String,
    /// Whether only its partitions have runs.
    is_partitioned: bool,
    /// About how many runs it has: none where it was never analysed.
    pub(super) runs: i64,
    /// Whether it has an index that begins with the column.
    pub(super) has_index: bool,
}

const PARTS: &str = "
with recursive tree (oid) as (
    select to_regclass($1)::oid
    union select i.inhrelid from pg_catalog.pg_inherits i join tree t on i.inhparent = t.oid
)
select n.nspname::text, c.relname::text, format('%I.%I', n.nspname, c.relname), c.relkind = 'p',
       greatest(c.reltuples, 0)::bigint,
       exists (select from pg_catalog.pg_index i join pg_catalog.pg_attribute a
                 on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
               where i.indrelid = c.oid and i.indisvalid and i.indpred is null and a.attname = $2)
from tree join pg_catalog.pg_class c on c.oid = tree.oid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p') order by c.oid <> to_regclass($1)::oid, n.nspname, c.relname";

/// The table, and behind it all its partitions and children.
pub(super) async fn parts(
    pool: &PgPool,
    table: &str,
    column: Option<&str>,
) -> Result<Vec<Part>, sqlx::Error> {
    let rows = sqlx::query(PARTS).bind(table).bind(column.map(unquoted));
    let part = |row: &PgRow| {
        let runs = match row.try_get(3)? {
            // Counted with its partitions.
            true => 0,
            false => row.try_get(4)?,
        };
        Ok(Part {
            relation: (row.try_get(0)?, row.try_get(1)?),
            name: row.try_get(2)?,
            is_partitioned: row.try_get(3)?,
            runs,
            has_index: row.try_get(5)?,
        })
    };
    rows.fetch_all(pool).await?.iter().map(part).collect()
}

/// Whether the table has such a column.
pub(super) async fn has_column(
    pool: &PgPool,
    table: &str,
    column: &str,
) -> Result<bool, sqlx::Error> {
    let has = "select exists (select from pg_catalog.pg_attribute
               where attrelid = to_regclass($1) and attname = $2 and not attisdropped)";
    let has = sqlx::query_scalar(has).bind(table).bind(unquoted(column));
    has.fetch_one(pool).await
}

/// The name that SQL writes so.
fn unquoted(name: &str) -> String {
    match name
        .strip_prefix('"')
        .and_then(|name| name.strip_suffix('"'))
    {
        Some(quoted) => quoted.replace("\"\"", "\""),
        None => name.to_lowercase(),
    }
}

/// The relations, each with its schema, that a plan reads whole; the plan as `explain (verbose, format
/// json)` returns it. In a plan, partitions stand for their parent.
pub(super) fn read_whole(plan: &PgRow) -> Result<Vec<(String, String)>, sqlx::Error> {
    // JSON is the same text on the wire.
    let plan: String = plan.try_get_unchecked(0)?;
    let plan = serde_json::from_str(&plan).map_err(|error| sqlx::Error::Decode(error.into()))?;
    let mut relations = Vec::new();
    walk(&plan, &mut relations);
    Ok(relations)
}

fn walk(plan: &Value, relations: &mut Vec<(String, String)>) {
    match plan {
        Value::Array(nodes) => nodes.iter().for_each(|node| walk(node, relations)),
        Value::Object(node) => {
            let text = |name: &str| node.get(name).and_then(Value::as_str);
            if text("Node Type") == Some("Seq Scan")
                && let Some((schema, name)) = text("Schema").zip(text("Relation Name"))
            {
                relations.push((schema.to_owned(), name.to_owned()));
            }
            node.values().for_each(|below| walk(below, relations));
        }
        _ => {}
    }
}

/// The statements, one a line, that give an index on `column` to each part without one, while the
/// application goes on writing; `None` where all have one.
///
/// A partitioned table takes none concurrently. Its partitions do, and its own takes theirs over, in a
/// moment, and gives one to later partitions.
pub(super) fn statements(parts: &[Part], column: &str, is_key: bool) -> Option<String> {
    // Unique in each partition is not unique in all.
    let unique = if is_key && parts.len() == 1 {
        "unique "
    } else {
        ""
    };
    let lacking = parts.iter().filter(|part| !part.has_index);
    let (partitioned, plain): (Vec<_>, Vec<_>) = lacking.partition(|part| part.is_partitioned);
    let one_by_one = plain.iter().map(|part| {
        let table = &part.name;
        format!("create {unique}index concurrently on {table} ({column});")
    });
    let whole = partitioned.first().map(|part| {
        let table = &part.name;
        format!("create index on {table} ({column});")
    });
    let statements: Vec<_> = one_by_one.chain(whole).collect();
    (!statements.is_empty()).then(|| statements.join("\n"))
}
