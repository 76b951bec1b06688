//! What is set aside: notes of runs whose mapping fails, and of rows for which too many do, kept with the reason where
//! nobody takes them, until they are tried again.

use sqlx::Row;

use super::note::{self, Note, note_of};
use super::rows::{BindRows, Rows};
use super::statement::Statement;
use super::{Conn, Store, StoreError, on_both};
use crate::model::Key;

pub(super) const STATEMENTS: [&Statement; 8] = [
    &ANY,
    &KEEP,
    &RETRY,
    &RETRY_ROWS,
    &OF_RUNS,
    &OF_KEYS,
    &RUNS,
    &EXAMPLES,
];

static ANY: Statement = Statement::new("any_set_aside", || {
    "select count(*) from (select 1 from {recents}note where error is not null limit 1) as t".into()
});

static KEEP: Statement = Statement::new("set_note_aside", || {
    "insert into {recents}note (run, workspace, uid, published_run, error)
     select cast($1 as text), cast($2 as text), cast($3 as text), cast($4 as text), cast($5 as text)
     where not exists (
         select 1 from {recents}note as n where n.error is not null
           and coalesce(n.run, '') = coalesce($1, '')
           and coalesce(n.workspace, '') = coalesce($2, '') and coalesce(n.uid, '') = coalesce($3, '')
           and coalesce(n.published_run, '') = coalesce($4, ''))"
        .into()
});

// Those that somebody lets go at this moment are not waited for: he may be waiting for others of them.
static RETRY: Statement = Statement::new("retry_notes_set_aside", || {
    "update {recents}note set error = null where id in (
         select t.id from {recents}note as t where t.error is not null and t.id > $2
         order by t.id limit $1 {lock_free})
     returning id"
        .into()
});

static RETRY_ROWS: Statement = Statement::new("retry_rows_set_aside", || {
    "update {recents}note set error = null where id in (
         select t.id from {recents}note as t where t.error is not null and t.run is null limit $1 {lock_free})"
        .into()
});

static OF_RUNS: Statement = Statement::new("notes_set_aside_of", || {
    "select id, run from {recents}note where error is not null and run {is_one_of_runs}".into()
});

static OF_KEYS: Statement = Statement::new("rows_set_aside_of", || {
    "select n.id, n.workspace, n.uid, n.published_run from {recents}note as n
     join {keys} as k on k.workspace = n.workspace and k.uid = n.uid and k.published_run = n.published_run
     where n.error is not null and n.run is null"
        .into()
});

// The first ones that were set aside.
static RUNS: Statement = Statement::new("runs_set_aside", || {
    "select run from {recents}note where error is not null and run is not null order by run limit $1"
        .into()
});

static EXAMPLES: Statement = Statement::new("notes_set_aside", || {
    "select id, run, workspace, uid, published_run, error from {recents}note
     where error is not null order by id limit $1"
        .into()
});

/// Runs that a look at the history leaves out at once at the most: their keys go along with it.
const MAX_ASIDE: u32 = 10_000;

/// Notes set aside that are tried again at once: each that fails again is a query of its own.
const RETRIED: u32 = 1_000;

/// Whether anything is set aside. Whoever maps runs or computes rows asks for it behind the taking of their notes: what
/// another one sets aside later is noted beside that, to be taken once more.
pub(crate) async fn any(store: &Store) -> Result<bool, StoreError> {
    on_both!(Store, store, |pool, dialect| {
        let row = sqlx::query(ANY.run(dialect)).fetch_one(pool).await?;
        Ok(row.try_get::<i64, _>(0)? > 0)
    })
}

/// Keeps notes whose mapping fails, each with the reason, where nobody takes them; once, however often they fail, but for
/// two who find that out at the same time. The first time, another note of the same is left to be taken: what failed
/// was read before, and may have been mended and looked at since. Rows may be set aside because nobody knew of these runs
/// that they fail: some are taken again, [`RETRIED`] at the most. Returns whether there were any.
pub(crate) async fn keep(store: &Store, fails: &[(Note, String)]) -> Result<bool, StoreError> {
    let mut tx = store.begin().await?;
    let mut more_runs = false;
    for (note, error) in fails {
        let (run, key) = match note {
            Note::Run(run) => (Some(&**run), None),
            Note::Key(key) => (None, Some(key)),
        };
        let parts = key.map(Key::parts);
        let is_new = on_both!(Conn, tx.conn(), |conn, dialect| {
            let query = sqlx::query(KEEP.run(dialect))
                .bind(run)
                .bind(parts.map(|key| key.0))
                .bind(parts.map(|key| key.1))
                .bind(parts.map(|key| key.2))
                .bind(error);
            query.execute(conn).await?.rows_affected() > 0
        });
        if is_new {
            note::runs(tx.conn(), run.as_slice()).await?;
            note::keys(tx.conn(), key.map(std::slice::from_ref).unwrap_or_default()).await?;
        }
        more_runs |= is_new && run.is_some();
    }
    let tries_again = more_runs
        && on_both!(Conn, tx.conn(), |conn, dialect| {
            let query = sqlx::query(RETRY_ROWS.run(dialect)).bind(i64::from(RETRIED));
            query.execute(conn).await?.rows_affected() > 0
        });
    tx.commit().await?;
    Ok(tries_again)
}

