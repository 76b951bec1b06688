//! Sweeping and pruning change nothing that a reader sees.

use std::collections::BTreeMap;
use std::time::Duration;

use recents::dismiss::{dismiss, sweep};
use recents::model::{Id, Scope, Time};
use recents::store::dismissal::Dismissed;

use crate::promises::fold::{record, recorder};
use crate::promises::lists::{scope, walk};
use crate::promises::model::{grouped_maximum, random_uses};
use crate::support::uses::T0;
use crate::support::{TestDb, Use, both};

both!(
    uses_dismissals_and_sweeps_in_any_order_end_as_the_model,
    a_watermark_goes_only_where_another_one_hides_as_much,
);

const SKEW: Duration = Duration::from_micros(2);

fn id(text: &str) -> Id {
    Id::new(text).expect("an id")
}

/// What is visible: by list, the published runs with their newest use.
type Lists = BTreeMap<(String, String), Vec<(String, i64)>>;

/// The rules, over everything that was ever used.
#[derive(Default)]
struct Model {
    uses: Vec<Use>,
    /// By workspace, user and published run, as the table has them.
    until: BTreeMap<(String, String, String), i64>,
}

/// Whether a dismissal is of an item of a workspace's and user's list.
type IsIt<'a> = Box<dyn Fn(&str, &str, &str) -> bool + 'a>;

impl Model {
    fn visible(&self) -> Lists {
        let mut lists = Lists::new();
        for ((workspace, uid, published_run), (micros, _)) in grouped_maximum(&self.uses) {
            let marks = [
                (workspace.as_str(), uid.as_str(), published_run.as_str()),
                (&workspace, &uid, ""),
                ("", "", &published_run),
            ];
            let hidden = marks.into_iter().any(|(w, u, p)| {
                let until = self.until.get(&(w.into(), u.into(), p.into()));
                until.is_some_and(|until| *until >= micros)
            });
            let list = lists.entry((workspace, uid)).or_default();
            if !hidden {
                list.push((published_run, micros));
            }
        }
        lists
    }

    fn dismiss(&mut self, what: &Dismissed, now: i64) {
        let uid = |scope: &Scope| scope.uid.as_ref().map_or("", Id::as_str).to_owned();
        let key = |scope: &Scope, item: &str| {
            let workspace = scope.workspace.as_str().to_owned();
            (workspace, uid(scope), item.to_owned())
        };
        let skew = i64::try_from(SKEW.as_micros()).expect("small");
        // What holds from now on, and the items that are dismissed by themselves where they are dated later.
        let (until, is_it): (_, IsIt<'_>) = match what {
            Dismissed::List(scope) => (
                (key(scope, ""), now),
                Box::new(move |w, u, _| (w, u) == (scope.workspace.as_str(), uid(scope).as_str())),
            ),
            Dismissed::Item(scope, item) => (
                (key(scope, item.as_str()), now),
                Box::new(move |w, u, p| {
                    (w, u, p) == (scope.workspace.as_str(), uid(scope).as_str(), item.as_str())
                }),
            ),
            Dismissed::Everywhere(item) => (
                (
                    (String::new(), String::new(), item.as_str().to_owned()),
                    now + skew,
                ),
                Box::new(move |_, _, p| p == item.as_str()),
            ),
        };
        let mut until = vec![until];
        for ((workspace, uid), items) in self.visible() {
            for (item, micros) in items {
                if is_it(&workspace, &uid, &item) && micros > until[0].1 {
                    until.push(((workspace.clone(), uid.clone(), item), micros));
                }
            }
        }
        for (key, until) in until {
            let held = self.until.entry(key).or_insert(until);
            *held = until.max(*held);
        }
    }
}

async fn uses_dismissals_and_sweeps_in_any_order_end_as_the_model(db: TestDb) {
    let (store, recorder) = (db.store(), recorder(&db));
    let (mut model, mut hidden) = (Model::default(), 0);
    for seed in 1..=30 {
        let mut rng = fastrand::Rng::with_seed(seed);
        // Early, every list has a few items; later, most uses are old.
        for usage in random_uses(seed, 40).chunks(8) {
            let later = i64::try_from(seed).expect("small") * 3;
            let usage: Vec<_> = usage
                .iter()
                .map(|usage| usage.clone().at(usage.micros + rng.i64(0..=later)))
                .collect();
            record(&recorder, &usage).await;
            let of = &usage[0];
            let list = scope(&of.workspace, of.uid.as_deref().filter(|_| rng.bool()));
            let what = match rng.u8(0..6) {
                0 => Dismissed::List(list),
                1 => Dismissed::Everywhere(id(&of.published_run)),
                _ => Dismissed::Item(list, id(&of.published_run)),
            };
            let now = T0 + rng.i64(0..=later);
            model.uses.extend(usage.iter().cloned());
            model.dismiss(&what, now);
            let time = Time::from_micros(now).expect("a time");
            dismiss(&store, &what, time, SKEW, &[])
                .await
                .expect("dismissed");
        }
        let swept = match rng.bool() {
            true => sweep::everything(&store).await.expect("swept"),
            false => 0,
        };
        for ((workspace, uid), mut items) in model.visible() {
            items.sort_by(|(p, t), (q, u)| (u, q).cmp(&(t, p)));
            let list = scope(&workspace, Some(uid.as_str()).filter(|uid| !uid.is_empty()));
            let read = walk(&store, &list, rng.u32(1..5)).await;
            let read: Vec<_> = read.into_iter().map(|(p, t, _)| (p, t)).collect();
            assert_eq!(read, items, "{list:?}, seed {seed}, {swept} rows swept");
        }
        let visible: usize = model.visible().values().map(Vec::len).sum();
        hidden += grouped_maximum(&model.uses).len() - visible;
        // The view, and after a sweep the table itself, have what is visible and no more.
        let count = "select cast(count(*) as text) from {recents}recent_workflows";
        assert_eq!(db.connect().await.texts(count).await, [visible.to_string()]);
        if swept > 0 {
            assert_eq!(db.rows().await.len(), visible);
        }
    }
    assert!(hidden > 100, "{hidden} were hidden");
}

async fn a_watermark_goes_only_where_another_one_hides_as_much(db: TestDb) {
    let store = db.store();
    let at = |micros| Time::from_micros(T0 + micros).expect("a time");
    let item = |uid, p: &str| Dismissed::Item(scope("w", uid), id(p));
    for (what, micros) in [
        (item(None, "below the list's"), 5),
        (item(None, "above the list's"), 15),
        (item(Some("u"), "of another list"), 5),
        (item(Some("u"), "below the one everywhere"), 5),
        (item(Some("u"), "above the one everywhere"), 15),
        (Dismissed::List(scope("w", None)), 10),
        (Dismissed::Everywhere(id("below the one everywhere")), 10),
        (Dismissed::Everywhere(id("above the one everywhere")), 10),
    ] {
        dismiss(&store, &what, at(micros), SKEW, &[])
            .await
            .expect("dismissed");
    }
    assert_eq!(sweep::watermarks(&store).await.expect("pruned"), 2);
    let left = "select workspace || '/' || uid || '/' || published_run from {recents}dismissal";
    let mut left = db.connect().await.texts(left).await;
    left.sort();
    assert_eq!(
        left,
        [
            "//above the one everywhere",
            "//below the one everywhere",
            "w//",
            "w//above the list's",
            "w/u/above the one everywhere",
            "w/u/of another list",
        ]
    );
}
