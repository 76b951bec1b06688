//! How a history's tables are laid out: types, names, partitions.

use crate::support::Backend;

/// The tables of a history: `saved_run` and, a join away, `saved_run_version`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    pub(crate) name: &'static str,
    pub(crate) backend: Backend,
    /// What must be there before the tables.
    pub(crate) before: &'static str,
    /// The table of runs, as SQL writes it.
    pub(crate) table: &'static str,
    /// Its key.
    pub(crate) key: &'static str,
    pub(crate) key_type: &'static str,
    /// What makes it one.
    pub(crate) constraint: &'static str,
    /// Of workspaces and of published runs.
    pub(crate) id_type: &'static str,
    pub(crate) time_type: &'static str,
    pub(crate) time_form: TimeForm,
    /// What stands behind the columns.
    pub(crate) after: &'static str,
    /// Partitions and the like.
    pub(crate) parts: &'static str,
}

/// How a time is written into the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimeForm {
    /// Microseconds since 1970.
    Micros,
    /// `2023-11-14T22:13:20.000001Z`
    Rfc3339,
    /// `2023-11-14 22:13:20.000001`
    Sql,
}

/// A plain PostgreSQL history.
pub(crate) const POSTGRES: Layout = Layout {
    name: "bigint keys",
    backend: Backend::Postgres,
    before: "",
    table: "saved_run",
    key: "id",
    key_type: "bigint",
    constraint: "primary key",
    id_type: "text",
    time_type: "timestamptz",
    time_form: TimeForm::Rfc3339,
    after: "",
    parts: "",
};

/// A plain SQLite history.
pub(crate) const SQLITE: Layout = Layout {
    backend: Backend::Sqlite,
    key_type: "integer",
    time_type: "integer",
    time_form: TimeForm::Micros,
    ..POSTGRES
};

/// Ids as numbers, on both.
pub(crate) const NUMBERS: [Layout; 2] = [
    Layout {
        name: "numbers for ids",
        id_type: "bigint",
        ..POSTGRES
    },
    Layout {
        name: "numbers for ids",
        id_type: "integer",
        ..SQLITE
    },
];

/// Every layout.
pub(crate) const ALL: [Layout; 13] = [
    POSTGRES,
    NUMBERS[0],
    Layout {
        name: "uuid keys",
        key_type: "uuid",
        ..POSTGRES
    },
    Layout {
        name: "text keys, timestamp",
        key_type: "text",
        time_type: "timestamp",
        ..POSTGRES
    },
    Layout {
        name: "varchar keys",
        key_type: "varchar(200)",
        id_type: "varchar(200)",
        ..POSTGRES
    },
    Layout {
        name: "int keys",
        key_type: "int",
        ..POSTGRES
    },
    Layout {
        name: "quoted names",
        before: "create schema \"App\";",
        table: "\"App\".\"Saved Run\"",
        key: "\"Run Id\"",
        ..POSTGRES
    },
    Layout {
        name: "a schema",
        before: "create schema app;",
        table: "app.saved_run",
        key_type: "uuid",
        ..POSTGRES
    },
    Layout {
        name: "partitions",
        after: "partition by range (id)",
        parts:
            "create table saved_run_0 partition of saved_run for values from (minvalue) to (100);
                create table saved_run_1 partition of saved_run for values from (100) to (400);
                create table saved_run_2 partition of saved_run default;",
        ..POSTGRES
    },
    SQLITE,
    NUMBERS[1],
    Layout {
        name: "text keys, RFC 3339",
        key_type: "text",
        time_type: "text",
        time_form: TimeForm::Rfc3339,
        ..SQLITE
    },
    Layout {
        name: "quoted names, SQL's times",
        table: "\"Saved Run\"",
        key: "\"Run Id\"",
        time_type: "datetime",
        time_form: TimeForm::Sql,
        ..SQLITE
    },
];

impl Layout {
    /// The plain one of a database.
    pub(crate) fn of(backend: Backend) -> Self {
        match backend {
            Backend::Postgres => POSTGRES,
            Backend::Sqlite => SQLITE,
        }
    }

    /// The tables, without a default, without NOT NULL but in the key, without foreign keys.
    pub(crate) fn tables(&self) -> String {
        let Self {
            before,
            table,
            key,
            key_type,
            constraint,
            id_type,
            time_type,
            after,
            parts,
            ..
        } = self;
        format!(
            "{before}
             create table {table} (
                 {key} {key_type} {constraint}, workspace_id {id_type}, uid text,
                 parent_version_id bigint, updated_at {time_type}
             ) {after};
             {parts}
             create table saved_run_version (id bigint primary key, published_run_id {id_type})"
        )
    }

    /// The mapping query of the design: the published run is a join away.
    pub(crate) fn query(&self) -> String {
        self.query_of(&format!("r.{}", self.key), "join")
    }

    /// The same with another `run`, or with another join.
    pub(crate) fn query_of(&self, run: &str, join: &str) -> String {
        format!(
            "select {run} as run, r.workspace_id as workspace, r.uid, \
             v.published_run_id as published_run, r.updated_at as last_used_at \
             from runs r {join} saved_run_version v on v.id = r.parent_version_id"
        )
    }
}
