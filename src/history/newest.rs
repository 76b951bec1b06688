//! The question of a home page, asked of the history itself: the newest use of each published run, in
//! some lists.

use std::collections::HashSet;
use std::time::Duration;

use sqlx::{AssertSqlSafe, PgPool, Row};

use super::conflict::{self, Patience};
use super::id_type::Types;
use super::look_up::Lookup;
use super::mapping::Mapping;
use super::{Database, History, HistoryError, session};
use crate::model::{Id, Key, Newest, RawUse, Scope};
use crate::record::Fold;
use crate::store::time_from_postgres;

/// A list takes as long as the history is; who waits for longer than this has gone.
const TIMEOUT: Duration = Duration::from_secs(10);

impl History {
    /// The newest use of each published run of these lists, by their keys, in no order. One statement for
    /// the lists of workspaces and one for those of users, however many there are; in SQLite, where times
    /// have no one order, one for each workspace.
    ///
    /// # Errors
    /// [`HistoryError::TimedOut`] or [`HistoryError::Database`].
    pub(crate) async fn newest(
        &self,
        scopes: &[&Scope],
    ) -> Result<Vec<(Key, Newest)>, HistoryError> {
        let (mut mapping, patience) = (self.mapping(), Patience::of(TIMEOUT));
        let mut found = loop {
            let found = match &self.database {
                Database::Postgres(pool) => self.newest_of_postgres(pool, &mapping, scopes).await,
                Database::Sqlite(_) => self.newest_of_sqlite(scopes).await,
            };
            match found {
                Err(error) if patience.tries_again(&error) => conflict::pause().await,
                Err(error) => match self.mapping_behind(&error, &mapping, TIMEOUT).await? {
                    Some(now) => mapping = now,
                    None => return session::timed_out(Err(error), TIMEOUT),
                },
                Ok(found) => break found,
            }
        };
        // A statement about some users in some workspaces gives each of the ones in each of the others.
        let wanted: HashSet<(&str, &str)> = scopes
            .iter()
            .map(|scope| (scope.workspace.as_str(), scope.uid_column()))
            .collect();
        found.retain(|(key, _)| {
            let (workspace, uid, _) = key.parts();
            wanted.contains(&(workspace, uid))
        });
        Ok(found)
    }

    async fn newest_of_postgres(
        &self,
        pool: &PgPool,
        mapping: &Mapping,
        scopes: &[&Scope],
    ) -> Result<Vec<(Key, Newest)>, HistoryError> {
        let mut tx = session::begin(pool, TIMEOUT).await?;
        let accepted = |types: Types, scope: &Scope| {
            let uid = scope.uid.as_ref();
            types.workspace.accepts(&scope.workspace)
                && uid.is_none_or(|uid| types.uid.accepts(uid))
        };
        let anew;
        let mapping = match scopes.iter().all(|scope| accepted(mapping.types, scope)) {
            true => mapping,
            false => {
                anew = self.mapping_in(&mut tx).await?;
                &*anew
            }
        };
        let mut found = Vec::new();
        for of_users in [false, true] {
            let of_kind = scopes
                .iter()
                .filter(|scope| scope.uid.is_some() == of_users);
            // What cannot be a value of the column names no run.
            let fits = of_kind.filter(|scope| accepted(mapping.types, scope));
            let (workspaces, uids): (Vec<&str>, Vec<&str>) = fits
                .map(|scope| (scope.workspace.as_str(), scope.uid_column()))
                .unzip();
            if workspaces.is_empty() {
                continue;
            }
            let text = AssertSqlSafe(mapping.newest(of_users));
            let query = sqlx::query(text).bind(workspaces).bind(uids);
            for row in query
                .fetch_all(&mut *tx)
                .await
                .map_err(HistoryError::Database)?
            {
                found.extend(use_of(&row).map_err(HistoryError::Database)?);
            }
        }
        Ok(found)
    }

    async fn newest_of_sqlite(
        &self,
        scopes: &[&Scope],
    ) -> Result<Vec<(Key, Newest)>, HistoryError> {
        let mut workspaces: Vec<&Id> = scopes.iter().map(|scope| &scope.workspace).collect();
        workspaces.sort_unstable();
        workspaces.dedup();
        let mut fold = Fold::default();
        for workspace in workspaces {
            let take = |raw: RawUse<'_>| {
                if let Ok(usage) = raw.check() {
                    fold.add(&usage);
                }
            };
            let lookup = Lookup::Workspace(workspace, None);
            self.look_up_within(TIMEOUT, lookup, take).await?;
        }
        Ok(fold.into_sorted())
    }
}

/// A row of the statement; `None` where it is no use, as everywhere.
fn use_of(row: &sqlx::postgres::PgRow) -> Result<Option<(Key, Newest)>, sqlx::Error> {
    let raw = RawUse {
        run: row.try_get(4)?,
        workspace: row.try_get(0)?,
        uid: row.try_get(1)?,
        published_run: row.try_get(2)?,
        last_used_at: row
            .try_get_unchecked::<Option<i64>, _>(3)?
            .map(time_from_postgres),
    };
    Ok(raw.check().ok().map(|usage| {
        let key = Key::new(
            usage.workspace,
            usage.uid.unwrap_or_default(),
            usage.published_run,
        );
        let newest = Newest {
            last_used_at: usage.last_used_at,
            run: usage.run.map(Into::into),
        };
        (key, newest)
    }))
}
