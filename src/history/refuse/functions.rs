//! Functions whose result depends on more than their arguments, or on more than one row.

use super::{Dialect, Refusal, clock, excerpt};
use sqlparser::ast::{
    Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause, FunctionArguments, Ident,
    ObjectName,
};

/// Refuses the call, or returns the function's name in lower case, without its schema.
pub(super) fn judge(call: &Function, dialect: Dialect) -> Result<String, Refusal> {
    let name = name(&call.name)?;
    if call.over.is_some() {
        return Err(Refusal::Window(name));
    }
    let arguments = arguments(call);
    if takes_many_rows(call) || is_aggregate(&name, arguments.len(), dialect) {
        return Err(Refusal::Aggregate(name));
    }
    if is_set_returning(&name) {
        return Err(Refusal::SetReturning(name));
    }
    judge_steady(&name, &arguments, dialect)?;
    Ok(name)
}

/// Refuses a call whose result is another one each time.
pub(super) fn judge_steady(
    name: &str,
    arguments: &[&FunctionArgExpr],
    dialect: Dialect,
) -> Result<(), Refusal> {
    if clock::is_read_by(name, arguments, dialect) {
        return Err(Refusal::Clock(name.to_owned()));
    }
    if is_random(name) {
        return Err(Refusal::Random(name.to_owned()));
    }
    if is_state(name) {
        return Err(Refusal::State(name.to_owned()));
    }
    Ok(())
}

/// Refuses what stands for something of the session without parentheses, where no column can be meant.
pub(super) fn judge_name(name: &Ident, dialect: Dialect) -> Result<(), Refusal> {
    let word = name.value.to_ascii_lowercase();
    let is_value = matches!(&*word, "current_role" | "current_schema");
    match is_value && name.quote_style.is_none() && dialect == Dialect::Postgres {
        true => Err(Refusal::State(word)),
        false => Ok(()),
    }
}

/// Refuses a relation in which PostgreSQL shows its own state.
pub(super) fn judge_relation(parts: &[String], dialect: Dialect) -> Result<(), Refusal> {
    let is_the_servers = match parts {
        // Others of this beginning may be the application's.
        [name] => {
            name.starts_with("pg_stat")
                || matches!(
                    &**name,
                    "pg_settings"
                        | "pg_file_settings"
                        | "pg_locks"
                        | "pg_roles"
                        | "pg_user"
                        | "pg_class"
                        | "pg_database"
                        | "pg_prepared_xacts"
                        | "pg_timezone_names"
                )
        }
        [schema, _] | [_, schema, _] => schema == "pg_catalog" || schema == "information_schema",
        _ => false,
    };
    match is_the_servers && dialect == Dialect::Postgres {
        true => Err(Refusal::State(parts.join("."))),
        false => Ok(()),
    }
}

/// A function's name in lower case, without its schema.
pub(super) fn name(name: &ObjectName) -> Result<String, Refusal> {
    match name.0.last().and_then(|part| part.as_ident()) {
        Some(name) => Ok(name.value.to_ascii_lowercase()),
        None => Err(Refusal::NotPlain(excerpt(name))),
    }
}

pub(super) fn arguments(call: &Function) -> Vec<&FunctionArgExpr> {
    match &call.args {
        FunctionArguments::List(list) => values(&list.args),
        _ => Vec::new(),
    }
}

/// Arguments without their names.
pub(super) fn values(arguments: &[FunctionArg]) -> Vec<&FunctionArgExpr> {
    let values = arguments.iter().map(|argument| match argument {
        FunctionArg::Unnamed(value)
        | FunctionArg::Named { arg: value, .. }
        | FunctionArg::ExprNamed { arg: value, .. } => value,
    });
    values.collect()
}

/// What only an aggregate takes, whatever its name; `array(select …)` is one in effect.
fn takes_many_rows(call: &Function) -> bool {
    let of_arguments = match &call.args {
        FunctionArguments::None => false,
        FunctionArguments::Subquery(_) => true,
        FunctionArguments::List(list) => {
            let orders = |clause: &_| matches!(clause, FunctionArgumentClause::OrderBy(_));
            list.duplicate_treatment.is_some() || list.clauses.iter().any(orders)
        }
    };
    let star = |argument: &&FunctionArgExpr| matches!(argument, FunctionArgExpr::Wildcard);
    of_arguments
        || call.filter.is_some()
        || !call.within_group.is_empty()
        || arguments(call).iter().any(star)
}

