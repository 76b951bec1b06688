//! Looking up some runs of a history: by their keys, or by what they map to.

use std::time::Duration;

use futures_util::TryStreamExt;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgPool, Row};

use super::conflict::{self, Patience};
use super::id_type::Types;
use super::mapping::{From, Mapping};
use super::session::Taker;
use super::{Database, History, HistoryError, session, sqlite};
use crate::model::RawUse;
use crate::store::time_from_postgres;

/// Without a fitting index, a look-up reads the whole history once.
pub(super) const TIMEOUT: Duration = Duration::from_secs(300);

/// The runs behind one key up to another.
#[derive(Debug, Clone, Copy)]
pub struct Window<'a>(pub &'a From, pub &'a str);

/// Some runs.
#[derive(Debug, Clone, Copy)]
pub enum Lookup<'a> {
    /// These; what cannot be a key of the history is left out.
    Runs(&'a [String]),
    /// Every run that maps to a workspace, or every one of a window.
    Workspace(&'a str, Option<Window<'a>>),
    /// Every run that maps to a user, whatever the workspace. Seldom by index: it may read everything.
    User(&'a str),
    /// Every run that maps to one of these pairs of a workspace and a published run, or every one of a
    /// window.
    Pairs(&'a [(&'a str, &'a str)], Option<Window<'a>>),
    /// Every run that maps to one of these pairs, but those with these keys, which are not mapped.
    PairsBut(&'a [(&'a str, &'a str)], &'a [String]),
}

impl<'a> Lookup<'a> {
    fn text(self, mapping: &Mapping) -> String {
        match self {
            Self::Runs(_) => mapping.runs(),
            Self::Workspace(_, None) => mapping.workspace(),
            Self::Workspace(_, Some(Window(from, _))) => mapping.workspace_in(from),
            Self::User(_) => mapping.user(),
            Self::Pairs(_, None) => mapping.pairs(),
            Self::Pairs(_, Some(Window(from, _))) => mapping.pairs_in(from),
            Self::PairsBut(..) => mapping.pairs_but(),
        }
    }

    /// Whether all of its ids can be values of columns of these types.
    fn is_accepted(self, types: Types) -> bool {
        match self {
            Self::Runs(runs) => runs.iter().all(|run| types.key.accepts(run)),
            Self::Workspace(id, _) => types.workspace.accepts(id),
            Self::User(id) => types.uid.accepts(id),
            Self::Pairs(pairs, _) | Self::PairsBut(pairs, _) => {
                pairs.iter().all(|pair| accepts(types, *pair))
            }
        }
    }

    fn window(self) -> Option<Window<'a>> {
        match self {
            Self::Runs(_) | Self::User(_) | Self::PairsBut(..) => None,
            Self::Workspace(_, window) | Self::Pairs(_, window) => window,
        }
    }
}

impl History {
    /// Maps these runs and hands each row to `take`, one by one, in no order.
    ///
    /// # Errors
    /// [`HistoryError::TimedOut`] or [`HistoryError::Database`]; rows may have been taken before.
    pub async fn look_up(&self, lookup: Lookup<'_>, take: impl Taker) -> Result<(), HistoryError> {
        self.look_up_within(TIMEOUT, lookup, take).await
    }

