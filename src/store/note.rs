//! Notes: what has to be looked at again. They live beside the table, because whoever changes a row
//! leaves one in the same transaction.

use std::collections::HashSet;

use sqlx::Row;

use super::recent::RecentRow;
use super::rows::{BindRows, Rows};
use super::statement::Statement;
use super::{Conn, Store, StoreError, Tx, on_both, recent};
use crate::capture::decide::{Change, LookAgain};
use crate::model::{Key, Newest};

pub(super) const STATEMENTS: [&Statement; 14] = [
    &NOTE_RUNS,
    &NOTE_KEYS,
    &TAKE,
    &UNSEEN,
    &WAITING,
    &LET_GO,
    &SET_ASIDE,
    &RETRY_SET_ASIDE,
    &RETRY_ROWS_ASIDE,
    &SET_ASIDE_OF,
    &STANDING,
    &ENDS,
    &ASIDE,
    &RUNS_ASIDE,
];

static NOTE_RUNS: Statement = Statement::new("note_runs", || {
    "insert into {recents}note (run) select distinct n.run from {runs} as n".into()
});

static NOTE_KEYS: Statement = Statement::new("note_keys", || {
    "insert into {recents}note (workspace, uid, published_run)
     select k.workspace, k.uid, k.published_run from {keys} as k"
        .into()
});

static TAKE: Statement = Statement::new("take_notes", || {
    let part = |of: &str| {
        format!(
            "select * from (
                 select t.id, t.run, t.workspace, t.uid, t.published_run from {{recents}}note as t
                 where {of} {{lock_free}}) as part"
        )
    };
    let old = part("t.id > $1 and t.id <= $2 and t.error is null order by t.id limit $3");
    let new = part("t.id > {greatest}($1, $2) and t.error is null order by t.id desc limit $4");
    format!("{old} union all {new}")
});

static UNSEEN: Statement = Statement::new("unseen_notes", || {
    "select t.id, t.run, t.workspace, t.uid, t.published_run from {recents}note as t
     where t.id > $1 and t.error is null order by t.id desc limit $2"
        .into()
});

static WAITING: Statement = Statement::new("waiting_notes", || {
    "select t.id, t.run, t.workspace, t.uid, t.published_run from {recents}note as t
     where t.id > $1 and t.error is null order by t.id limit $2"
        .into()
});

static LET_GO: Statement = Statement::new("let_notes_go", || {
    "delete from {recents}note where id {is_one_of_ids}".into()
});

static SET_ASIDE: Statement = Statement::new("set_note_aside", || {
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
static RETRY_SET_ASIDE: Statement = Statement::new("retry_notes_set_aside", || {
    "update {recents}note set error = null where id in (
         select t.id from {recents}note as t where t.error is not null and t.id > $2
         order by t.id limit $1 {lock_free})
     returning id"
        .into()
});

static RETRY_ROWS_ASIDE: Statement = Statement::new("retry_rows_set_aside", || {
    "update {recents}note set error = null where id in (
         select t.id from {recents}note as t where t.error is not null and t.run is null limit $1 {lock_free})"
        .into()
});

static SET_ASIDE_OF: Statement = Statement::new("notes_set_aside_of", || {
    "select id, run from {recents}note where error is not null and run {is_one_of_runs}".into()
});

static STANDING: Statement = Statement::new("notes_standing", || {
    "select count(*), coalesce(sum(case when error is null then 0 else 1 end), 0)
     from (select id, error from {recents}note order by id limit $1) as t"
        .into()
});

// The first ones that were set aside.
static RUNS_ASIDE: Statement = Statement::new("runs_set_aside", || {
    "select run from {recents}note where error is not null and run is not null order by run limit $1"
        .into()
});

// By the ends of the index, however many there are: asked again and again while millions are worked off.
static ENDS: Statement = Statement::new("note_ends", || {
    let end = |order: &str| {
        format!(
            "(select id from {{recents}}note where id >= $1 and error is null order by id {order} limit 1)"
        )
    };
    format!("select {}, {}", end("asc"), end("desc"))
});

