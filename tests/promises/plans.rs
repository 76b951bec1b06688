//! Plans of the reads: a range of one index, no sort, no row read beyond the page.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use recents::model::Time;
use recents::store::Dialect;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Row, SqliteConnection};

use super::fold::{record, recorder};

use crate::support::uses::T0;
use crate::support::{Backend, Beside, TestDb, Use};

/// Workspaces of 2,500 published runs each, where runs of equal times are longer than a page.
const WORKSPACES: usize = 8;
const ITEMS: i64 = 2_500;
const TIE: i64 = 50;
/// A page of four and the item that tells whether there is a next one.
const LIMIT: u32 = 5;

async fn crowded(backend: Backend) -> TestDb {
    filled(backend, ITEMS, TIE).await
}

async fn filled(backend: Backend, items: i64, tie: i64) -> TestDb {
    let db = TestDb::migrated(backend).await;
    let recorder = recorder(&db);
    for workspace in 0..WORKSPACES {
        let item = |i: i64| Use::new(&workspace.to_string(), &format!("p{i:04}"), i / tie);
        let uses: Vec<_> = (0..items).map(item).collect();
        for uses in uses.chunks(1_000) {
            record(&recorder, uses).await;
        }
    }
    db.execute("analyze").await;
    db
}

/// Where lists are read from: the start, within a tie, near the end, behind it.
fn positions() -> [(i64, String); 4] {
    let at = |i: i64| (T0 + i / TIE, format!("p{i:04}"));
    [
        (Time::MAX.micros() + 1, String::new()),
        at(ITEMS - TIE / 2),
        at(3),
        (0, String::new()),
    ]
}

pub(crate) fn text_of(name: &str, dialect: Dialect) -> &'static str {
    let found = recents::store::statements().find(|statement| statement.name == name);
    found.expect("a statement of that name").text(dialect)
}

/// A statement that reads lists.
struct Read {
    name: &'static str,
    /// How many.
    size: usize,
    /// Whether from behind an item.
    on: bool,
    text: &'static str,
}

fn reads(dialect: Dialect) -> impl Iterator<Item = Read> {
    recents::store::statements().filter_map(move |statement| {
        let name = statement.name;
        let size = name
            .strip_prefix("read_")
            .or(name.strip_prefix("visible_"))?;
        Some(Read {
            name,
            size: size.trim_start_matches("on_").parse().ok()?,
            on: size.starts_with("on_"),
            text: statement.text(dialect),
        })
    })
}

/// Every node of a plan of PostgreSQL's.
pub(crate) fn nodes(plan: &Value) -> Vec<&Value> {
    let inner = plan["Plans"].as_array().into_iter().flatten();
    std::iter::once(plan).chain(inner.flat_map(nodes)).collect()
}

pub(crate) fn is_sort(node: &Value) -> bool {
    node["Node Type"]
        .as_str()
        .is_some_and(|kind| kind.ends_with("Sort"))
}

pub(crate) fn reads_table(plan: &Value) -> bool {
    nodes(plan)
        .iter()
        .any(|node| node.get("Relation Name").is_some())
}

pub(crate) async fn explain(conn: &mut Beside, sql: &str) -> Value {
    plan_of(
        conn,
        &format!("explain (analyze, timing off, format json) {sql}"),
    )
    .await
}

async fn plan_of(conn: &mut Beside, sql: &str) -> Value {
    let text = conn.texts(sql).await.remove(0);
    let mut plan: Value = serde_json::from_str(&text).expect("a plan");
    plan[0]["Plan"].take()
}

