//! A history with a mapping query to be refused.

use crate::support::TestDb;
use crate::support::history::Setup;
use crate::support::uses::Rows;

/// What every query here begins with.
pub(super) const COLUMNS: &str = "select r.id as run, r.workspace_id as workspace, r.uid, \
                       v.published_run_id as published_run, r.updated_at as last_used_at";
pub(super) const FROM: &str = "from runs r join saved_run_version v on v.id = r.parent_version_id";

/// A history whose mapping query can be another one.
pub(super) struct Refusing(pub(super) Setup);

impl Refusing {
    pub(super) async fn of(db: TestDb) -> Self {
        Self(Setup::plain(db, 70, 300).await)
    }

    /// The query is refused by its text alone, before anything is asked of its database.
    pub(super) async fn refuses_text(&mut self, query: &str, words: &[&str]) {
        self.refuses(query, words).await;
        let refused = self.0.recents(&["config", "check"]).expect(2);
        assert!(
            words.iter().all(|word| refused.one_line().contains(word)),
            "{query}: {refused:?}"
        );
    }

    /// The query is refused by each command, with exit code 2, one line, and these words.
    pub(super) async fn refuses(&mut self, query: &str, words: &[&str]) {
        self.0.query = query.into();
        for args in [
            &["backfill"][..],
            &["backfill", "--dry-run"],
            &["backfill", "--one-pass"],
            &["verify"],
        ] {
            let refused = self.0.recents(args);
            assert_eq!(refused.code, Some(2), "{args:?} of {query}: {refused:?}");
            assert_eq!(refused.out, "");
            for word in words {
                assert!(
                    refused.one_line().contains(word),
                    "no `{word}` for {query}: {refused:?}"
                );
            }
        }
        assert_eq!(self.0.store.rows().await, Rows::new(), "{query}");
        assert_eq!(self.0.job("id").await, "", "{query}");
    }
}