static ASIDE: Statement = Statement::new("notes_set_aside", || {
    "select id, run, workspace, uid, published_run, error from {recents}note
     where error is not null order by id limit $1"
        .into()
});

/// Runs that a look at the history leaves out at once at the most: their keys go along with it.
const MAX_ASIDE: u32 = 10_000;
/// Notes are counted up to here; more is "many".
pub(crate) const COUNTED: u32 = 1_000_000;

/// What has to be looked at again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Note {
    /// A run: what it says now, and the rows that it supports.
    Run(Box<str>),
    /// A row: what it should be.
    Key(Key),
}

/// A row `id, run, workspace, uid, published_run` of either database.
macro_rules! note_of {
    ($row:expr) => {{
        let note = match $row.try_get::<Option<&str>, _>(1)? {
            Some(run) => Note::Run(run.into()),
            None => Note::Key(Key::new(
                $row.try_get(2)?,
                $row.try_get(3)?,
                $row.try_get(4)?,
            )),
        };
        Ok(($row.try_get(0)?, note))
    }};
}

/// Raises rows to these uses, as [`recent::raise`], and leaves a note of the run of each row that
/// changed, in the same transaction; a row without a run is noted by its key.
///
/// # Errors
/// [`StoreError`]; nothing is written then.
pub(crate) async fn raise(tx: &mut Tx, uses: &[(Key, Newest)]) -> Result<Vec<Key>, StoreError> {
    if uses.is_empty() {
        return Ok(Vec::new());
    }
    let raised = recent::raise(tx, uses).await?;
    if raised.is_empty() {
        return Ok(raised);
    }
    let changed: HashSet<&Key> = raised.iter().collect();
    let changed = uses.iter().filter(|(key, _)| changed.contains(key));
    match Change::Raise.note() {
        LookAgain::Nothing => {}
        LookAgain::Run => rows(tx, changed).await?,
        LookAgain::Row => {
            let changed: Vec<Key> = changed.map(|(key, _)| key.clone()).collect();
            keys(tx.conn(), &changed).await?;
        }
    }
    Ok(raised)
}

/// Notes runs.
async fn runs(conn: Conn<'_>, runs: &[&str]) -> Result<(), StoreError> {
    if runs.is_empty() {
        return Ok(());
    }
    let rows = Rows::runs(runs.iter().copied());
    on_both!(Conn, conn, |conn, dialect| {
        sqlx::query(NOTE_RUNS.run(dialect))
            .bind_rows(rows)
            .execute(conn)
            .await?;
    });
    Ok(())
}

/// Notes rows.
pub(crate) async fn keys(conn: Conn<'_>, keys: &[Key]) -> Result<(), StoreError> {
    if keys.is_empty() {
        return Ok(());
    }
    let rows = Rows::keys(keys.iter());
    on_both!(Conn, conn, |conn, dialect| {
        sqlx::query(NOTE_KEYS.run(dialect))
            .bind_rows(rows)
            .execute(conn)
            .await?;
    });
    Ok(())
}

/// Notes rows by the runs that they name; those that name none, by their keys.
pub(crate) async fn rows<'a>(
    tx: &mut Tx,
    rows: impl Iterator<Item = &'a RecentRow>,
) -> Result<(), StoreError> {
    let (mut named, mut nameless) = (Vec::new(), Vec::new());
    for (key, newest) in rows {
        match newest.run.as_deref() {
            Some(run) => named.push(run),
            None => nameless.push(key.clone()),
        }
    }
    runs(tx.conn(), &named).await?;
    keys(tx.conn(), &nameless).await
}

/// Which notes are taken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Take {
    /// Those behind this one,
    pub(crate) behind: i64,
    /// up to this one, the newest that was seen: at most so many, the oldest first.
    pub(crate) newest: i64,
    pub(crate) old: u32,
    /// And of those that are newer, at most so many, the newest first.
    pub(crate) new: u32,
}

