//! Lists: newest first, ties by published run descending in byte order, page by page.

use recents::model::{Id, Scope};
use recents::read::{Cursor, PageRequest, pages};
use recents::store::Store;

use super::fold::{record, recorder};
use crate::support::{TestDb, Use, both};

both!(
    lists_are_newest_first_and_ties_are_in_descending_byte_order,
    pages_through_equal_times_lose_and_repeat_nothing,
    a_page_that_ends_with_the_list_has_no_cursor,
    a_users_list_has_only_their_uses_and_the_workspaces_has_all,
    many_lists_are_answered_in_order_each_as_if_alone,
    a_list_never_seen_is_empty,
);

pub(crate) fn scope(workspace: &str, uid: Option<&str>) -> Scope {
    let id = |text: &str| Id::new(text).expect("an id");
    Scope {
        workspace: id(workspace),
        uid: uid.map(id),
    }
}

/// The items of a list as `(published_run, microseconds, run)`, read page by page.
pub(crate) type Items = Vec<(String, i64, Option<String>)>;

/// Reads a whole list in pages of `limit`.
pub(crate) async fn walk(store: &Store, scope: &Scope, limit: u32) -> Items {
    let mut items = Items::new();
    let mut cursor = None;
    loop {
        let request = PageRequest {
            scope: scope.clone(),
            cursor,
        };
        let mut answer = pages(store, vec![request], limit).await.expect("a page");
        let page = answer.pop().expect("one page");
        assert!(
            page.recent_workflows.len() <= limit as usize,
            "more than the limit"
        );
        assert!(items.len() < 10_000, "the pages have no end");
        let full = page.recent_workflows.len() == limit as usize;
        for item in page.recent_workflows {
            items.push((
                item.published_run.into(),
                item.last_used_at.micros(),
                item.run.map(Into::into),
            ));
        }
        let Some(next) = page.next_cursor else {
            return items;
        };
        assert!(full, "only the last page may be short");
        cursor = Some(Cursor::decode(scope, &next).expect("a cursor of this list"));
    }
}

fn names(items: &Items) -> Vec<&str> {
    items
        .iter()
        .map(|(published_run, ..)| published_run.as_str())
        .collect()
}

async fn lists_are_newest_first_and_ties_are_in_descending_byte_order(db: TestDb) {
    // As bytes: "10" < "9" < "A" < "Z" < "_" < "a" < "z" < "z " < "é" < U+FFFD < "😀", which no
    // language's order, no number's and not UTF-16's is.
    let rising = [
        "10", "9", "A", "Z", "_", "a", "z", "z ", "é", "\u{fffd}", "😀",
    ];
    let mut uses: Vec<_> = rising.iter().map(|p| Use::new("w", p, 5)).collect();
    fastrand::Rng::with_seed(1).shuffle(&mut uses);
    uses.push(Use::new("w", "0 newest", 6));
    uses.push(Use::new("w", "~ oldest", 4));
    record(&recorder(&db), &uses).await;
    let items = walk(&db.store(), &scope("w", None), 100).await;
    let mut expected = vec!["0 newest"];
    expected.extend(rising.iter().rev());
    expected.push("~ oldest");
    assert_eq!(names(&items), expected);
}

async fn pages_through_equal_times_lose_and_repeat_nothing(db: TestDb) {
    // Runs of equal times longer and shorter than any page.
    let uses: Vec<_> = (0..60)
        .map(|i| Use::new("w", &format!("p{i}"), [0, 0, 0, 1, 2][i % 5]))
        .collect();
    record(&recorder(&db), &uses).await;
    let store = db.store();
    let whole = walk(&store, &scope("w", None), 100).await;
    let mut expected: Vec<_> = uses
        .iter()
        .map(|u| (u.micros, u.published_run.as_str()))
        .collect();
    expected.sort_unstable();
    expected.reverse();
    assert_eq!(
        names(&whole),
        expected.iter().map(|(_, p)| *p).collect::<Vec<_>>()
    );
    for limit in [1, 2, 3, 7, 59, 60, 61] {
        assert_eq!(
            walk(&store, &scope("w", None), limit).await,
            whole,
            "pages of {limit}"
        );
    }
}

async fn a_page_that_ends_with_the_list_has_no_cursor(db: TestDb) {
    let uses: Vec<_> = (0..4).map(|i| Use::new("w", &format!("p{i}"), i)).collect();
    record(&recorder(&db), &uses).await;
    let page = async |limit| {
        let request = PageRequest {
            scope: scope("w", None),
            cursor: None,
        };
        pages(&db.store(), vec![request], limit)
            .await
            .expect("a page")
            .remove(0)
    };
    assert_eq!(page(4).await.next_cursor, None);
    assert_eq!(page(5).await.next_cursor, None);
    assert!(page(3).await.next_cursor.is_some());
}

async fn a_users_list_has_only_their_uses_and_the_workspaces_has_all(db: TestDb) {
    let uses = [
        Use::new("w", "by u", 1).by("u"),
        Use::new("w", "by v", 2).by("v"),
        Use::new("w", "by nobody", 3),
        Use::new("x", "elsewhere", 4).by("u"),
    ];
    record(&recorder(&db), &uses).await;
    let store = db.store();
    let list = async |workspace, uid| {
        let items = walk(&store, &scope(workspace, uid), 10).await;
        names(&items)
            .into_iter()
            .map(ToOwned::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(list("w", None).await, ["by nobody", "by v", "by u"]);
    assert_eq!(list("w", Some("u")).await, ["by u"]);
    assert_eq!(list("w", Some("v")).await, ["by v"]);
    assert_eq!(list("x", None).await, ["elsewhere"]);
    assert_eq!(list("x", Some("u")).await, ["elsewhere"]);
}

async fn many_lists_are_answered_in_order_each_as_if_alone(db: TestDb) {
    let mut rng = fastrand::Rng::with_seed(2);
    let uses: Vec<_> = (0..1_000)
        .map(|i| {
            let workspace = format!("w{}", rng.u8(..40));
            Use::new(&workspace, &format!("p{}", i % 9), rng.i64(0..50)).by(&format!("u{}", i % 2))
        })
        .collect();
    record(&recorder(&db), &uses).await;
    let store = db.store();
    for count in [1, 2, 9, 10, 11, 99, 100] {
        // Some of them twice, some never seen.
        let scopes: Vec<_> = (0..count)
            .map(|_| scope(&format!("w{}", rng.u8(..50)), rng.bool().then_some("u1")))
            .collect();
        let request = |scope: &Scope| PageRequest {
            scope: scope.clone(),
            cursor: None,
        };
        let together = pages(&store, scopes.iter().map(request).collect(), 3)
            .await
            .expect("pages");
        assert_eq!(together.len(), scopes.len());
        for (scope, page) in scopes.iter().zip(together) {
            let alone = pages(&store, vec![request(scope)], 3)
                .await
                .expect("a page")
                .remove(0);
            assert_eq!(page, alone, "{scope:?} among {count}");
        }
    }
}

async fn a_list_never_seen_is_empty(db: TestDb) {
    assert_eq!(
        walk(&db.store(), &scope("never", None), 4).await,
        Items::new()
    );
    assert_eq!(
        walk(&db.store(), &scope("never", Some("u")), 4).await,
        Items::new()
    );
}
