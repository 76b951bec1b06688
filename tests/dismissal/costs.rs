//! What requests cost, whatever is dismissed: statements, and the rows that they read.

use hyper::body::Bytes;
use recents::dismiss::sweep;
use recents::store::Dialect;
use serde_json::{Value, json};

use super::{delete, hidden, hide_rows, watermarks};
use crate::promises::counts::own;
use crate::promises::fold::{record, recorder};
use crate::promises::lists::scope;
use crate::promises::plans::{explain, is_sort, nodes, plan_of_sqlite, reads_table, text_of};
use crate::support::client::list_path;
use crate::support::meter::Fence;
use crate::support::uses::body_of;
use crate::support::{Backend, Beside, Meter, TestDb, Use, both, recents};

both!(
    requests_are_as_many_statements_whatever_is_dismissed,
    what_another_process_dismisses_costs_one_statement_once,
);

/// Items of the list that is read.
const ITEMS: i64 = 2_500;
/// A page of four and the item that tells whether there is a next one.
const LIMIT: u32 = 5;

/// The newest items of list `w` are `p0000` and so on.
async fn fill(db: &TestDb) {
    let item = |i| Use::new("w", &format!("p{i:04}"), ITEMS - i);
    let uses: Vec<_> = (0..ITEMS).map(item).collect();
    let recorder = recorder(db);
    for uses in uses.chunks(1_000) {
        record(&recorder, uses).await;
    }
}

async fn requests_are_as_many_statements_whatever_is_dismissed(db: TestDb) {
    fill(&db).await;
    let meter = Meter::start(&db).await;
    meter.server.log.message("swept what stays hidden").await;
    assert_reads(&meter, "read", "nothing").await;
    assert_writes(&meter, "nothing").await;
    for (state, sql) in [
        ("thousands of items", watermarks(db.backend, "w", 5_000)),
        ("every second item, unswept", hide_rows("w", "like '%5'")),
        ("thousands, unswept", hide_rows("w", "> 'p0009'")),
    ] {
        db.execute(&sql).await;
        assert_reads(&meter, "visible", state).await;
        assert_writes(&meter, state).await;
    }
    let hidden = hidden(&db).await;
    assert!(hidden > 2_000, "{hidden} rows were hidden, and not swept");
}

async fn assert_reads(meter: &Meter, name: &str, state: &str) {
    let path = list_path("w", None);
    let first = meter.client().get(&path).await.expect(200).json();
    let cursor = first["next_cursor"].as_str().expect("a next page");
    for (path, statement) in [
        (path.clone(), format!("{name}_1")),
        (format!("{path}?limit=100"), format!("{name}_1")),
        (format!("{path}?cursor={cursor}"), format!("{name}_on_1")),
    ] {
        let read = async || drop(meter.client().get(&path).await.expect(200));
        let sent = named(meter.statements(Fence::Write, read).await);
        assert_eq!(sent, [statement], "{state}");
    }
    for (scopes, size) in [(10, 16), (100, 100)] {
        let scopes_of = |i| json!({"workspace": if i == 0 { "w".into() } else { format!("w{i}") }});
        let body = json!({"scopes": (0..scopes).map(scopes_of).collect::<Vec<Value>>()});
        let batch = "/v1/recent-workflows/batch";
        let read = async || drop(meter.client().post(batch, &body).await.expect(200));
        let sent = named(meter.statements(Fence::Write, read).await);
        assert_eq!(sent, [format!("{name}_{size}")], "{state}");
    }
}

/// Without transactions' beginnings and ends, and the positions that name a write.
fn named(sent: Vec<String>) -> Vec<String> {
    let mut sent = own(sent);
    sent.retain(|name| name != "position");
    sent
}

