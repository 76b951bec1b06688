//! Rows passed into a statement as parameters: one shape, whatever their number.

use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::sqlite::SqliteArguments;
use sqlx::{Postgres, Sqlite};

use crate::model::{Key, Newest, Time};

/// A column of the rows, in the order of the relation in `statement`.
enum Column<'a> {
    Text(Vec<Option<&'a str>>),
    Time(Vec<Time>),
    Number(Vec<i64>),
}

/// Rows to bind to `{keys}`, `{uses}`, `{swaps}`, `{lines}`, `{runs}`, `{is_one_of_runs}` or `{is_one_of_ids}`.
pub(super) struct Rows<'a>(Vec<Column<'a>>);

impl<'a> Rows<'a> {
    pub(super) fn keys(keys: impl Iterator<Item = &'a Key> + Clone) -> Self {
        let part = |of: fn((&'a str, &'a str, &'a str)) -> &'a str| {
            Column::Text(keys.clone().map(|key| Some(of(key.parts()))).collect())
        };
        Self(vec![part(|p| p.0), part(|p| p.1), part(|p| p.2)])
    }

    pub(super) fn runs(runs: impl Iterator<Item = &'a str>) -> Self {
        Self(vec![Column::Text(runs.map(Some).collect())])
    }

    pub(super) fn ids(ids: &[i64]) -> Self {
        Self(vec![Column::Number(ids.to_vec())])
    }

    pub(super) fn newest(mut self, newest: impl Iterator<Item = &'a Newest> + Clone) -> Self {
        self.0.push(Column::Time(
            newest.clone().map(|n| n.last_used_at).collect(),
        ));
        self.0
            .push(Column::Text(newest.map(|n| n.run.as_deref()).collect()));
        self
    }

    pub(super) fn texts(mut self, texts: impl Iterator<Item = &'a str>) -> Self {
        self.0.push(Column::Text(texts.map(Some).collect()));
        self
    }

    fn json(&self) -> String {
        let rows = self.0.first().map_or(0, |first| match first {
            Column::Text(texts) => texts.len(),
            Column::Time(times) => times.len(),
            Column::Number(numbers) => numbers.len(),
        });
        let row = |at: usize| {
            let cells = self.0.iter().map(|column| match column {
                Column::Text(texts) => serde_json::Value::from(texts[at]),
                Column::Time(times) => serde_json::Value::from(times[at].micros()),
                Column::Number(numbers) => serde_json::Value::from(numbers[at]),
            });
            serde_json::Value::Array(cells.collect())
        };
        serde_json::Value::Array((0..rows).map(row).collect()).to_string()
    }
}

/// A query to which [`Rows`] can be bound, as its first parameters.
pub(super) trait BindRows<'q> {
    /// Binds them.
    fn bind_rows(self, rows: Rows<'q>) -> Self;
}

impl<'q> BindRows<'q> for Query<'q, Postgres, PgArguments> {
    fn bind_rows(self, rows: Rows<'q>) -> Self {
        rows.0.into_iter().fold(self, |query, column| match column {
            Column::Text(texts) => query.bind(texts),
            Column::Time(times) => query.bind(times),
            Column::Number(numbers) => query.bind(numbers),
        })
    }
}

impl<'q> BindRows<'q> for Query<'q, Sqlite, SqliteArguments> {
    fn bind_rows(self, rows: Rows<'q>) -> Self {
        self.bind(rows.json())
    }
}
