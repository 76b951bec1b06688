//! Lists: the newest items of some scopes, each a range of one index.

use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::Row;

use super::statement::Statement;
use super::{Conn, StoreError, dismissal, on_both};
use crate::model::{Id, Newest, Scope, Time};

/// Scopes of one read at the most: a request's hundred, with those of others that came at the same time.
/// SQLite compounds no more than 500 selects.
pub const MAX_SCOPES: usize = 250;
/// Where a list starts among rows of `infinity`: behind every published run that is ASCII. What is behind
/// all the others cannot be said in every encoding of a database.
const AFTER_ASCII: &str = "\u{7f}";

/// Where the lists of a read begin.
#[derive(Clone, Copy, PartialEq)]
enum Begins {
    /// With their first items.
    First,
    /// Behind an item.
    Behind,
}

/// A read of so many lists, filled up with empty ones: few prepared statements, and few wasted branches,
/// each of which costs the database almost half of what a list does. With five more sizes between these, no
/// difference could be measured.
struct Read {
    lists: usize,
    begins: Begins,
    // Where nothing was ever dismissed, asking each item whether it was is a tenth of a read. So the first
    // statement only asks whether anything is: where nothing is, in the same snapshot, its answer is right.
    asking: Statement,
    visible: Statement,
}

macro_rules! reads {
    ($asking:literal, $visible:literal, $begins:expr, [$($lists:literal),*]) => {
        [$(Read {
            lists: $lists,
            begins: $begins,
            asking: Statement::new(concat!($asking, $lists), || asking($lists, $begins)),
            visible: Statement::new(concat!($visible, $lists), || visible($lists, $begins)),
        }),*]
    };
}

/// Lists from their start, which is what most ask for.
static READS: [Read; 9] = reads!(
    "read_",
    "visible_",
    Begins::First,
    [1, 2, 4, 8, 16, 32, 64, 100, 250]
);

/// Lists from behind an item, which takes the database a third longer.
static READS_ON: [Read; 4] = reads!("read_on_", "visible_on_", Begins::Behind, [1, 10, 100, 250]);

pub(super) fn statements() -> impl Iterator<Item = &'static Statement> {
    let reads = READS.iter().chain(&READS_ON);
    reads.flat_map(|read| [&read.asking, &read.visible])
}

/// Whether this process saw that something is dismissed, anywhere: only a hint, which saves the first
/// statement of each later read.
static SEEN_DISMISSED: AtomicBool = AtomicBool::new(false);

/// In place of a list's number: something is dismissed.
const DISMISSED: i32 = -1;

/// Has later reads of this process expect that something is dismissed.
pub(super) fn expect_dismissed() {
    SEEN_DISMISSED.store(true, Ordering::Relaxed);
}

// Said in the rows of one list, in a row of its own beside several: each is what costs the least there.
fn asking(lists: usize, begins: Begins) -> String {
    let any = "exists (select 1 from {recents}dismissal)";
    let all = |_: &str, _: &str| "true".into();
    match lists {
        1 => {
            let number = |at| format!("case when {any} then {DISMISSED} else {at} end");
            ranges(1, begins, number, all)
        }
        _ => format!(
            "{} union all select {DISMISSED}, null, null, null where {any}",
            ranges(lists, begins, |at| at.to_string(), all)
        ),
    }
}

fn visible(lists: usize, begins: Begins) -> String {
    let visible = |workspace: &str, uid: &str| {
        format!(
            "{} and {}",
            dismissal::after_the_lists("r.last_used_at", workspace, uid),
            dismissal::after_the_items("r"),
        )
    };
    ranges(lists, begins, |at| at.to_string(), visible)
}

// One range of the index per scope. UNION ALL instead of LATERAL, which SQLite and Citus lack.
fn ranges(
    lists: usize,
    begins: Begins,
    number: impl Fn(usize) -> String,
    visible: impl Fn(&str, &str) -> String,
) -> String {
    let range = |at: usize| {
        let parameters = match begins {
            Begins::First => 2,
            Begins::Behind => 4,
        };
        let [workspace, uid, time, published_run] =
            [2, 3, 4, 5].map(|n| format!("${}", at * parameters + n));
        let behind = match begins {
            Begins::First => "true".into(),
            Begins::Behind => {
                format!("(r.last_used_at, r.published_run) < ({time}, {published_run})")
            }
        };
        format!(
            "select * from (
                 select {} as list, r.published_run, r.last_used_at, r.run
                 from {{recents}}recent_workflow as r
                 where r.workspace = {workspace} and r.uid = {uid} and {behind} and {}
                 order by r.last_used_at desc, r.published_run desc limit $1
             ) as list_{at}",
            number(at),
            visible(&workspace, &uid),
        )
    };
    (0..lists)
        .map(range)
        .collect::<Vec<_>>()
        .join(" union all ")
}