/// Has the next notes behind this one that were set aside taken again, [`RETRIED`] at the most; returns their ids.
pub(crate) async fn retry(store: &Store, behind: i64) -> Result<Vec<i64>, StoreError> {
    on_both!(Store, store, |pool, dialect| {
        let query = sqlx::query(RETRY.run(dialect))
            .bind(i64::from(RETRIED))
            .bind(behind);
        let rows = query.fetch_all(pool).await?;
        let ids: Result<_, sqlx::Error> = rows.iter().map(|row| row.try_get(0)).collect();
        Ok(ids?)
    })
}

/// The notes of these runs that are set aside.
pub(crate) async fn of(store: &Store, runs: &[String]) -> Result<Vec<(i64, String)>, StoreError> {
    on_both!(Store, store, |pool, dialect| {
        let query = sqlx::query(OF_RUNS.run(dialect));
        let query = query.bind_rows(Rows::runs(runs.iter().map(String::as_str)));
        let rows = query.fetch_all(pool).await?;
        let note = |row| Ok((Row::try_get(row, 0)?, Row::try_get(row, 1)?));
        rows.iter().map(note).collect()
    })
}

/// The notes of these rows that are set aside.
pub(crate) async fn of_keys(store: &Store, keys: &[Key]) -> Result<Vec<(i64, Key)>, StoreError> {
    on_both!(Store, store, |pool, dialect| {
        let query = sqlx::query(OF_KEYS.run(dialect)).bind_rows(Rows::keys(keys.iter()));
        let rows = query.fetch_all(pool).await?;
        let note = |row| {
            let key = Key::new(
                Row::try_get(row, 1)?,
                Row::try_get(row, 2)?,
                Row::try_get(row, 3)?,
            );
            Ok((Row::try_get(row, 0)?, key))
        };
        rows.iter().map(note).collect()
    })
}

/// Runs of which a note is set aside, [`MAX_ASIDE`] at the most.
pub(crate) async fn runs(store: &Store) -> Result<Vec<String>, StoreError> {
    on_both!(Store, store, |pool, dialect| {
        let query = sqlx::query(RUNS.run(dialect)).bind(i64::from(MAX_ASIDE));
        let rows = query.fetch_all(pool).await?;
        let runs: Result<_, sqlx::Error> = rows.iter().map(|row| row.try_get(0)).collect();
        Ok(runs?)
    })
}

/// Forgets these notes that were set aside, because their runs can be mapped now, or are gone, and has others taken
/// again, [`RETRIED`] at the most: whoever mended one may have mended more, and a row may be set aside because of it.
pub(crate) async fn forget(store: &Store, ids: &[i64]) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    note::let_go(tx.conn(), ids).await?;
    on_both!(Conn, tx.conn(), |conn, dialect| {
        let query = sqlx::query(RETRY.run(dialect))
            .bind(i64::from(RETRIED))
            .bind(0_i64);
        query.execute(conn).await?;
    });
    tx.commit().await
}

/// Some notes that were set aside, each with its error.
pub(crate) async fn examples(
    store: &Store,
    limit: u32,
) -> Result<Vec<(String, String)>, StoreError> {
    on_both!(Store, store, |pool, dialect| {
        let query = sqlx::query(EXAMPLES.run(dialect)).bind(i64::from(limit));
        let mut ones = Vec::new();
        for row in query.fetch_all(pool).await? {
            let note: Result<(i64, Note), sqlx::Error> = note_of!(row);
            let what = match note?.1 {
                Note::Run(run) => format!("run {run}"),
                Note::Key(key) => format!("row {:?}", key.parts()),
            };
            ones.push((what, row.try_get(5)?));
        }
        Ok(ones)
    })
}