/// These notes, with their ids. Within a transaction of PostgreSQL, nobody else takes them until it ends.
pub(crate) async fn take(conn: Conn<'_>, take: Take) -> Result<Vec<(i64, Note)>, StoreError> {
    on_both!(Conn, conn, |conn, dialect| {
        let query = sqlx::query(TAKE.run(dialect))
            .bind(take.behind)
            .bind(take.newest)
            .bind(i64::from(take.old))
            .bind(i64::from(take.new));
        let rows = query.fetch_all(conn).await?;
        rows.iter().map(|row| note_of!(row)).collect()
    })
}

/// The same, without keeping them from others.
pub(crate) async fn look(store: &Store, take: Take) -> Result<Vec<(i64, Note)>, StoreError> {
    on_both!(Store, store, |pool, dialect| {
        let query = sqlx::query(TAKE.run(dialect))
            .bind(take.behind)
            .bind(take.newest)
            .bind(i64::from(take.old))
            .bind(i64::from(take.new));
        let rows = query.fetch_all(pool).await?;
        rows.iter().map(|row| note_of!(row)).collect()
    })
}

/// The next notes behind `after`, oldest first, to know of them: those that a drain holds are among them, and
/// who may only read may ask.
pub(crate) async fn waiting(
    store: &Store,
    after: i64,
    limit: u32,
) -> Result<Vec<(i64, Note)>, StoreError> {
    behind(store, &WAITING, after, limit).await
}

/// The newest notes behind `after`, without keeping them from others.
pub(crate) async fn unseen(
    store: &Store,
    after: i64,
    limit: u32,
) -> Result<Vec<(i64, Note)>, StoreError> {
    behind(store, &UNSEEN, after, limit).await
}

async fn behind(
    store: &Store,
    statement: &'static Statement,
    after: i64,
    limit: u32,
) -> Result<Vec<(i64, Note)>, StoreError> {
    on_both!(Store, store, |pool, dialect| {
        let query = sqlx::query(statement.run(dialect))
            .bind(after)
            .bind(i64::from(limit));
        let rows = query.fetch_all(pool).await?;
        rows.iter().map(|row| note_of!(row)).collect()
    })
}

/// Deletes notes.
pub(crate) async fn let_go(conn: Conn<'_>, ids: &[i64]) -> Result<(), StoreError> {
    if ids.is_empty() {
        return Ok(());
    }
    let rows = Rows::ids(ids);
    on_both!(Conn, conn, |conn, dialect| {
        sqlx::query(LET_GO.run(dialect))
            .bind_rows(rows)
            .execute(conn)
            .await?;
    });
    Ok(())
}

/// Keeps a note whose mapping fails, with the reason, where nobody takes it; once, however often it
/// fails. The first time, another note of the same is left to be taken: what failed was read before, and may have been
/// mended and looked at since.
pub(crate) async fn set_aside(store: &Store, note: &Note, error: &str) -> Result<(), StoreError> {
    let (run, key) = match note {
        Note::Run(run) => (Some(&**run), None),
        Note::Key(key) => (None, Some(key)),
    };
    let parts = key.map(Key::parts);
    let mut tx = store.begin().await?;
    let is_new = on_both!(Conn, tx.conn(), |conn, dialect| {
        let query = sqlx::query(SET_ASIDE.run(dialect))
            .bind(run)
            .bind(parts.map(|key| key.0))
            .bind(parts.map(|key| key.1))
            .bind(parts.map(|key| key.2))
            .bind(error);
        query.execute(conn).await?.rows_affected() > 0
    });
    if is_new {
        runs(tx.conn(), run.as_slice()).await?;
        keys(tx.conn(), key.map(std::slice::from_ref).unwrap_or_default()).await?;
    }
    tx.commit().await
}

/// Notes set aside that are tried again at once: each that fails again is a query of its own.
const RETRIED: u32 = 1_000;

