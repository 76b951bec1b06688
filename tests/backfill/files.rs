//! A history in a file: CSV or NDJSON, gzipped or not, or standard input.

use std::process::Stdio;

use serde_json::json;

use super::hook::hooked;
use crate::support::history::file::{HEADER, csv, gzip, ndjson};
use crate::support::history::setup::last_json;
use crate::support::history::{Files, Worker, maximum};
use crate::support::uses::T0;
use crate::support::{TestDb, Use, both};

both!(
    a_file_of_any_kind_ends_as_its_grouped_maximum,
    columns_stand_in_any_order_with_others_between,
    columns_for_users_and_runs_may_be_missing,
    byte_order_marks_line_ends_and_quotes_are_read,
    empty_fields_and_nulls_are_no_values,
    ndjson_takes_whole_numbers_for_ids,
    times_are_read_as_databases_write_them,
    a_dry_run_of_a_file_writes_nothing,
);

async fn a_file_of_any_kind_ends_as_its_grouped_maximum(db: TestDb) {
    let files = Files::beside(db);
    // More than one stretch.
    let uses = hooked(40, 60_000);
    let (csv, ndjson) = (csv(&uses), ndjson(&uses[..5_000]));
    let (first, second) = csv.split_at(csv.len() / 3);
    let members = [gzip(first), gzip(""), gzip(second)].concat();
    let summary = files.ends_as("a.csv", &csv, &uses).await;
    let counts = [&summary["scanned"], &summary["skipped"]];
    assert_eq!(counts, [&json!(60_000), &json!(0)]);
    // A row that rises between two checkpoints counts twice.
    let applied = summary["applied"].as_u64();
    assert!(applied >= Some(maximum(&uses).len() as u64), "{summary}");
    files.ends_as("a.csv.gz", gzip(&csv), &uses).await;
    files.ends_as("members.csv.gz", members, &uses).await;
    files.ends_as("a.ndjson", &ndjson, &uses[..5_000]).await;
    for name in ["b.jsonl", "B.NDJSON", "b.json.ndjson.gz"] {
        files.ends_as(name, &ndjson, &uses[..5_000]).await;
    }
    // By its content, where the name does not tell.
    for name in ["b", "b.gz", ".ndjson", "b.csv.old"] {
        files.ends_as(name, gzip(&ndjson), &uses[..5_000]).await;
    }
    files.ends_as("c.txt", &csv, &uses).await;

    for content in [csv.as_bytes(), &gzip(&csv), ndjson.as_bytes()] {
        files
            .db
            .execute("delete from {recents}recent_workflow")
            .await;
        files.write("input", content);
        let mut command = files.command("-", &[]);
        command.stdin(Stdio::from(
            std::fs::File::open(files.path("input")).expect("it is there"),
        ));
        let ended = Worker::start(command).ended().await.expect(0);
        let scanned = last_json(&ended)["scanned"].as_u64().expect("a count") as usize;
        files
            .assert_rows(&maximum(&uses[..scanned]), "from standard input")
            .await;
        assert!(scanned >= 5_000);
    }
}

/// Some uses, and the same as CSV whose columns are these, other ones empty or noise.
fn by_columns(columns: &[&str], line_end: &str) -> (Vec<Use>, String) {
    let uses = hooked(41, 50);
    let mut text = columns.join(",") + line_end;
    for usage in &uses {
        let field = |column: &&str| match column.trim() {
            "run" => usage.run.clone().unwrap_or_default(),
            "uid" => usage.uid.clone().unwrap_or_default(),
            "workspace" => usage.workspace.clone(),
            "published_run" => usage.published_run.clone(),
            "last_used_at" => usage.time().to_string(),
            _ => "\"noise, with \"\"quotes\"\"\nand\r\nlines\"".into(),
        };
        text += &(columns.iter().map(field).collect::<Vec<_>>().join(",") + line_end);
    }
    (uses, text)
}

async fn columns_stand_in_any_order_with_others_between(db: TestDb) {
    let files = Files::beside(db);
    for columns in [
        &["last_used_at", "published_run", "uid", "workspace", "run"][..],
        &[
            "note",
            "uid",
            "run",
            "",
            "workspace",
            "last_used_at",
            "published_run",
            "Run",
        ],
        &[
            " run ",
            " workspace",
            "uid ",
            "published_run",
            "last_used_at",
        ],
    ] {
        let (uses, text) = by_columns(columns, "\n");
        let summary = files.ends_as("a.csv", text, &uses).await;
        assert_eq!(
            (&summary["scanned"], &summary["skipped"]),
            (&json!(50), &json!(0)),
            "{columns:?}"
        );
    }
}

async fn columns_for_users_and_runs_may_be_missing(db: TestDb) {
    let files = Files::beside(db);
    let (uses, text) = by_columns(&["workspace", "published_run", "last_used_at"], "\n");
    let bare: Vec<_> = uses
        .into_iter()
        .map(|usage| Use {
            uid: None,
            run: None,
            ..usage
        })
        .collect();
    files.ends_as("a.csv", text, &bare).await;
    let lines = bare.iter().map(|usage| {
        let mut object = usage.json();
        object
            .as_object_mut()
            .expect("an object")
            .retain(|name, _| name != "uid" && name != "run");
        format!("{object}\n")
    });
    files
        .ends_as("a.ndjson", lines.collect::<String>(), &bare)
        .await;
}