#[tokio::test]
async fn postgres_reads_a_range_of_the_index_and_no_row_beyond_the_page() {
    let db = crowded(Backend::Postgres).await;
    let mut conn = db.connect().await;
    for Read {
        name,
        size,
        on,
        text,
    } in reads(Dialect::Postgres)
    {
        // The rest is filled up with nothing.
        let lists = size * 2 / 3 + 1;
        conn.execute(&format!("prepare {name} as {text}")).await;
        let positions = positions();
        let positions = if on { &positions[..] } else { &positions[..1] };
        for (mode, (micros, published_run)) in positions
            .iter()
            .flat_map(|p| [("force_custom_plan", p), ("force_generic_plan", p)])
        {
            let list = |at: usize| {
                let (scope, behind) = match at < lists {
                    true => (
                        format!("'{}', ''", at % WORKSPACES),
                        format!(
                            "timestamptz 'epoch' + {micros} * interval '1 microsecond', '{published_run}'"
                        ),
                    ),
                    false => (
                        "null, null".into(),
                        "timestamptz '10000-01-01 UTC', ''".into(),
                    ),
                };
                if on {
                    format!("{scope}, {behind}")
                } else {
                    scope
                }
            };
            let arguments: Vec<_> = (0..size).map(list).collect();
            conn.execute(&format!("set plan_cache_mode = {mode}")).await;
            let execute = format!("execute {name} ({LIMIT}, {})", arguments.join(", "));
            let plan = explain(&mut conn, &execute).await;
            let nodes = nodes(&plan);
            let what = format!("{name}, {mode}, after {published_run}: {plan:#}");
            // What fills the statement up is sorted too, but has no rows.
            let sorts = nodes
                .iter()
                .filter(|node| is_sort(node) && reads_table(node));
            assert_eq!(sorts.count(), 0, "sorted: {what}");
            let scans: Vec<_> = nodes
                .iter()
                .filter(|node| node["Relation Name"] == "recent_workflow")
                .collect();
            assert!(scans.len() >= lists, "a scan for each list: {what}");
            for scan in scans {
                assert_eq!(scan["Index Name"], "recent_workflow_newest", "{what}");
                assert_eq!(scan["Scan Direction"], "Backward", "{what}");
                assert!(
                    scan["Actual Rows"]
                        .as_f64()
                        .is_some_and(|rows| rows <= f64::from(LIMIT)),
                    "{what}"
                );
                let removed = scan.get("Rows Removed by Filter").and_then(Value::as_f64);
                assert_eq!(
                    removed.unwrap_or(0.0),
                    0.0,
                    "rows were read for nothing: {what}"
                );
            }
        }
    }
}

#[tokio::test]
async fn sqlite_reads_a_range_of_the_index() {
    let db = crowded(Backend::Sqlite).await;
    let mut conn = db.connect().await;
    for Read {
        name,
        size,
        on,
        text,
    } in reads(Dialect::Sqlite)
    {
        let plan = plan_of_sqlite(&mut conn, text).await;
        let mut range = "workspace=? AND uid=?".to_owned();
        if name.starts_with("visible") {
            range += " AND last_used_at>?";
        }
        if on {
            range += " AND (last_used_at,published_run)<(?,?)";
        }
        let range = format!("SEARCH r USING INDEX recent_workflow_newest ({range})");
        let ranges = plan.iter().filter(|step| **step == *range).count();
        assert_eq!(ranges, size, "a range for each list: {plan:#?}");
        assert!(
            !plan.iter().any(|step| step.contains("TEMP B-TREE")),
            "sorted: {plan:#?}"
        );
        assert!(
            !plan
                .iter()
                .any(|step| step.starts_with("SCAN r") || step == "SCAN d"),
            "{plan:#?}"
        );
    }
}

/// Steps of SQLite's machine that a statement takes for full pages of these lists, each from the start or
/// from behind this item.
async fn steps(conn: &mut SqliteConnection, read: &Read, behind: &(i64, String)) -> usize {
    let query = || {
        let mut query = sqlx::query(read.text).bind(LIMIT);
        for list in 0..read.size {
            query = query.bind((list % WORKSPACES).to_string()).bind("");
            if read.on {
                query = query.bind(behind.0).bind(behind.1.clone());
            }
        }
        query
    };
    // Once to be prepared.
    query().fetch_all(&mut *conn).await.expect("pages");
    let steps = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&steps);
    let step = move || counter.fetch_add(1, Ordering::Relaxed) < usize::MAX;
    let mut handle = conn.lock_handle().await.expect("the connection");
    handle.set_progress_handler(1, step);
    drop(handle);
    let rows = query().fetch_all(&mut *conn).await.expect("pages").len();
    let mut handle = conn.lock_handle().await.expect("the connection");
    handle.remove_progress_handler();
    assert_eq!(rows, read.size * LIMIT as usize, "{}", read.name);
    steps.load(Ordering::Relaxed)
}