/// Has the next notes behind this one that were set aside taken again, [`RETRIED`] at the most; returns their ids.
pub(crate) async fn retry_set_aside(store: &Store, behind: i64) -> Result<Vec<i64>, StoreError> {
    on_both!(Store, store, |pool, dialect| {
        let query = sqlx::query(RETRY_SET_ASIDE.run(dialect))
            .bind(i64::from(RETRIED))
            .bind(behind);
        let rows = query.fetch_all(pool).await?;
        let ids: Result<_, sqlx::Error> = rows.iter().map(|row| row.try_get(0)).collect();
        Ok(ids?)
    })
}

/// Has some rows that were set aside taken again.
pub(crate) async fn retry_rows_aside(store: &Store) -> Result<(), StoreError> {
    on_both!(Store, store, |pool, dialect| {
        let query = sqlx::query(RETRY_ROWS_ASIDE.run(dialect)).bind(i64::from(RETRIED));
        query.execute(pool).await?;
    });
    Ok(())
}

/// The notes of these runs that are set aside.
pub(crate) async fn set_aside_of(
    store: &Store,
    runs: &[String],
) -> Result<Vec<(i64, String)>, StoreError> {
    on_both!(Store, store, |pool, dialect| {
        let query = sqlx::query(SET_ASIDE_OF.run(dialect));
        let query = query.bind_rows(Rows::runs(runs.iter().map(String::as_str)));
        let rows = query.fetch_all(pool).await?;
        let note = |row| Ok((Row::try_get(row, 0)?, Row::try_get(row, 1)?));
        rows.iter().map(note).collect()
    })
}

/// Runs of which a note is set aside, [`MAX_ASIDE`] at the most.
pub(crate) async fn runs_aside(store: &Store) -> Result<Vec<String>, StoreError> {
    on_both!(Store, store, |pool, dialect| {
        let query = sqlx::query(RUNS_ASIDE.run(dialect)).bind(i64::from(MAX_ASIDE));
        let rows = query.fetch_all(pool).await?;
        let runs: Result<_, sqlx::Error> = rows.iter().map(|row| row.try_get(0)).collect();
        Ok(runs?)
    })
}

/// Forgets these notes that were set aside, because their runs can be mapped now, or are gone, and has others taken
/// again, [`RETRIED`] at the most: whoever mended one may have mended more, and a row may be set aside because of it.
pub(crate) async fn forget_set_aside(store: &Store, ids: &[i64]) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    let_go(tx.conn(), ids).await?;
    on_both!(Conn, tx.conn(), |conn, dialect| {
        let query = sqlx::query(RETRY_SET_ASIDE.run(dialect))
            .bind(i64::from(RETRIED))
            .bind(0_i64);
        query.execute(conn).await?;
    });
    tx.commit().await
}

/// The notes that stand.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Standing {
    /// All, those set aside included.
    pub(crate) notes: u64,
    /// Those set aside.
    pub(crate) set_aside: u64,
}

/// Counts the notes, up to [`COUNTED`].
pub(crate) async fn standing(store: &Store) -> Result<Standing, StoreError> {
    on_both!(Store, store, |pool, dialect| {
        let query = sqlx::query(STANDING.run(dialect)).bind(i64::from(COUNTED));
        let row = query.fetch_one(pool).await?;
        Ok(Standing {
            notes: row.try_get::<i64, _>(0)?.unsigned_abs(),
            set_aside: row.try_get::<i64, _>(1)?.unsigned_abs(),
        })
    })
}

/// The oldest from this one on, and the newest, of the notes that are not set aside.
pub(crate) async fn ends(store: &Store, from: i64) -> Result<Option<(i64, i64)>, StoreError> {
    on_both!(Store, store, |pool, dialect| {
        let query = sqlx::query(ENDS.run(dialect)).bind(from);
        let row = query.fetch_one(pool).await?;
        Ok(row.try_get::<Option<i64>, _>(0)?.zip(row.try_get(1)?))
    })
}

/// Some notes that were set aside, each with its error.
pub(crate) async fn set_aside_ones(
    store: &Store,
    limit: u32,
) -> Result<Vec<(String, String)>, StoreError> {
    on_both!(Store, store, |pool, dialect| {
        let query = sqlx::query(ASIDE.run(dialect)).bind(i64::from(limit));
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