/// A row of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The workflow.
    pub published_run: Box<str>,
    /// Its newest use, and the run of it.
    pub newest: Newest,
}

impl Item {
    /// Where it stands in a list, which goes down.
    fn position(&self) -> (Time, &str) {
        (self.newest.last_used_at, &self.published_run)
    }
}

/// A list from its start, or from behind the last item of a page.
#[derive(Debug, Clone)]
pub struct ListStart {
    /// Whose list.
    pub scope: Scope,
    /// Only items after this one, in the order of lists.
    pub after: Option<(Time, Id)>,
}

/// Reads the first `limit` visible items of each list, newest first, in one statement; in two when this
/// process meets a dismissal for the first time.
///
/// At most [`MAX_SCOPES`] lists; more are not read.
pub(crate) async fn read(
    conn: &mut Conn<'_>,
    lists: &[ListStart],
    limit: u32,
) -> Result<Vec<Vec<Item>>, StoreError> {
    let reads = match lists.iter().all(|list| list.after.is_none()) {
        true => READS.as_slice(),
        false => &READS_ON,
    };
    let read = reads.iter().find(|read| lists.len() <= read.lists);
    let read = read.unwrap_or(&reads[reads.len() - 1]);
    let known = SEEN_DISMISSED.load(Ordering::Relaxed);
    let asked = if known { &read.visible } else { &read.asking };
    let (mut items, any_dismissed) = read_lists(conn, read, asked, lists, limit).await?;
    if !known && any_dismissed {
        expect_dismissed();
        (items, _) = read_lists(conn, read, &read.visible, lists, limit).await?;
    }
    // UNION ALL promises no order, though both databases keep it; and times that are none are clamped
    // only now, so that a page could begin again with the item behind which it does.
    for (list, items) in lists.iter().zip(&mut items) {
        if let Some((time, published_run)) = &list.after {
            items.retain(|item| item.position() < (*time, published_run.as_str()));
        }
        items.sort_by(|a, b| b.position().cmp(&a.position()));
    }
    Ok(items)
}

/// The lists by one of the statements; and whether it says that anything is dismissed.
async fn read_lists(
    conn: &mut Conn<'_>,
    read: &Read,
    statement: &'static Statement,
    lists: &[ListStart],
    limit: u32,
) -> Result<(Vec<Vec<Item>>, bool), StoreError> {
    let mut items = vec![Vec::new(); lists.len()];
    let mut any_dismissed = false;
    on_both!(Conn, conn, |conn, dialect| {
        let mut query = sqlx::query(statement.run(dialect)).bind(i64::from(limit));
        for at in 0..read.lists {
            let list = lists.get(at);
            query = query
                .bind(list.map(|list| list.scope.workspace.as_str()))
                .bind(list.map(|list| list.scope.uid_column()));
            if read.begins == Begins::First {
                continue;
            }
            let after = list.and_then(|list| list.after.as_ref());
            query = query
                .bind(after.map_or(Time::AFTER_ALL, |(time, _)| *time))
                .bind(after.map_or(AFTER_ASCII, |(_, published_run)| published_run.as_str()));
        }
        for row in query.fetch_all(&mut **conn).await? {
            let list = row.try_get::<i32, _>(0)?;
            any_dismissed |= list == DISMISSED;
            let list = usize::try_from(list).ok();
            if let Some(items) = list.and_then(|list| items.get_mut(list)) {
                let newest = Newest {
                    last_used_at: row.try_get(2)?,
                    run: row.try_get::<Option<&str>, _>(3)?.map(Box::from),
                };
                items.push(Item {
                    published_run: row.try_get::<&str, _>(1)?.into(),
                    newest,
                });
            }
        }
    });
    Ok((items, any_dismissed))
}
