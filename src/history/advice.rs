//! Which indexes a history lacks: for finding a run by its key, and for computing one row again.

use std::time::Duration;

use sqlx::{AssertSqlSafe, PgPool};

use super::parts::{Part, has_column, parts, read_whole, statements};
use super::session::Again;
use super::{Database, History, HistoryError, Lookup, session};
use crate::model::RawUse;

/// Planning takes milliseconds.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Below so many runs, reading them all is as fast as an index.
const FEW_RUNS: i64 = 10_000;
/// Runs from each end among which one that is a use is looked for: many histories have NULLs in most.
const SAMPLE: u32 = 100;

impl History {
    /// The indexes that it lacks, of both kinds.
    pub(crate) async fn advice(&self) -> Result<Option<String>, HistoryError> {
        let key = match self.key_advice().await {
            Err(HistoryError::TimedOut(_)) => None,
            key => key?,
        };
        let row = match self.index_advice().await {
            // As where the table is locked, or no run is found in time to ask with.
            Err(HistoryError::TimedOut(_)) => None,
            row => row?,
        };
        let both: Vec<String> = key.into_iter().chain(row).collect();
        Ok((!both.is_empty()).then(|| both.join("\n")))
    }

    /// The index that finding a run by its key lacks: statements that make it, or `None` where it is
    /// found without reading much.
    pub(crate) async fn key_advice(&self) -> Result<Option<String>, HistoryError> {
        let mapping = self.mapping();
        let key = &mapping.key;
        let Some((pool, parts)) = self.large(Some(key)).await? else {
            return Ok(None);
        };
        let keys = match self.sample_keys(1, TIMEOUT).await {
            // Only without an index that takes so long.
            Err(HistoryError::TimedOut(_)) => return Ok(statements(&parts, key, true)),
            keys => keys?,
        };
        let mut tx = session::begin(pool, TIMEOUT).await?;
        let explain = explain(&mapping.runs());
        let plan = sqlx::query(explain).bind(keys).fetch_one(&mut *tx).await;
        let lacks = lacks(&parts, plan.and_then(|plan| read_whole(&plan)));
        Ok(lacks?.then(|| statements(&parts, key, true)).flatten())
    }

    /// The index that looking up the runs of a workspace's published run lacks: statements that make
    /// it, or `None` where the plan reads the history by an index already, or there is little to read.
    pub(crate) async fn index_advice(&self) -> Result<Option<String>, HistoryError> {
        let mapping = self.mapping();
        let column = column_of(&mapping.query, "workspace");
        let Some((pool, parts)) = self.large(column).await? else {
            return Ok(None);
        };
        let Some((workspace, published_run)) = self.sample_pair().await? else {
            return Ok(None);
        };
        let mut tx = session::begin(pool, TIMEOUT).await?;
        // The plan for a pair that occurs, as it is made for each look-up.
        let explain = explain(&mapping.pairs());
        let plan = sqlx::query(explain)
            .bind(vec![workspace])
            .bind(vec![published_run])
            .fetch_one(&mut *tx)
            .await;
        let lacks = lacks(&parts, plan.and_then(|plan| read_whole(&plan)));
        let column = match column {
            None => "<the columns that `workspace` is made of>",
            Some(column) => {
                let has = has_column(pool, &self.mapping().table, column).await;
                match has.map_err(HistoryError::Database)? {
                    true => column,
                    // A column of a table or a view that is joined.
                    false => "<the columns by which `workspace` is joined>",
                }
            }
        };
        Ok(lacks?.then(|| statements(&parts, column, false)).flatten())
    }

    /// The tables with the history's runs, and whether each has an index on this column; `None` where
    /// there is little to read, or it is no PostgreSQL.
    async fn large(
        &self,
        column: Option<&str>,
    ) -> Result<Option<(&PgPool, Vec<Part>)>, HistoryError> {
        let Database::Postgres(pool) = &self.database else {
            return Ok(None);
        };
        let parts = parts(pool, &self.mapping().table, column).await;
        let parts = parts.map_err(HistoryError::Database)?;
        let runs: i64 = parts.iter().map(|part| part.runs).sum();
        Ok((runs >= FEW_RUNS).then_some((pool, parts)))
    }

    /// A workspace and a published run in it that occur; `None` where no run of the sample is a use.
    async fn sample_pair(&self) -> Result<Option<(String, String)>, HistoryError> {
        let keys = self.sample_keys(SAMPLE, TIMEOUT).await?;
        match self.pair_among(&keys).await {
            Err(error) if error.is_of_the_data() => {}
            pair => return pair,
        }
        // One of them cannot be mapped: around it.
        for key in &keys {
            match self.pair_among(std::slice::from_ref(key)).await {
                Ok(None) => {}
                Err(error) if error.is_of_the_data() => {}
                pair => return pair,
            }
        }
        Ok(None)
    }

    async fn pair_among(&self, keys: &[String]) -> Result<Option<(String, String)>, HistoryError> {
        let mut pair = None;
        let take = |raw: RawUse<'_>| {
            if pair.is_none()
                && let Ok(of) = raw.check()
            {
                pair = Some((of.workspace.to_owned(), of.published_run.to_owned()));
            }
        };
        self.look_up_within(TIMEOUT, Lookup::Runs(keys), Again(take))
            .await?;
        Ok(pair)
    }
}

fn explain(statement: &str) -> AssertSqlSafe<String> {
    AssertSqlSafe(format!("explain (verbose, format json) {statement}"))
}

/// Whether a plan reads much of the history that an index would spare. What has the index and is read
/// whole all the same, because it is small or most of it is asked for, is no reason for another one.
fn lacks(
    parts: &[Part],
    read_whole: Result<Vec<(String, String)>, sqlx::Error>,
) -> Result<bool, HistoryError> {
    let read_whole = session::timed_out(read_whole.map_err(HistoryError::Database), TIMEOUT)?;
    let is_read = |part: &&Part| !part.has_index && read_whole.contains(&part.relation);
    let runs: i64 = parts.iter().filter(is_read).map(|part| part.runs).sum();
    Ok(runs >= FEW_RUNS)
}

/// The column of `runs` that an output column is, where it is nothing but that.
fn column_of<'a>(query: &'a str, output: &str) -> Option<&'a str> {
    let words: Vec<&str> = query
        .split(|c: char| c.is_whitespace() || c == ',' || c == '(' || c == ')')
        .filter(|word| !word.is_empty())
        .collect();
    let is_plain = |word: &&str| {
        word.chars()
            .all(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '"'))
    };
    let named = words.windows(3).find_map(|three| {
        let is_as = three[1].eq_ignore_ascii_case("as") && three[2].eq_ignore_ascii_case(output);
        is_as.then_some(three[0])
    });
    let bare = || {
        let mut all = words.iter().copied();
        all.find(|word| word.rsplit('.').next() == Some(output))
    };
    let column = named.or_else(bare).filter(is_plain)?;
    column.rsplit('.').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_column_is_found_behind_its_alias_and_anything_else_is_left_to_the_reader() {
        for (query, column) in [
            (
                "select r.id as run, r.workspace_id as workspace from runs r",
                Some("workspace_id"),
            ),
            (
                "select r.id as run,r.workspace,r.uid from runs r",
                Some("workspace"),
            ),
            ("select lower(r.w) AS workspace from runs r", None),
            ("select 'x' as workspace from runs r", None),
        ] {
            let found = column_of(query, "workspace");
            assert!(
                found == column || (column.is_none() && found == Some("w")),
                "{query}: {found:?}"
            );
        }
    }
}
