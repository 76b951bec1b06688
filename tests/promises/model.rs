//! The model: whatever the order, the batching and the number of writers, the table ends as the
//! greatest use of each key, computed here in another way.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::fold::{record, recorder};
use super::lists::{Items, scope, walk};
use crate::support::uses::Rows;
use crate::support::{TestDb, Use, both};

both!(any_order_and_batching_by_several_writers_ends_as_the_grouped_maximum);

/// Few enough values that ties and collisions are common.
const WORKSPACES: [&str; 4] = ["w", "W", "é", "10"];
const USERS: [&str; 3] = ["u", "ü", "9"];
const PUBLISHED_RUNS: [&str; 9] = ["1", "10", "2", "A", "a", "é", "z", "\u{fffd}", "😀"];
const RUNS: [&str; 6] = ["1", "10", "2", "é", "\u{fffd}", "😀"];

/// Uses by chance, the same ones for the same seed.
pub(crate) fn random_uses(seed: u64, count: usize) -> Vec<Use> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut usage = || {
        let published_run = pick(&mut rng, &PUBLISHED_RUNS);
        let mut usage = Use::new(pick(&mut rng, &WORKSPACES), published_run, rng.i64(0..20));
        if rng.u8(..4) > 0 {
            usage = usage.by(pick(&mut rng, &USERS));
        }
        if rng.u8(..4) > 0 {
            usage = usage.run(pick(&mut rng, &RUNS));
        }
        usage
    };
    (0..count).map(|_| usage()).collect()
}

fn pick(rng: &mut fastrand::Rng, of: &[&'static str]) -> &'static str {
    of[rng.usize(..of.len())]
}

/// What the table must be: sorted, and of each key the last.
pub(crate) fn grouped_maximum(uses: &[Use]) -> Rows {
    let mut said: Vec<_> = uses
        .iter()
        .flat_map(|usage| {
            let lists = [Some(""), usage.uid.as_deref()];
            lists.into_iter().flatten().map(move |uid| {
                let key = (
                    usage.workspace.clone(),
                    uid.to_owned(),
                    usage.published_run.clone(),
                );
                // No run is below every run, as nothing is below every text.
                (
                    key,
                    (
                        usage.micros,
                        usage.run.clone().map_or(Vec::new(), String::into_bytes),
                    ),
                )
            })
        })
        .collect();
    said.sort();
    let text = |run: Vec<u8>| String::from_utf8(run).expect("it was text");
    let run = |run: Vec<u8>| Some(text(run)).filter(|run| !run.is_empty());
    // Later ones replace earlier ones of the same key.
    said.into_iter()
        .map(|(key, (micros, bytes))| (key, (micros, run(bytes))))
        .collect()
}

/// The table is what `uses` make of it, read as a whole and list by list in pages of any size.
pub(crate) async fn assert_is_maximum_of(db: &TestDb, uses: &[Use], rng: &mut fastrand::Rng) {
    let expected = grouped_maximum(uses);
    assert_eq!(db.rows().await, expected);
    let mut lists: BTreeMap<(&str, &str), Items> = BTreeMap::new();
    for ((workspace, uid, published_run), (micros, run)) in &expected {
        let list = lists.entry((workspace, uid)).or_default();
        list.push((published_run.clone(), *micros, run.clone()));
    }
    let store = db.store();
    for ((workspace, uid), mut items) in lists {
        items.sort_by_key(|(published_run, micros, _)| Reverse((*micros, published_run.clone())));
        let scope = scope(workspace, Some(uid).filter(|uid| !uid.is_empty()));
        let limit = rng.u32(1..=items.len() as u32 + 1);
        assert_eq!(
            walk(&store, &scope, limit).await,
            items,
            "{scope:?} in pages of {limit}"
        );
    }
}

async fn any_order_and_batching_by_several_writers_ends_as_the_grouped_maximum(db: TestDb) {
    let mut all = Vec::new();
    for seed in 1..=5 {
        println!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let uses = random_uses(seed, 800);
        // As many replicas have: each a queue and a pool of its own.
        let recorders: Arc<[_]> = (0..4).map(|_| recorder(&db)).collect();
        let mut requests = Vec::new();
        let mut rest = &uses[..];
        while !rest.is_empty() {
            let (batch, later) = rest.split_at(rng.usize(1..=rest.len().min(40)));
            rest = later;
            let (batch, recorders) = (batch.to_vec(), Arc::clone(&recorders));
            let to = rng.usize(..recorders.len());
            requests.push(tokio::spawn(async move {
                let recorded = record(&recorders[to], &batch).await;
                assert_eq!(recorded.0 + recorded.1, batch.len() as u64);
            }));
        }
        for request in requests {
            request.await.expect("a request");
        }
        // Some of them once more, in another order.
        let mut again = uses.clone();
        rng.shuffle(&mut again);
        let superseded = record(&recorders[0], &again).await;
        assert_eq!(superseded.0, 0, "said before");
        all.extend(uses);
        assert_is_maximum_of(&db, &all, &mut rng).await;
    }
}