fn is_aggregate(name: &str, arguments: usize, dialect: Dialect) -> bool {
    let sqlite = dialect == Dialect::Sqlite;
    match name {
        // With several arguments, SQLite's are plain functions.
        "min" | "max" => !sqlite || arguments == 1,
        "count" | "sum" | "avg" | "string_agg" => true,
        "total" | "group_concat" | "json_group_array" | "json_group_object"
        | "jsonb_group_array" | "jsonb_group_object" | "median" | "percentile" => sqlite,
        "any_value"
        | "every"
        | "bool_and"
        | "bool_or"
        | "bit_and"
        | "bit_or"
        | "bit_xor"
        | "array_agg"
        | "xmlagg"
        | "range_agg"
        | "range_intersect_agg"
        | "corr"
        | "covar_pop"
        | "covar_samp"
        | "variance"
        | "var_pop"
        | "var_samp"
        | "mode"
        | "percentile_cont"
        | "percentile_disc"
        | "grouping"
        | "json_arrayagg"
        | "json_objectagg" => true,
        _ => {
            name.starts_with("regr_")
                || name.starts_with("stddev")
                || name.starts_with("json_agg")
                || name.starts_with("jsonb_agg")
                || name.starts_with("json_object_agg")
                || name.starts_with("jsonb_object_agg")
        }
    }
}

fn is_set_returning(name: &str) -> bool {
    matches!(
        name,
        "unnest"
            | "generate_series"
            | "generate_subscripts"
            | "json_each"
            | "json_each_text"
            | "json_tree"
            | "json_array_elements"
            | "json_array_elements_text"
            | "json_object_keys"
            | "json_populate_recordset"
            | "json_to_recordset"
            | "jsonb_each"
            | "jsonb_each_text"
            | "jsonb_tree"
            | "jsonb_array_elements"
            | "jsonb_array_elements_text"
            | "jsonb_object_keys"
            | "jsonb_populate_recordset"
            | "jsonb_to_recordset"
            | "jsonb_path_query"
            | "jsonb_path_query_tz"
            | "regexp_matches"
            | "regexp_split_to_table"
            | "string_to_table"
            | "_pg_expandarray"
    )
}

fn is_random(name: &str) -> bool {
    matches!(
        name,
        "random"
            | "random_normal"
            | "randomblob"
            | "setseed"
            | "gen_random_uuid"
            | "gen_random_bytes"
            | "gen_salt"
            | "uuid_generate_v1"
            | "uuid_generate_v1mc"
            | "uuid_generate_v4"
            | "uuidv4"
            | "uuidv7"
    )
}

fn is_state(name: &str) -> bool {
    matches!(
        name,
        "nextval"
            | "currval"
            | "lastval"
            | "setval"
            | "set_config"
            | "changes"
            | "total_changes"
            | "last_insert_rowid"
            | "load_extension"
            | "current_user"
            | "session_user"
            | "current_role"
            | "user"
            | "current_schema"
            | "current_schemas"
            | "current_setting"
            | "current_catalog"
            | "current_database"
            | "pg_has_role"
            | "has_any_column_privilege"
            | "has_column_privilege"
            | "has_database_privilege"
            | "has_foreign_data_wrapper_privilege"
            | "has_function_privilege"
            | "has_language_privilege"
            | "has_parameter_privilege"
            | "has_schema_privilege"
            | "has_sequence_privilege"
            | "has_server_privilege"
            | "has_table_privilege"
            | "has_tablespace_privilege"
            | "has_type_privilege"
            | "row_security_active"
            | "inet_client_addr"
            | "inet_client_port"
            | "inet_server_addr"
            | "inet_server_port"
            | "version"
            | "pg_is_in_recovery"
            | "pg_backend_pid"
            | "pg_notify"
    ) || [
        "pg_sleep",
        "txid_",
        "pg_current_",
        "pg_advisory_",
        "pg_try_advisory_",
        "dblink",
    ]
    .iter()
    .any(|prefix| name.starts_with(prefix))
}
