//! All that is kept of one user.

use super::statement::Statement;
use super::{Conn, Store, StoreError, on_both, with_retries};
use crate::cache::{Changed, Reason};
use crate::model::Id;

pub(super) const STATEMENTS: [&Statement; 4] = [
    &FORGET_ROWS,
    &FORGET_DISMISSALS,
    &FORGET_NOTES,
    &FORGET_PLANS,
];

// Locked in the order in which every writer locks rows.
static FORGET_ROWS: Statement = Statement::new("forget_rows", || {
    "delete from {recents}recent_workflow where (workspace, uid, published_run) in (
         select t.workspace, t.uid, t.published_run from {recents}recent_workflow as t
         where t.uid = $1 order by 1, 2, 3 {lock})"
        .into()
});

static FORGET_DISMISSALS: Statement = Statement::new("forget_dismissals", || {
    "delete from {recents}dismissal where uid = $1".into()
});

static FORGET_NOTES: Statement = Statement::new("forget_notes", || {
    "delete from {recents}note where uid = $1".into()
});

static FORGET_PLANS: Statement = Statement::new("forget_plans", || {
    "delete from {recents}job_plan where uid = $1".into()
});

/// What was forgotten of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forgotten {
    /// Rows of the table.
    pub rows: u64,
    /// Watermarks.
    pub dismissals: u64,
}

/// Removes every row, watermark, note and line of a re-sync's plan of a user, in all workspaces, in one
/// transaction.
///
/// # Errors
/// [`StoreError`]; nothing is removed then.
pub async fn forget(store: &Store, uid: &Id) -> Result<Forgotten, StoreError> {
    with_retries(|| forget_once(store, uid)).await
}

async fn forget_once(store: &Store, uid: &Id) -> Result<Forgotten, StoreError> {
    let mut tx = store.begin().await?;
    let mut deleted = [0; 4];
    on_both!(Conn, tx.conn(), |conn, dialect| {
        // Notes first: what they name would be computed again.
        for (statement, deleted) in [
            &FORGET_NOTES,
            &FORGET_ROWS,
            &FORGET_DISMISSALS,
            &FORGET_PLANS,
        ]
        .into_iter()
        .zip(&mut deleted)
        {
            let query = sqlx::query(statement.run(dialect)).bind(uid.as_str());
            *deleted = query.execute(&mut *conn).await?.rows_affected();
        }
    });
    // Whose lists they were in is not asked for.
    tx.changes(Changed::Everything, Reason::Dismissal);
    tx.commit().await?;
    let [_, rows, dismissals, _] = deleted;
    Ok(Forgotten { rows, dismissals })
}
