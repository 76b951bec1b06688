//! Watermarks, to the microsecond, and whoever writes, dismisses and sweeps at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use recents::dismiss::{dismiss, sweep};
use recents::model::{Id, Time};
use recents::store::dismissal::Dismissed;

use crate::promises::fold::{record, recorder};
use crate::promises::lists::{scope, walk};
use crate::promises::model::{grouped_maximum, random_uses};
use crate::support::uses::T0;
use crate::support::{Backend, TestDb, Use, both};

both!(
    a_watermark_hides_up_to_itself_and_not_a_microsecond_more,
    what_is_newer_than_its_watermarks_is_visible_whatever_happens_at_once,
);

const SKEW: Duration = Duration::from_micros(2);

fn id(text: &str) -> Id {
    Id::new(text).expect("an id")
}

async fn dismissed(db: &TestDb, what: &Dismissed, now: i64) {
    let now = Time::from_micros(T0 + now).expect("a time");
    dismiss(&db.store(), what, now, SKEW, &[])
        .await
        .expect("dismissed");
}

async fn a_watermark_hides_up_to_itself_and_not_a_microsecond_more(db: TestDb) {
    let recorder = recorder(&db);
    let list = |workspace| scope(workspace, None);
    // Each with how far the newest use is ahead of the clock, and up to where it is hidden.
    for (workspace, what, ahead, until) in [
        ("a", Dismissed::Item(list("a"), id("p")), -10, 0),
        ("b", Dismissed::Item(list("b"), id("p")), 10, 10),
        ("c", Dismissed::List(list("c")), -10, 0),
        ("d", Dismissed::List(list("d")), 10, 10),
        ("e", Dismissed::Everywhere(id("e")), -10, 2),
        ("f", Dismissed::Everywhere(id("f")), 2, 2),
        ("g", Dismissed::Everywhere(id("g")), 10, 10),
    ] {
        let item = match what {
            Dismissed::Everywhere(_) => workspace,
            _ => "p",
        };
        let used = async |at: i64| {
            // The greatest run of all, so that it outdoes others of its time.
            let usage = Use::new(workspace, item, 100 + at).run("\u{fffd}");
            record(&recorder, &[usage]).await;
            walk(&db.store(), &list(workspace), 4).await.len()
        };
        record(&recorder, &[Use::new(workspace, item, 100 + ahead)]).await;
        dismissed(&db, &what, 100).await;
        assert_eq!(used(until).await, 0, "{what:?}");
        assert_eq!(used(until + 1).await, 1, "{what:?}");
        // Once more, by a clock that is behind: no watermark shrinks, and what is there is hidden.
        dismissed(&db, &what, 50).await;
        assert_eq!(used(until + 1).await, 0, "{what:?}");
        assert_eq!(used(until + 2).await, 1, "{what:?}");
    }
}

/// The watermarks that there are, in microseconds.
async fn watermarks(db: &TestDb) -> BTreeMap<(String, String, String), i64> {
    let micros = match db.backend {
        Backend::Postgres => "(extract(epoch from until) * 1000000)::bigint",
        Backend::Sqlite => "until",
    };
    let columns = ["workspace", "uid", "published_run", micros];
    let mut conn = db.connect().await;
    let mut read = Vec::new();
    for column in columns {
        let sql = format!(
            "select cast({column} as text) from {{recents}}dismissal order by workspace, uid, published_run"
        );
        read.push(conn.texts(&sql).await.into_iter());
    }
    let [mut w, mut u, mut p, mut until] = <[_; 4]>::try_from(read).expect("four columns");
    std::iter::from_fn(|| {
        let key = (w.next()?, u.next()?, p.next()?);
        Some((key, until.next()?.parse().expect("a number")))
    })
    .collect()
}

async fn what_is_newer_than_its_watermarks_is_visible_whatever_happens_at_once(db: TestDb) {
    let db = Arc::new(db);
    let (all, asked) = (
        Arc::new(Mutex::new(Vec::new())),
        Arc::new(Mutex::new(Vec::new())),
    );
    let mut tasks = Vec::new();
    for seed in 0..3 {
        let (db, all, recorder) = (Arc::clone(&db), Arc::clone(&all), recorder(&db));
        tasks.push(tokio::spawn(async move {
            for uses in random_uses(seed, 1_200).chunks(6) {
                record(&recorder, uses).await;
                all.lock().expect("no panic").extend(uses.to_vec());
            }
            drop(db);
        }));
    }
    for seed in 10..12 {
        let (db, asked) = (Arc::clone(&db), Arc::clone(&asked));
        tasks.push(tokio::spawn(async move {
            let mut rng = fastrand::Rng::with_seed(seed);
            for of in random_uses(seed, 150) {
                let list = scope(&of.workspace, of.uid.as_deref().filter(|_| rng.bool()));
                let what = match rng.u8(0..8) {
                    0 => Dismissed::List(list),
                    1 => Dismissed::Everywhere(id(&of.published_run)),
                    _ => Dismissed::Item(list, id(&of.published_run)),
                };
                let now = rng.i64(0..14);
                dismissed(&db, &what, now).await;
                asked.lock().expect("no panic").push((what, T0 + now));
            }
        }));
    }
    for _ in 0..2 {
        let store = db.store();
        tasks.push(tokio::spawn(async move {
            for _ in 0..30 {
                sweep::everything(&store).await.expect("swept");
                sweep::watermarks(&store).await.expect("pruned");
            }
        }));
    }
    for task in tasks {
        task.await.expect("its end");
    }
    let watermarks = watermarks(&db).await;
    let until = |w: &str, u: &str, p: &str| {
        let keys = [(w, u, p), (w, u, ""), ("", "", p)];
        let found = keys.into_iter().filter_map(|(w, u, p)| {
            watermarks
                .get(&(w.to_owned(), u.to_owned(), p.to_owned()))
                .copied()
        });
        found.max().unwrap_or(0)
    };
    let (mut lists, mut hidden) = (BTreeMap::<_, Vec<_>>::new(), 0);
    for ((w, u, p), (micros, _)) in grouped_maximum(&all.lock().expect("no panic")) {
        let visible = micros > until(&w, &u, &p);
        hidden += u32::from(!visible);
        lists
            .entry((w, u))
            .or_default()
            .extend(visible.then_some((micros, p)));
    }
    assert!(hidden > 20, "{hidden} are hidden");
    for ((workspace, uid), mut items) in lists {
        items.sort();
        items.reverse();
        let list = scope(&workspace, Some(uid.as_str()).filter(|uid| !uid.is_empty()));
        let read = walk(&db.store(), &list, 3).await;
        let read: Vec<_> = read.into_iter().map(|(p, micros, _)| (micros, p)).collect();
        assert_eq!(read, items, "{list:?}");
    }
    // Whatever was answered to be dismissed is, also where its watermark was pruned.
    for (what, now) in asked.lock().expect("no panic").iter() {
        let of = |scope: &recents::model::Scope, p: &str| {
            let uid = scope.uid.as_ref().map_or("", Id::as_str);
            until(scope.workspace.as_str(), uid, p)
        };
        let hides = match what {
            Dismissed::Item(scope, item) => of(scope, item.as_str()),
            Dismissed::List(scope) => of(scope, ""),
            Dismissed::Everywhere(item) => until("", "", item.as_str()),
        };
        assert!(hides >= *now, "{what:?} at {now} was lost: {hides}");
    }
}
