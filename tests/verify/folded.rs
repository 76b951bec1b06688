//! A history that is not compared in one go, because its keys would take too much memory.

use std::collections::BTreeSet;
use std::sync::Arc;

use recents::check::verify::Summary;
use recents::check::{self, Limits};
use recents::history;

use crate::support::history::Setup;
use crate::support::{TestDb, both};

both!(
    what_is_missing_is_named_once_however_often_it_is_used,
    what_could_not_be_remembered_is_named_again_and_the_count_is_the_most,
);

/// What a verify names of a history that is not in the table, with what is compared at once and remembered
/// of what was named.
async fn named(setup: &Setup, limits: Limits) -> (Vec<String>, Summary) {
    let history = Arc::new(history::connect(&setup.config()).await.expect("a history"));
    let (store, mut named) = (setup.store.store(), Vec::new());
    let differs = |difference: &check::Difference| {
        named.push(format!("{:?}", difference.key));
        Ok(())
    };
    let verified = check::verify(&store, &history, None, false, limits, differs, |_| {}).await;
    (named, verified.expect("both are there"))
}

/// A window at a time, of which some are left when those that are read ahead are compared.
const SMALL: Limits = Limits {
    window_runs: 40,
    fold_bytes: 0,
    named_bytes: usize::MAX,
};

async fn what_is_missing_is_named_once_however_often_it_is_used(db: TestDb) {
    let setup = Setup::plain(db, 90, 600).await;
    let (named, summary) = named(&setup, SMALL).await;
    let rows = setup.history.rows().len();
    let each: BTreeSet<_> = named.iter().collect();
    assert_eq!((named.len(), each.len()), (rows, rows));
    assert_eq!((summary.differences, summary.at_most), (rows as u64, false));
}

async fn what_could_not_be_remembered_is_named_again_and_the_count_is_the_most(db: TestDb) {
    let setup = Setup::plain(db, 90, 600).await;
    let limits = Limits {
        named_bytes: 500,
        ..SMALL
    };
    let (named, summary) = named(&setup, limits).await;
    let rows = setup.history.rows().len();
    let each: BTreeSet<_> = named.iter().collect();
    assert_eq!(each.len(), rows, "none is left out");
    assert!(named.len() > rows && summary.at_most, "{summary:?}");
    assert_eq!(summary.differences, named.len() as u64);
}