/// In a list of their own, so that they change nothing for the reads.
async fn assert_writes(meter: &Meter, state: &str) {
    let uses: Vec<_> = (0..10)
        .map(|i| Use::new("v", &format!("p{i}"), 0))
        .collect();
    let post = async || {
        drop(
            meter
                .client()
                .post("/v1/runs", &body_of(&uses))
                .await
                .expect(200),
        )
    };
    assert_eq!(
        named(meter.statements(Fence::Read, post).await),
        ["raise"],
        "{state}"
    );
    let list = list_path("v", None);
    for (path, statements) in [
        (format!("{list}/p1"), &["dismiss_item", "sweep_item"][..]),
        (list, &["dismiss_list", "dismiss_list_ahead"]),
        (format!("/v1/published-runs/{}", "x".repeat(129)), &[]),
    ] {
        let dismiss = async || {
            let answer = meter.client().send("DELETE", &path, &[], Bytes::new());
            let status = answer.await.status;
            assert_eq!(status.is_success(), !statements.is_empty(), "{path}");
        };
        let sent = named(meter.statements(Fence::Write, dismiss).await);
        assert_eq!(sent, statements, "{path}, {state}");
    }
}

async fn what_another_process_dismisses_costs_one_statement_once(db: TestDb) {
    fill(&db).await;
    let meter = Meter::start(&db).await;
    let path = list_path("w", None);
    let read = async || drop(meter.client().get(&path).await.expect(200));
    assert_eq!(
        named(meter.statements(Fence::Write, read).await),
        ["read_1"]
    );
    recents(&["dismiss", "v", "p", "--database-url", &db.url]).expect(0);
    let sent = named(meter.statements(Fence::Write, read).await);
    assert_eq!(sent, ["read_1", "visible_1"], "it has to hear of it");
    for _ in 0..2 {
        assert_eq!(
            named(meter.statements(Fence::Write, read).await),
            ["visible_1"]
        );
    }
    let everywhere = async || delete(&meter.server, "/v1/published-runs/gone").await;
    let sent = named(meter.statements(Fence::Write, everywhere).await);
    assert_eq!(sent, ["dismiss_everywhere", "dismiss_everywhere_ahead"]);
}

/// As an application reads by SQL.
fn view(limit: u32) -> String {
    format!(
        "select published_run, run from recents.recent_workflows where workspace = 'w' and uid = ''
         order by last_used_at desc, published_run desc limit {limit}"
    )
}