    /// As [`History::look_up`], with another time-out.
    pub(super) async fn look_up_within(
        &self,
        timeout: Duration,
        lookup: Lookup<'_>,
        mut take: impl Taker,
    ) -> Result<(), HistoryError> {
        let (mut mapping, patience) = (self.mapping(), Patience::of(timeout));
        let read = match &self.database {
            Database::Postgres(pool) => loop {
                let mut any = false;
                let read = self
                    .look_up_in_postgres(pool, timeout, &mapping, lookup, &mut any, &mut take)
                    .await;
                match read {
                    Err(error) if patience.tries_again(&error) && (!any || take.begins_again()) => {
                        conflict::pause().await;
                    }
                    // Behind a row it is not of the types, which the whole statement was read with.
                    Err(error) if !any => {
                        match self.mapping_behind(&error, &mapping, timeout).await? {
                            Some(now) => mapping = now,
                            None => break Err(error),
                        }
                    }
                    read => break read,
                }
            },
            Database::Sqlite(pool) => {
                let mut query = sqlx::query(AssertSqlSafe(lookup.text(&mapping)));
                if let Some(Window(from, last)) = lookup.window() {
                    query = query.bind(from.key()).bind(last);
                }
                let query = match lookup {
                    Lookup::Runs(runs) => query.bind(serde_json::json!(runs).to_string()),
                    Lookup::Workspace(id, _) | Lookup::User(id) => match sqlite::number(id) {
                        Some(number) => query.bind(id).bind(number),
                        None => query.bind(id).bind(id),
                    },
                    Lookup::Pairs(pairs, _) => query.bind(sqlite::json_pairs(pairs)),
                    Lookup::PairsBut(pairs, but) => query
                        .bind(serde_json::json!(but).to_string())
                        .bind(sqlite::json_pairs(pairs)),
                };
                sqlite::take_rows(pool, timeout, query, &mut take).await
            }
        };
        session::timed_out(read, timeout)
    }

    async fn look_up_in_postgres(
        &self,
        pool: &PgPool,
        timeout: Duration,
        mapping: &Mapping,
        lookup: Lookup<'_>,
        any: &mut bool,
        take: &mut impl Taker,
    ) -> Result<(), HistoryError> {
        let mut tx = match lookup {
            Lookup::Runs(_) => session::begin_look_up(pool, timeout).await?,
            _ => session::begin(pool, timeout).await?,
        };
        // Only by the types of now is it known that an id names nothing.
        let anew;
        let mapping = match lookup.is_accepted(mapping.types) {
            true => mapping,
            false => {
                anew = self.mapping_in(&mut tx).await?;
                &*anew
            }
        };
        let types = mapping.types;
        let mut query = sqlx::query(AssertSqlSafe(lookup.text(mapping)));
        if let Some(Window(from, last)) = lookup.window() {
            query = query.bind(from.key()).bind(last);
        }
        let keys = |runs: &[String]| -> Vec<String> {
            let keys = runs.iter().filter(|run| types.key.accepts(run));
            keys.cloned().collect()
        };
        if let Lookup::PairsBut(_, but) = lookup {
            query = query.bind(keys(but));
        }
        let query = match lookup {
            Lookup::Runs(runs) => query.bind(keys(runs)),
            // It cannot be a value of the column: there are none.
            Lookup::Workspace(..) | Lookup::User(_) if !lookup.is_accepted(types) => return Ok(()),
            Lookup::Workspace(id, _) | Lookup::User(id) => query.bind(id),
            Lookup::Pairs(pairs, _) | Lookup::PairsBut(pairs, _) => {
                let pairs = pairs.iter().copied();
                let (workspaces, published_runs): (Vec<_>, Vec<_>) =
                    pairs.filter(|pair| accepts(types, *pair)).unzip();
                query.bind(workspaces).bind(published_runs)
            }
        };
        let mut rows = query.fetch(&mut *tx);
        while let Some(row) = rows.try_next().await.map_err(HistoryError::Database)? {
            *any = true;
            if take.take(raw_use(&row).map_err(HistoryError::Database)?) {
                take.hand_over().await;
            }
        }
        Ok(())
    }
}

fn accepts(types: Types, (workspace, published_run): (&str, &str)) -> bool {
    types.workspace.accepts(workspace) && types.published_run.accepts(published_run)
}

/// A row of the wrapped mapping query.
pub(super) fn raw_use(row: &PgRow) -> Result<RawUse<'_>, sqlx::Error> {
    Ok(RawUse {
        run: row.try_get(0)?,
        workspace: row.try_get(1)?,
        uid: row.try_get(2)?,
        published_run: row.try_get(3)?,
        // As the integer that it is on the wire: `infinity` and far years must not fail to decode.
        last_used_at: row
            .try_get_unchecked::<Option<i64>, _>(4)?
            .map(time_from_postgres),
    })
}