async fn byte_order_marks_line_ends_and_quotes_are_read(db: TestDb) {
    let files = Files::beside(db);
    let columns = [
        "run",
        "workspace",
        "noise",
        "uid",
        "published_run",
        "last_used_at",
    ];
    for (begin, line_end) in [
        ("", "\r\n"),
        ("\u{feff}", "\n"),
        ("\u{feff}", "\r\n"),
        ("", "\r"),
    ] {
        let (uses, text) = by_columns(&columns, line_end);
        files
            .ends_as("a.csv", format!("{begin}{text}"), &uses)
            .await;
        // Without a line end at the end, and with blank lines between.
        files
            .ends_as("b.csv", format!("{begin}{}", text.trim_end()), &uses)
            .await;
        let blank = text.replacen(line_end, &line_end.repeat(3), 1);
        files
            .ends_as("c.csv", format!("{begin}{blank}{line_end}"), &uses)
            .await;
    }
    let quoted = "\u{feff}\"run\",\"workspace\",uid,\"published_run\",last_used_at\n\
                  \"r,1\",\"w \"\"5\"\"\",\"u;'\",\" p\",\"2023-11-14T22:13:20Z\"\n";
    let usage = Use::new("w \"5\"", " p", 0).by("u;'").run("r,1");
    files.ends_as("d.csv", quoted, &[usage]).await;
    let lines = ndjson(&hooked(41, 50)).replace('\n', "\r\n\r\n");
    files
        .ends_as("e.ndjson", format!("  \n{lines}"), &hooked(41, 50))
        .await;
    files
        .ends_as("f.ndjson", format!("\u{feff}{lines}"), &hooked(41, 50))
        .await;
}

async fn empty_fields_and_nulls_are_no_values(db: TestDb) {
    let files = Files::beside(db);
    let time = "2023-11-14T22:13:20Z";
    let csv = format!("{HEADER},w,,p,{time}\nr,,u,p,{time}\nr,w,u,,{time}\nr,w,u,p,\n");
    let object = |workspace: &str, published_run: &str, time: &str| {
        format!(
            r#"{{"run":null,"uid":null,"workspace":{workspace},"published_run":{published_run},"last_used_at":{time}}}"#
        ) + "\n"
    };
    let t = format!("\"{time}\"");
    let ndjson = [
        object("\"w\"", "\"p\"", &t),
        object("null", "\"p\"", &t),
        object("\"w\"", "null", &t),
        object("\"w\"", "\"p\"", "null"),
    ];
    for (name, content) in [("a.csv", csv), ("a.ndjson", ndjson.concat())] {
        let summary = files.ends_as(name, content, &[Use::new("w", "p", 0)]).await;
        let nulls = json!({"null_workspace": 1, "null_published_run": 1, "null_last_used_at": 1});
        assert_eq!(
            (&summary["reasons"], &summary["skipped"]),
            (&nulls, &json!(3)),
            "{name}"
        );
    }
}

async fn ndjson_takes_whole_numbers_for_ids(db: TestDb) {
    let files = Files::beside(db);
    let line = r#"{"run":9223372036854775807,"uid":0,"workspace":-5,"published_run":88,
                   "last_used_at":"2023-11-14T22:13:20Z","more":{"a":[1,2]}}"#;
    let usage = Use::new("-5", "88", 0).by("0").run("9223372036854775807");
    files
        .ends_as("a.ndjson", line.replace('\n', " "), &[usage])
        .await;
}

async fn times_are_read_as_databases_write_them(db: TestDb) {
    let files = Files::beside(db);
    // T0 is 2023-11-14T22:13:20Z.
    let times = [
        ("2023-11-14T22:13:20Z", 0),
        ("2023-11-14T22:13:20.000001Z", 1),
        ("2023-11-14 22:13:20", 0),
        ("2023-11-14 22:13:20.5", 500_000),
        ("2023-11-14 22:13:20+00", 0),
        ("2023-11-15 03:43:20.25+05:30", 250_000),
        ("2023-11-14 17:13:20-05", 0),
        ("2023-11-15t00:13:20+02:00", 0),
        ("1970-01-01 00:00:00", -T0),
    ];
    let mut text = HEADER.to_owned();
    let mut uses = Vec::new();
    for (n, (time, after)) in times.into_iter().enumerate() {
        text += &format!(",w,,p{n},{time}\n");
        uses.push(Use::new("w", &format!("p{n}"), after));
    }
    text += ",w,,p,infinity\n,w,,p,1969-12-31 23:59:59\n,w,,p,9999-12-31T23:59:59-01:00\n";
    let summary = files.ends_as("a.csv", text, &uses).await;
    let none = json!({"infinite_last_used_at": 1, "invalid_last_used_at": 2});
    assert_eq!(summary["reasons"], none);
}

async fn a_dry_run_of_a_file_writes_nothing(db: TestDb) {
    let files = Files::beside(db);
    let uses = hooked(42, 500);
    files.write("a.csv", csv(&uses));
    let ended = files.backfill("a.csv", &["--dry-run"]).expect(0);
    assert_eq!(last_json(&ended)["applied"], json!(maximum(&uses).len()));
    files.assert_rows(&maximum(&[]), "after a dry run").await;
}
