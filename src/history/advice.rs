//! Which index on the history would let one row be computed again without reading all of it.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Row};

use super::{Database, History, HistoryError, session};

/// Planning takes milliseconds.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Below so many runs, reading them all is as fast as an index.
const FEW_RUNS: u64 = 10_000;

impl History {
    /// Whether looking up a run by its key reads the whole history, and that is much.
    pub(crate) async fn scans_for_a_run(&self) -> Result<bool, HistoryError> {
        let Database::Postgres(pool) = &self.database else {
            return Ok(false);
        };
        if self.about_how_many().await?.unwrap_or(0) < FEW_RUNS {
            return Ok(false);
        }
        let key = match self.sample_keys(1, TIMEOUT).await {
            Err(HistoryError::TimedOut(_)) => return Ok(true),
            key => key?,
        };
        let mut tx = session::begin(pool, TIMEOUT).await?;
        let explain = format!("explain {}", self.mapping.runs());
        let plan = sqlx::query_scalar::<_, String>(AssertSqlSafe(explain)).bind(key);
        let plan = plan.fetch_all(&mut *tx).await;
        let plan = plan.map_err(HistoryError::Database)?;
        Ok(plan.iter().any(|line| line.contains(&self.reading_all())))
    }

    /// What a plan says that reads the whole history.
    fn reading_all(&self) -> String {
        let table = self.mapping.table.rsplit('.').next().unwrap_or_default();
        format!("Seq Scan on {table} ")
    }

    /// The index that looking up the runs of a workspace's published run lacks: a statement that makes
    /// it, or `None` where the plan reads the history by an index already, or there is little to read.
    pub(crate) async fn index_advice(&self) -> Result<Option<String>, HistoryError> {
        let Database::Postgres(pool) = &self.database else {
            return Ok(None);
        };
        if self.about_how_many().await?.unwrap_or(0) < FEW_RUNS {
            return Ok(None);
        }
        let Some(key) = self.sample_keys(1, TIMEOUT).await?.pop() else {
            return Ok(None);
        };
        let mut tx = session::begin(pool, TIMEOUT).await?;
        let database = HistoryError::Database;
        // The plan for a pair that occurs, as it is made for each look-up.
        let sample = sqlx::query(AssertSqlSafe(self.mapping.runs())).bind(vec![key]);
        let sample = sample.fetch_optional(&mut *tx).await.map_err(database)?;
        let Some(sample) = sample else {
            return Ok(None);
        };
        let pair = |at: usize| sample.try_get::<Option<String>, _>(at).map_err(database);
        let (Some(workspace), Some(published_run)) = (pair(1)?, pair(3)?) else {
            return Ok(None);
        };
        let explain = format!("explain {}", self.mapping.pairs());
        let plan = sqlx::query_scalar::<_, String>(AssertSqlSafe(explain))
            .bind(vec![workspace])
            .bind(vec![published_run])
            .fetch_all(&mut *tx)
            .await
            .map_err(database)?;
        if !plan.iter().any(|line| line.contains(&self.reading_all())) {
            return Ok(None);
        }
        let column = column_of(&self.mapping.query, "workspace");
        let column = column.unwrap_or("<the columns that `workspace` is made of>");
        Ok(Some(format!(
            "create index concurrently on {} ({column});",
            self.mapping.table
        )))
    }
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
