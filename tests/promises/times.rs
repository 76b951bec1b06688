//! Times: every microsecond of the years 1970 to 9999 comes back as it was, in order.

use recents::model::Time;
use recents::read::{Cursor, PageRequest, pages};

use super::fold::{record, recorder};
use super::lists::{scope, walk};
use crate::support::{TestDb, Use, both};

both!(
    every_time_comes_back_to_the_microsecond,
    the_ends_of_the_range_are_ordinary_times,
);

async fn every_time_comes_back_to_the_microsecond(db: TestDb) {
    let mut rng = fastrand::Rng::with_seed(3);
    // PostgreSQL counts from 2000, so both sides of it are tried.
    let epoch_2000 = 946_684_800_000_000;
    let mut times = vec![
        0,
        1,
        epoch_2000 - 1,
        epoch_2000,
        epoch_2000 + 1,
        Time::MAX.micros(),
    ];
    times.extend((0..500).map(|_| rng.i64(0..=Time::MAX.micros())));
    let uses: Vec<_> = times
        .iter()
        .enumerate()
        .map(|(i, at)| Use::new("w", &i.to_string(), 0).at(*at))
        .collect();
    record(&recorder(&db), &uses).await;
    let items = walk(&db.store(), &scope("w", None), 100).await;
    let mut found: Vec<_> = items
        .iter()
        .map(|(p, micros, _)| (p.parse::<usize>().expect("a number"), *micros))
        .collect();
    found.sort_unstable();
    assert_eq!(found, times.iter().copied().enumerate().collect::<Vec<_>>());
    assert!(items.is_sorted_by(|a, b| a.1 >= b.1), "newest first");
}

async fn the_ends_of_the_range_are_ordinary_times(db: TestDb) {
    let recorder = recorder(&db);
    let first = Use::new("w", "first", 0).at(Time::MIN.micros());
    let last = Use::new("w", "last", 0).at(Time::MAX.micros());
    record(&recorder, &[first.clone(), last.clone()]).await;
    let store = db.store();
    for limit in [1, 2] {
        let items = walk(&store, &scope("w", None), limit).await;
        let names: Vec<_> = items.iter().map(|(p, ..)| p.as_str()).collect();
        assert_eq!(names, ["last", "first"], "pages of {limit}");
    }
    // A cursor at the very ends still is a position.
    let own = scope("w", None);
    let after = |item: &Use| {
        let text = Cursor::encode(&own, item.time(), &item.published_run);
        Some(Cursor::decode(&own, &text).expect("its own cursor"))
    };
    let page = async |cursor| {
        let request = PageRequest {
            scope: own.clone(),
            cursor,
        };
        pages(&store, vec![request], 4)
            .await
            .expect("a page")
            .remove(0)
    };
    assert_eq!(page(after(&last)).await.recent_workflows.len(), 1);
    assert_eq!(page(after(&first)).await.recent_workflows.len(), 0);
}