/// SQLite does not tell how many rows it read, but each costs steps of its machine: were one read more, of
/// a longer list or a longer tie, they would be more.
#[tokio::test]
async fn sqlite_reads_no_more_of_long_lists_and_ties_than_of_short_ones() {
    let mut taken = Vec::new();
    for (items, tie) in [(100, 10), (ITEMS, TIE)] {
        let db = filled(Backend::Sqlite, items, tie).await;
        let Beside::Sqlite(mut conn) = db.connect().await else {
            panic!("SQLite's steps")
        };
        let within = items - tie / 2;
        let positions = [
            (Time::MAX.micros() + 1, String::new()),
            (T0 + within / tie, format!("p{within:04}")),
        ];
        let mut of_reads = Vec::new();
        for read in reads(Dialect::Sqlite) {
            for behind in positions.iter().take(1 + usize::from(read.on)) {
                let steps = steps(&mut conn, &read, behind).await;
                assert!(steps > read.size * LIMIT as usize, "they are counted");
                of_reads.push((read.name, behind.1.is_empty(), steps));
            }
        }
        taken.push(of_reads);
    }
    assert_eq!(taken[0], taken[1]);
}

/// Of many lists nearly all are short. Who plans by that, as a service does once for all lists, might as
/// well sort a list as read it in order; the long one would be sorted too, at every read.
async fn many_short_and_one_long(backend: Backend) -> TestDb {
    let db = TestDb::migrated(backend).await;
    let fill = |from: i64, to: i64, workspace: &str, uid: &str| {
        let time = match backend {
            Backend::Postgres => "timestamptz '2020-01-01' + i % 7777 * interval '1 second'",
            Backend::Sqlite => "1600000000000000 + i % 7777",
        };
        format!(
            "with recursive n (i) as (select {from} union all select i + 1 from n where i < {to})
             insert into {{recents}}recent_workflow
             select {workspace}, {uid}, 'p' || i, {time}, 'run' || i from n"
        )
    };
    db.execute(&fill(1, 20_000, "'w' || i", "''")).await;
    db.execute(&fill(1, 20_000, "'w' || i", "'u' || i")).await;
    db.execute(&fill(1, 3_000, "'long'", "''")).await;
    if backend == Backend::Postgres {
        // A level more in the list's index than in the key's, as there is now and then.
        db.execute(
            "alter index recents.recent_workflow_newest set (fillfactor = 30);
             reindex table recents.recent_workflow",
        )
        .await;
    }
    db.execute("analyze").await;
    db
}

#[tokio::test]
async fn a_long_list_among_many_short_ones_is_read_in_order() {
    let db = many_short_and_one_long(Backend::Postgres).await;
    let mut conn = db.connect().await;
    for (name, value) in recents::store::PG_PLANNING {
        conn.execute(&format!("set {name} = {value}")).await;
    }
    for Read { name, text, .. } in reads(Dialect::Postgres) {
        let parameters = (1..)
            .take_while(|n| text.contains(&format!("${n}")))
            .count();
        conn.execute(&format!("prepare {name} as {text}")).await;
        let nulls = vec!["null"; parameters].join(", ");
        let sql = format!("explain (format json) execute {name} ({nulls})");
        let plan = plan_of(&mut conn, &sql).await;
        for node in nodes(&plan) {
            assert!(!is_sort(node), "{name} sorts: {plan:#}");
            if node["Relation Name"] == "recent_workflow" {
                assert_eq!(node["Index Name"], "recent_workflow_newest", "{plan:#}");
            }
        }
    }
    // An application's session plans each time, with the values.
    let mut conn = db.connect().await;
    let view = "explain (format json) select * from recents.recent_workflows
        where workspace = 'long' and uid = '' order by last_used_at desc, published_run desc limit 4";
    let plan = plan_of(&mut conn, view).await;
    assert!(!nodes(&plan).iter().any(|node| is_sort(node)), "{plan:#}");

    let db = many_short_and_one_long(Backend::Sqlite).await;
    let mut conn = db.connect().await;
    for name in ["read_1", "visible_1"] {
        let plan = plan_of_sqlite(&mut conn, text_of(name, Dialect::Sqlite)).await;
        let sorts = plan.iter().any(|step| step.contains("TEMP B-TREE"));
        assert!(!sorts, "{name}: {plan:#?}");
    }
}

/// The steps of a plan of SQLite's.
pub(crate) async fn plan_of_sqlite(conn: &mut Beside, text: &str) -> Vec<String> {
    let Beside::Sqlite(conn) = conn else {
        panic!("SQLite's plans")
    };
    let sql = AssertSqlSafe(format!("explain query plan {text}"));
    let rows = sqlx::query(sql).fetch_all(conn).await.expect("a plan");
    rows.iter().map(|row| row.get("detail")).collect()
}

