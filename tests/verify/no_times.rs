//! Times that are none, written into the table by someone else's SQL: lists are read all the same, verify
//! names the rows, and a repair mends them.

use recents::model::Time;
use recents::read::{PageRequest, pages};
use serde_json::json;

use super::found::{differences, key};
use crate::promises::fold::{record, recorder};
use crate::promises::lists::{scope, walk};
use crate::support::client::{list_path, published_runs};
use crate::support::history::Setup;
use crate::support::{Backend, Server, TestDb, Use, both};

both!(
    a_row_whose_time_is_none_is_named_and_mended,
    a_list_with_times_that_are_none_is_read,
    a_use_replaces_a_row_that_was_used_before_all_times,
);

/// What no [`Time`] is, as SQL writes it, from the greatest to the least; and what it is read as.
fn no_times(backend: Backend) -> [(&'static str, Time); 6] {
    let [infinite, far, next, before, old, never] = match backend {
        Backend::Postgres => [
            "'infinity'",
            "'20000-01-01 UTC'",
            "'10000-01-01 UTC'",
            "'1969-12-31 23:59:59.999999 UTC'",
            "'0044-03-15 UTC BC'",
            "'-infinity'",
        ],
        Backend::Sqlite => [
            "9223372036854775807",
            "9223372036854775806",
            "253402300800000000",
            "-1",
            "-9223372036854775807",
            "-9223372036854775808",
        ],
    };
    [
        (infinite, Time::MAX),
        (far, Time::MAX),
        (next, Time::MAX),
        (before, Time::MIN),
        (old, Time::MIN),
        (never, Time::MIN),
    ]
}

async fn a_row_whose_time_is_none_is_named_and_mended(db: TestDb) {
    let setup = Setup::plain(db, 85, 600).await;
    setup.backfill(&[]).await;
    let history = setup.history.rows();
    // As the table is read: to a row of each list, and to one whose key has no use.
    let mut table = history.clone();
    for (n, (sql, time)) in no_times(setup.store.backend).into_iter().enumerate() {
        let of_user = |user: bool| {
            let mut keys = history.keys().filter(|(_, uid, _)| uid.is_empty() != user);
            keys.nth(n * 2).expect("a row of each list").clone()
        };
        for key in [of_user(false), of_user(true)] {
            let update =
                format!("update {{recents}}recent_workflow set last_used_at = {sql} where {{row}}");
            setup.change(&update, &key).await;
            table.get_mut(&key).expect("a row").0 = time.micros();
        }
        for run in [Some("1"), None] {
            let extra = key("w0", "", &format!("nothing {n} {run:?}"));
            setup.put(&extra, &(0, run.map(Into::into))).await;
            let update =
                format!("update {{recents}}recent_workflow set last_used_at = {sql} where {{row}}");
            setup.change(&update, &extra).await;
            table.insert(extra, (time.micros(), run.map(Into::into)));
        }
    }
    let expected = differences(&table, &history);
    let found = setup.verify_is(&[], expected.clone()).await;
    let count = |kind| found.values().filter(|(found, ..)| found == kind).count();
    assert_eq!((count("ahead"), count("stale"), count("extra")), (6, 6, 12));
    setup.verify_is(&["--repair"], expected).await;
    setup.assert_equal("after the repair").await;
    setup.recents(&["verify"]).expect(0);
}

async fn a_list_with_times_that_are_none_is_read(db: TestDb) {
    let own = Use::new("w", "own", 0).by("u").run("1");
    record(&recorder(&db), &[own]).await;
    let mut expected = Vec::new();
    for (n, (sql, time)) in no_times(db.backend).into_iter().enumerate() {
        for uid in ["", "u"] {
            db.execute(&format!(
                "insert into {{recents}}recent_workflow (workspace, uid, published_run, last_used_at, run)
                 values ('w', '{uid}', 'p{n}', {sql}, '2')"
            ))
            .await;
        }
        expected.push((format!("p{n}"), time.to_string()));
    }
    let own = ("own".to_owned(), Use::new("", "", 0).time().to_string());
    expected.push(own);
    expected.sort_by(|a, b| (&b.1, &b.0).cmp(&(&a.1, &a.0)));
    let items = |list: &serde_json::Value| -> Vec<(String, String)> {
        let times = list["recent_workflows"].as_array().expect("a list").iter();
        let times = times.map(|item| item["last_used_at"].as_str().expect("a time").to_owned());
        published_runs(list).into_iter().zip(times).collect()
    };
    let server = Server::start(&db).await;
    let check = async |when: &str| {
        for uid in [None, Some("u")] {
            let path = list_path("w", uid) + "?limit=100";
            let list = server.public.get(&path).await.expect(200).json();
            assert_eq!(items(&list), expected, "{when}");
            let scopes = json!({"scopes": [{"workspace": "w", "uid": uid}], "limit": 100});
            let batch = server
                .public
                .post("/v1/recent-workflows/batch", &scopes)
                .await;
            assert_eq!(items(&batch.expect(200).json()["lists"][0]), expected);
        }
        // Page by page it comes to an end, and no item comes twice.
        let walked = walk(&db.store(), &scope("w", None), 1).await;
        let mut names: Vec<_> = walked.iter().map(|(name, ..)| name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), walked.len(), "{walked:?}");
        assert!(walked.iter().any(|(name, ..)| name == "own"), "{walked:?}");
    };
    check("where nothing was ever dismissed").await;
    let elsewhere = list_path("elsewhere", None);
    let cleared = server
        .public
        .send("DELETE", &elsewhere, &[], Default::default())
        .await;
    cleared.expect(204);
    check("where something was").await;
}

async fn a_use_replaces_a_row_that_was_used_before_all_times(db: TestDb) {
    let before = no_times(db.backend)
        .into_iter()
        .filter(|(_, time)| *time == Time::MIN);
    for (n, (sql, _)) in before.enumerate() {
        let name = format!("p{n}");
        db.execute(&format!(
            "insert into {{recents}}recent_workflow (workspace, published_run, last_used_at, run)
             values ('w', '{name}', {sql}, '~')"
        ))
        .await;
        // The first of all times is after it.
        let first = Use::new("w", &name, 0).at(0).run("1");
        record(&recorder(&db), &[first]).await;
        let request = PageRequest {
            scope: scope("w", None),
            cursor: None,
        };
        let page = pages(&db.store(), vec![request], 10).await.expect("a page");
        let items = &page[0].recent_workflows;
        let item = items.iter().find(|item| *item.published_run == *name);
        assert_eq!(
            item.map(|item| item.run.as_deref()),
            Some(Some("1")),
            "{sql}"
        );
    }
}