/// Rows that the read of a page takes from the table, and look-ups of watermarks, as PostgreSQL counts
/// them. The table is read as one range of the list's index, watermarks by their key.
async fn rows_read(conn: &mut Beside, what: &str, sql: &str) -> (f64, f64, f64) {
    let plan = explain(conn, sql).await;
    let nodes = nodes(&plan);
    let sorts = nodes.iter().any(|node| is_sort(node) && reads_table(node));
    assert!(!sorts, "{what} sorts: {plan:#}");
    let figure = |node: &Value, name: &str| node.get(name).and_then(Value::as_f64).unwrap_or(0.0);
    let (mut taken, mut removed, mut looked_up) = (0.0, 0.0, 0.0);
    for node in nodes
        .iter()
        .filter(|node| node.get("Relation Name").is_some())
    {
        if node["Relation Name"] == "dismissal" {
            // An application's session may rather read all of a few.
            let of_few = figure(node, "Rows Removed by Filter") <= 10.0;
            let by_key = node["Index Name"] == "dismissal_pkey";
            assert!(by_key || of_few, "{what}: {plan:#}");
            looked_up += figure(node, "Actual Loops");
            continue;
        }
        assert_eq!(
            node["Index Name"], "recent_workflow_newest",
            "{what}: {plan:#}"
        );
        assert_eq!(node["Scan Direction"], "Backward", "{what}: {plan:#}");
        taken += figure(node, "Actual Rows");
        removed += figure(node, "Rows Removed by Filter");
    }
    (taken, removed, looked_up)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_reads_the_rows_of_a_page_whatever_is_dismissed() {
    let db = TestDb::migrated(Backend::Postgres).await;
    fill(&db).await;
    let (mut conn, mut application) = (db.connect().await, db.connect().await);
    for (name, value) in recents::store::PG_PLANNING {
        conn.execute(&format!("set {name} = {value}")).await;
    }
    for name in ["read_1", "visible_1"] {
        let text = text_of(name, Dialect::Postgres);
        conn.execute(&format!("prepare {name} as {text}")).await;
    }
    let page = |name: &str, limit: u32| format!("execute {name} ({limit}, 'w', '')");
    for (state, sql) in [
        ("nothing", String::new()),
        ("some", watermarks(db.backend, "w", 10)),
        ("thousands of items", watermarks(db.backend, "w", 5_000)),
        ("thousands of items elsewhere", watermarks(db.backend, "v", 5_000)),
        // All but the newest hundred, which nobody swept.
        (
            "a list's history",
            "insert into recents.dismissal
             select 'w', '', '', last_used_at from recents.recent_workflow where published_run = 'p0100'"
                .into(),
        ),
    ] {
        conn.execute(&sql).await;
        for (mode, analyze) in [
            ("force_generic_plan", "select"),
            ("force_custom_plan", "select"),
            ("force_generic_plan", "analyze"),
        ] {
            conn.execute(analyze).await;
            conn.execute(&format!("set plan_cache_mode = {mode}")).await;
            let what = format!("{state}, {mode}, {analyze}");
            for limit in [LIMIT, 101] {
                let plain = rows_read(&mut conn, &what, &page("read_1", limit)).await;
                assert_eq!(plain, (f64::from(limit), 0.0, 1.0), "{what}");
                // The rest of the list is no more than the range of its index.
                let rows = f64::from(limit.min(if state == "a list's history" { 100 } else { limit }));
                let visible = rows_read(&mut conn, &what, &page("visible_1", limit)).await;
                assert_eq!(visible, (rows, 0.0, 1.0 + 2.0 * rows), "{what}");
            }
            let by_sql = rows_read(&mut application, &what, &view(LIMIT)).await;
            let rows = f64::from(LIMIT);
            assert_eq!(by_sql, (rows, 0.0, 3.0 * rows), "{what}");
        }
    }
    // The view steps over what the list's watermark hides, until that is swept.
    let (_, removed, _) = rows_read(&mut application, "unswept", &view(101)).await;
    assert_eq!(removed, 2_400.0);
    let swept = sweep::list(&db.store(), &scope("w", None)).await;
    assert_eq!(swept.expect("swept"), 2_400);
    let (taken, removed, _) = rows_read(&mut application, "swept", &view(101)).await;
    assert_eq!((taken, removed), (100.0, 0.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_reads_a_range_of_the_index_whatever_is_dismissed() {
    let db = TestDb::migrated(Backend::Sqlite).await;
    fill(&db).await;
    for sql in [
        String::new(),
        watermarks(db.backend, "w", 5_000),
        "analyze".into(),
    ] {
        db.execute(&sql).await;
        let mut conn = db.connect().await;
        let view = view(LIMIT).replace("recents.", "");
        for (text, alias) in [(text_of("visible_1", Dialect::Sqlite), "r"), (&view, "t")] {
            let plan = plan_of_sqlite(&mut conn, text).await;
            let range =
                format!("SEARCH {alias} USING INDEX recent_workflow_newest (workspace=? AND uid=?");
            assert!(
                plan.iter().any(|step| step.starts_with(&range)),
                "{plan:#?}"
            );
            let by_key = "SEARCH d USING PRIMARY KEY (workspace=? AND uid=? AND published_run=?)";
            let looks_up = plan.iter().filter(|step| *step == by_key).count();
            assert_eq!(looks_up, 3, "{plan:#?}");
            let other = |step: &&String| step.contains("SCAN r") || step.contains("TEMP B-TREE");
            assert_eq!(plan.iter().find(other), None, "{plan:#?}");
        }
    }
}