#[tokio::test]
async fn postgres_looks_rows_to_raise_up_by_their_key() {
    let db = crowded(Backend::Postgres).await;
    let mut conn = db.connect().await;
    conn.execute(&format!(
        "prepare raise as {}",
        text_of("raise", Dialect::Postgres)
    ))
    .await;
    for mode in ["force_custom_plan", "force_generic_plan"] {
        conn.execute(&format!("set plan_cache_mode = {mode}")).await;
        for uses in [1, 2_000] {
            // Half of them newer than their rows, half of them new.
            let column = |of: &dyn Fn(i64) -> String| {
                let values: Vec<_> = (1..=uses).map(|i| format!("'{}'", of(i))).collect();
                format!("array[{}]", values.join(", "))
            };
            let arguments = [
                column(&|i| (i % 8).to_string()),
                column(&|_| String::new()),
                column(&|i| format!("p{:04}", i * 2)),
                column(&|_| "2100-01-01".into()) + "::timestamptz[]",
                column(&|i| i.to_string()),
            ];
            conn.execute("begin").await;
            let plan = explain(
                &mut conn,
                &format!("execute raise ({})", arguments.join(", ")),
            )
            .await;
            conn.execute("rollback").await;
            let nodes = nodes(&plan);
            let scans: Vec<_> = nodes
                .iter()
                .filter(|node| node["Alias"] == "r" && node["Node Type"] != "ModifyTable")
                .collect();
            assert!(!scans.is_empty(), "the rows are looked at: {plan:#}");
            for scan in scans {
                assert_eq!(
                    scan["Index Name"], "recent_workflow_pkey",
                    "{mode}, {uses} uses: {plan:#}"
                );
            }
        }
    }
}

/// Statements that read the whole table, or all notes, and say so.
const READ_EVERYTHING: [&str; 12] = [
    "dismiss_everywhere_ahead",
    "analyze",
    "vacuum",
    "forget_rows",
    "forget_notes",
    "forget_plans",
    "notes_standing",
    "notes_set_aside",
    "retry_notes_set_aside",
    "retry_rows_set_aside",
    "count_rows",
    "furthest_ahead",
];

/// Has the notes that are set aside and no others, so that reading it whole is right, too.
const SET_ASIDE: &str = "note_set_aside";

/// The one index that a statement has to use.
fn index_of(statement: &str) -> &'static str {
    match statement {
        "dismiss_list_ahead" => "recent_workflow_newest",
        _ if reads(Dialect::Postgres).any(|read| read.name == statement) => {
            "recent_workflow_newest"
        }
        "rows_of_runs" => "recent_workflow_run",
        _ => "recent_workflow_pkey",
    }
}

/// Joins by the whole key, which read the table as long as it is believed to have next to no rows.
const JOINS: [&str; 7] = [
    "rows_of_keys",
    "lower",
    "remove",
    "lock_rows",
    "free_rows",
    "sweep",
    "sweep_item",
];

/// What PostgreSQL can know of tables that are about to grow: nothing, that they are empty, and that
/// they have a page.
const KNOWN: [&str; 3] = [
    "select",
    "vacuum analyze",
    "insert into recents.recent_workflow
         select 'w' || n, '', 'p', now(), n from generate_series(1, 20) n;
     insert into recents.note (run) select n from generate_series(1, 20) n;
     insert into recents.dismissal select 'w' || n, '', 'p', now() from generate_series(1, 20) n;
     analyze",
];

#[tokio::test]
async fn plans_that_postgres_makes_before_the_table_has_rows_use_the_right_index() {
    // They are kept until somebody analyzes the table, however fast it grows.
    let db = TestDb::migrated(Backend::Postgres).await;
    assert_right_indexes(&db).await;
}

#[tokio::test]
async fn plans_that_postgres_makes_for_many_lists_use_the_right_index() {
    let db = many_short_and_one_long(Backend::Postgres).await;
    assert_right_indexes(&db).await;
}

