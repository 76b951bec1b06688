//! What was found so far.

use std::error::Error;

use super::{CHECK_WITHIN, Finding, STATEMENT_WITHIN, Verdict};
use crate::history::{HistoryError, was_ended};
use crate::telemetry::chain;

/// Shows who holds what others wait for.
const WHO_IS_AT_WORK: &str = "select pid, state, wait_event_type, xact_start, query \
                              from pg_stat_activity order by xact_start;";
/// What brings back tables that are gone.
pub(crate) const MEND_GONE: &str = "restore them from a backup, which keeps what was dismissed; or drop the rest of \
                                    them (the schema recents; the file, in SQLite), then recents migrate, recents \
                                    capture install (--take-over where the history is in another database) and \
                                    recents backfill";
/// Codes of a table or a schema that is not there.
const GONE: [&str; 2] = ["42P01", "3F000"];

/// What was found so far; each finding is told at once.
pub(super) struct Findings<'t> {
    all: Vec<Finding>,
    tell: &'t mut dyn FnMut(&Finding),
}

impl<'t> Findings<'t> {
    pub(super) fn told(tell: &'t mut dyn FnMut(&Finding)) -> Self {
        Self {
            all: Vec::new(),
            tell,
        }
    }

    pub(super) fn all(self) -> Vec<Finding> {
        self.all
    }

    /// Makes a check, and gives it up after [`CHECK_WITHIN`]: the others are made all the same.
    pub(super) async fn within(
        &mut self,
        check: &'static str,
        look: impl AsyncFnOnce(&mut Findings<'t>),
    ) {
        let looked = tokio::time::timeout(CHECK_WITHIN, look(&mut *self)).await;
        if looked.is_err() {
            self.no_answer(check, CHECK_WITHIN.as_secs());
        }
    }

    pub(super) fn ok(&mut self, check: &'static str, detail: impl ToString) {
        self.add(check, Verdict::Ok, detail, None);
    }

    pub(super) fn warn(&mut self, check: &'static str, detail: impl ToString, mend: impl ToString) {
        self.add(check, Verdict::Warning, detail, Some(mend.to_string()));
    }

    pub(super) fn fail(&mut self, check: &'static str, detail: impl ToString, mend: impl ToString) {
        self.add(check, Verdict::Failure, detail, Some(mend.to_string()));
    }

    /// A check that could not be made.
    pub(super) fn unknown(&mut self, check: &'static str, error: &(dyn Error + 'static)) {
        if is_no_answer(error) {
            return self.no_answer(check, STATEMENT_WITHIN.as_secs());
        }
        if is_gone(error) {
            return self.fail(
                check,
                format!("tables are gone that migrations made: {}", said(error)),
                MEND_GONE,
            );
        }
        let detail = format!("could not be looked at: {}", said(error));
        self.warn(check, detail, "see what the database says");
    }

    fn no_answer(&mut self, check: &'static str, seconds: u64) {
        self.fail(
            check,
            format!(
                "the database did not answer within {seconds} s: a table is locked, or too much is \
                 asked of it"
            ),
            WHO_IS_AT_WORK,
        );
    }

    fn add(
        &mut self,
        check: &'static str,
        verdict: Verdict,
        detail: impl ToString,
        mend: Option<String>,
    ) {
        let finding = Finding {
            check,
            verdict,
            detail: detail.to_string(),
            mend,
        };
        (self.tell)(&finding);
        self.all.push(finding);
    }
}

/// An error with its causes. One connection after the other is used, so that none is free only where
/// nothing answers.
pub(super) fn said(error: &(dyn Error + 'static)) -> String {
    let pools = sqlx::Error::PoolTimedOut.to_string();
    chain(error).replace(&pools, "nothing answers there")
}

/// Whether a statement took longer than it may.
pub(super) fn is_no_answer(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(|cause| {
        matches!(cause.downcast_ref(), Some(HistoryError::TimedOut(_)))
            || cause.downcast_ref().is_some_and(was_ended)
    })
}

fn is_gone(error: &(dyn Error + 'static)) -> bool {
    let database = |cause: &(dyn Error + 'static)| {
        let database = cause.downcast_ref::<sqlx::Error>()?.as_database_error()?;
        let code = database.code().unwrap_or_default();
        // SQLite has no code for it.
        Some(GONE.contains(&&*code) || database.message().starts_with("no such table"))
    };
    causes(error).any(|cause| database(cause).unwrap_or(false))
}

fn causes<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}
