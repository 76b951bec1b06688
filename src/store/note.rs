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

pub(super) const STATEMENTS: [&Statement; 8] = [
    &NOTE_RUNS, &NOTE_KEYS, &TAKE, &UNSEEN, &WAITING, &LET_GO, &STANDING, &ENDS,
];

static NOTE_RUNS: Statement = Statement::new("note_runs", || {
    "insert into {recents}note (run) select distinct n.run from {runs} as n".into()
});

static NOTE_KEYS: Statement = Statement::new("note_keys", || {
    "insert into {recents}note (workspace, uid, published_run)
     select k.workspace, k.uid, k.published_run from {keys} as k"
        .into()
});

// Of runs and of rows apart: of a large statement, thousands of the one kind do not hide the few of the other.
static TAKE: Statement = Statement::new("take_notes", || {
    let old = part(
        "t.id > $1 and t.id <= $2 and t.error is null order by t.id limit $3",
        "{lock_free}",
    );
    format!("{old} union all {}", newest(2, [4, 5], "{lock_free}"))
});

static UNSEEN: Statement = Statement::new("unseen_notes", || newest(1, [2, 2], ""));

fn part(of: &str, lock: &str) -> String {
    format!(
        "select * from (
             select t.id, t.run, t.workspace, t.uid, t.published_run from {{recents}}note as t
             where {of} {lock}) as part"
    )
}

/// Of runs, and of rows.
fn newest(behind: u8, limits: [u8; 2], lock: &str) -> String {
    let [runs, rows] = [
        ("t.run is not null", limits[0]),
        ("t.run is null", limits[1]),
    ]
    .map(|(kind, limit)| {
        let of = format!(
            "t.id > ${behind} and t.error is null and {kind} order by t.id desc limit ${limit}"
        );
        part(&of, lock)
    });
    format!("{runs} union all {rows}")
}

static WAITING: Statement = Statement::new("waiting_notes", || {
    "select t.id, t.run, t.workspace, t.uid, t.published_run from {recents}note as t
     where t.id > $1 and t.error is null order by t.id limit $2"
        .into()
});

static LET_GO: Statement = Statement::new("let_notes_go", || {
    "delete from {recents}note where id {is_one_of_ids}".into()
});

static STANDING: Statement = Statement::new("notes_standing", || {
    "select count(*), coalesce(sum(case when error is null then 0 else 1 end), 0)
     from (select id, error from {recents}note order by id limit $1) as t"
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
pub(super) use note_of;

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
pub(super) async fn runs(conn: Conn<'_>, runs: &[&str]) -> Result<(), StoreError> {
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

/// Notes runs once more, whose notes are let go though nobody looked at them.
pub(crate) async fn again(store: &Store, again: &[String]) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    let again: Vec<&str> = again.iter().map(String::as_str).collect();
    runs(tx.conn(), &again).await?;
    tx.commit().await
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
    /// And of those that are newer, at most so many of runs, and so many of rows, the newest first.
    pub(crate) new_runs: u32,
    pub(crate) new_rows: u32,
}

/// These notes, with their ids. Within a transaction of PostgreSQL, nobody else takes them until it ends.
pub(crate) async fn take(conn: Conn<'_>, take: Take) -> Result<Vec<(i64, Note)>, StoreError> {
    on_both!(Conn, conn, |conn, dialect| {
        let query = sqlx::query(TAKE.run(dialect))
            .bind(take.behind)
            .bind(take.newest)
            .bind(i64::from(take.old))
            .bind(i64::from(take.new_runs))
            .bind(i64::from(take.new_rows));
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
            .bind(i64::from(take.new_runs))
            .bind(i64::from(take.new_rows));
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

/// The newest notes behind `after`, so many of runs and so many of rows, without keeping them from others.
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