async fn assert_right_indexes(db: &TestDb) {
    let mut conn = db.connect().await;
    for (name, value) in recents::store::PG_PLANNING {
        conn.execute(&format!("set {name} = {value}")).await;
    }
    for known in KNOWN {
        conn.execute(known).await;
        let (mut looked_at, mut wrong) = (0, Vec::new());
        for statement in recents::store::statements() {
            let (name, text) = (statement.name, statement.text(Dialect::Postgres));
            let on = |table: &str| text.contains(table);
            let (on_rows, on_notes) = (on("recents.recent_workflow"), on("recents.note"));
            let excused = known != KNOWN[0] && JOINS.contains(&name);
            if !(on_rows || on_notes) || READ_EVERYTHING.contains(&name) || excused {
                continue;
            }
            let parameters = (1..)
                .take_while(|n| text.contains(&format!("${n}")))
                .count();
            let nulls = match parameters {
                0 => String::new(),
                _ => format!("({})", vec!["null"; parameters].join(", ")),
            };
            conn.execute(&format!("prepare plan_of as {text}")).await;
            let sql = format!("explain (format json) execute plan_of {nulls}");
            let plan = plan_of(&mut conn, &sql).await;
            conn.execute("deallocate plan_of").await;
            let nodes = nodes(&plan);
            let whole = nodes.iter().any(|node| {
                (node["Relation Name"] == "recent_workflow" || node["Relation Name"] == "note")
                    && node["Node Type"] != "ModifyTable"
                    && node["Index Name"] != SET_ASIDE
                    && node.get("Index Cond").is_none()
                    && node.get("Recheck Cond").is_none()
            });
            let mut indexes = nodes
                .iter()
                .filter_map(|node| node.get("Index Name")?.as_str());
            let used = !on_rows || indexes.clone().any(|index| index == index_of(name));
            let right =
                |index| [index_of(name), "dismissal_pkey", "note_pkey", SET_ASIDE].contains(&index);
            if whole || !used || !indexes.all(right) {
                wrong.push(format!("{name}: {plan:#}"));
            }
            looked_at += 1;
        }
        assert!(wrong.is_empty(), "{known}: {}", wrong.join("\n"));
        assert!(looked_at >= 10, "{looked_at} statements");
    }
}

#[tokio::test]
async fn sqlite_looks_rows_to_raise_up_by_their_key() {
    let db = crowded(Backend::Sqlite).await;
    let plan = plan_of_sqlite(&mut db.connect().await, text_of("raise", Dialect::Sqlite)).await;
    let by_key = "SEARCH r USING PRIMARY KEY (workspace=? AND uid=? AND published_run=?)";
    assert!(plan.iter().any(|step| step == by_key), "{plan:#?}");
    assert!(
        !plan.iter().any(|step| step.starts_with("SCAN r")),
        "{plan:#?}"
    );
}

/// Rows that SQLite can believe its tables to have: its statistics say so until somebody asks for new ones,
/// however fast they grow. `None` is without statistics.
const BELIEVED: [Option<u32>; 5] = [None, Some(0), Some(1), Some(40), Some(20_000)];

/// Statements about rows that are given to them which read all notes: those set aside, which are few, and
/// where there were next to none when somebody asked for statistics.
const READ_ALL_NOTES: [&str; 2] = ["notes_set_aside_of", "let_notes_go"];

/// Relations of what is given to a statement.
const GIVEN: [&str; 7] = ["x", "k", "u", "s", "l", "n", "CONSTANT"];

#[tokio::test]
async fn sqlite_finds_what_it_is_given_by_index_whatever_it_believes_of_its_tables() {
    let db = TestDb::migrated(Backend::Sqlite).await;
    for believed in BELIEVED {
        if let Some(rows) = believed {
            let fill = format!(
                "delete from recent_workflow; delete from note; delete from dismissal;
                 with recursive n (i) as (select 1 union all select i + 1 from n where i < {rows})
                 insert into recent_workflow
                     select 'w' || i % 300, iif(i % 2, '', 'u' || i % 7), 'p' || i, i, 'r' || i
                     from n where i <= {rows};
                 insert into note (run) select run from recent_workflow;
                 insert into dismissal select workspace, uid, published_run, 1 from recent_workflow;
                 analyze"
            );
            db.execute(&fill).await;
        }
        // A connection reads the statistics when it begins.
        let mut conn = db.connect().await;
        let (mut looked_at, mut wrong) = (0, Vec::new());
        for statement in recents::store::statements() {
            let (name, text) = (statement.name, statement.text(Dialect::Sqlite));
            if !statement.is_for(Dialect::Sqlite)
                || !(text.contains("json_each") || name == "sweep_item")
            {
                continue;
            }
            let plan = plan_of_sqlite(&mut conn, text).await;
            let scanned = plan.iter().filter_map(|step| step.strip_prefix("SCAN "));
            let whole = scanned
                .filter_map(|step| step.split(' ').next())
                .any(|relation| !GIVEN.contains(&relation));
            if whole && !READ_ALL_NOTES.contains(&name) {
                wrong.push(format!("{name}: {plan:#?}"));
            }
            looked_at += 1;
        }
        let wrong = wrong.join("\n");
        assert!(wrong.is_empty(), "{believed:?} rows: {wrong}");
        assert!(looked_at >= 10, "{looked_at} statements");
    }
}
