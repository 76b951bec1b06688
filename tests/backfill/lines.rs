//! Broken lines of a file: named, or counted and passed over.

use serde_json::json;

use super::broken_lines::{Kind, T, kinds};
use super::hook::hooked;
use crate::support::command::Ended;
use crate::support::history::file::{HEADER, csv, gzip, ndjson};
use crate::support::history::setup::last_json;
use crate::support::history::{Files, maximum};
use crate::support::uses::Rows;
use crate::support::{TestDb, Use, both};

both!(
    a_broken_line_is_named_and_what_stands_before_it_is_kept,
    broken_lines_can_be_passed_over_and_are_counted,
    a_broken_first_line_is_read_as_the_name_of_the_file_says,
    a_line_without_end_is_named_and_what_stands_before_it_is_kept,
    a_file_that_breaks_off_keeps_what_was_read,
    a_missing_column_is_named,
    a_column_that_is_there_twice_is_named,
    a_file_that_cannot_be_read_is_named,
);

fn assert_named(ended: &Ended, name: &str, line: usize, problem: &str) {
    let place = format!("{name}: line {line}: {problem}");
    assert!(ended.err.contains(&place), "not `{place}`: {ended:?}");
    assert_eq!(ended.out, "");
}

async fn a_broken_line_is_named_and_what_stands_before_it_is_kept(db: TestDb) {
    let files = Files::beside(db);
    let uses = hooked(50, 40);
    for Kind {
        name,
        header,
        lines,
        broken,
    } in kinds()
    {
        for (n, (line, problem)) in broken.into_iter().enumerate() {
            // Blank lines count, too.
            let line_ends = ["\n", "\r\n", "\n\n", "\r\n\r\n"];
            let line_ends = if n == 0 {
                &line_ends[..]
            } else {
                &line_ends[..1]
            };
            for line_end in line_ends {
                files
                    .db
                    .execute("delete from {recents}recent_workflow")
                    .await;
                let before = format!("{header}{}", lines(&uses[..30]));
                let content = [before.as_bytes(), &line, lines(&uses[30..]).as_bytes()].concat();
                let content = content.split(|byte| *byte == b'\n').collect::<Vec<_>>();
                let content = content.join(line_end.as_bytes());
                files.write(name, content);
                let ended = files.backfill(name, &[]).expect(1);
                let at = before.lines().count() * line_end.lines().count() + 1;
                assert_named(&ended, name, at, problem);
                assert!(
                    ended.err.contains("--on-error skip"),
                    "it says what can be done: {ended:?}"
                );
                files
                    .assert_rows(&maximum(&uses[..30]), "before the broken line")
                    .await;
                assert_eq!(
                    (
                        files.job("state").await.as_str(),
                        files.job("cursor").await.as_str()
                    ),
                    ("failed", "30")
                );
                // The same file, but now passing over such lines: it goes on there.
                let ended = files.backfill(name, &["--on-error", "skip"]).expect(0);
                assert!(ended.err.contains("going on behind 30 runs"), "{ended:?}");
                let summary = last_json(&ended);
                let counts = [
                    &summary["scanned"],
                    &summary["skipped"],
                    &summary["reasons"]["unmapped"],
                ];
                assert_eq!(counts, [&json!(41), &json!(1), &json!(1)]);
                files
                    .assert_rows(&maximum(&uses), "around the broken line")
                    .await;
            }
        }
    }
}

async fn broken_lines_can_be_passed_over_and_are_counted(db: TestDb) {
    let files = Files::beside(db);
    let uses = hooked(51, 40);
    for Kind {
        name,
        header,
        lines,
        broken,
    } in kinds()
    {
        files
            .db
            .execute("delete from {recents}recent_workflow")
            .await;
        let mut content = header.as_bytes().to_vec();
        for (at, usage) in uses.iter().enumerate() {
            content.extend(&broken[at % broken.len()].0);
            content.extend(lines(std::slice::from_ref(usage)).bytes());
        }
        files.write(name, &content);
        let summary = last_json(&files.backfill(name, &["--on-error", "skip"]).expect(0));
        let counts = [
            &summary["scanned"],
            &summary["skipped"],
            &summary["reasons"]["unmapped"],
        ];
        assert_eq!(counts, [&json!(80), &json!(40), &json!(40)], "{name}");
        files
            .assert_rows(&maximum(&uses), "all but the broken lines")
            .await;
    }
}

async fn a_broken_first_line_is_read_as_the_name_of_the_file_says(db: TestDb) {
    let files = Files::beside(db);
    let uses = hooked(56, 40);
    let names = [
        "a.ndjson",
        "a.jsonl",
        "A.NDJSON",
        "a.ndjson.gz",
        "a.jsonl.GZ",
    ];
    let [_, Kind { lines, broken, .. }] = kinds();
    // As long as one of CSV that names its columns.
    let csv = (HEADER.into(), "is not JSON");
    // Each kind of line under some name, and each name for some kind.
    for ((line, problem), name) in broken.into_iter().chain([csv]).zip(names.iter().cycle()) {
        files
            .db
            .execute("delete from {recents}recent_workflow")
            .await;
        let content = [line.as_slice(), lines(&uses).as_bytes()].concat();
        let packed = name.to_lowercase().ends_with(".gz");
        files.write(name, if packed { gzip(&content) } else { content });
        let ended = files.backfill(name, &[]).expect(1);
        assert_named(&ended, name, 1, problem);
        files.backfill(name, &["--on-error", "skip"]).expect(0);
        files.assert_rows(&maximum(&uses), name).await;
    }
}

async fn a_line_without_end_is_named_and_what_stands_before_it_is_kept(db: TestDb) {
    let files = Files::beside(db);
    let uses = hooked(52, 30);
    let long = "x".repeat(3 << 20);
    let more = csv(&hooked(53, 40_000));
    let cases = [
        ("a.csv", csv(&uses) + &format!("r,{long},u,p,{T}\n"), 32),
        // A quote that is never closed takes in what follows.
        ("b.csv", csv(&uses) + "r,\"w,u,p,t\n" + &more, 32),
        ("c.csv", csv(&[]) + "r,\"w,u,p,t\n" + &more, 2),
        ("d.csv", HEADER.replacen("run,", "\"run,", 1) + &more, 1),
        (
            "e.ndjson",
            ndjson(&uses) + &format!("{{\"workspace\":\"{long}\"}}\n"),
            31,
        ),
    ];
    for (name, content, line) in cases {
        files
            .db
            .execute("delete from {recents}recent_workflow")
            .await;
        files.write(name, &content);
        let ended = files.backfill(name, &[]).expect(1);
        assert_named(&ended, name, line, "is longer than 1 MiB");
        let kept = if line > 2 { &uses[..] } else { &[] };
        files.assert_rows(&maximum(kept), name).await;
        let skipping = files.backfill(name, &["--on-error", "skip"]);
        if name.ends_with("csv") {
            assert!(ended.err.contains("is a quote not closed?"), "{ended:?}");
            assert!(
                !ended.err.contains("--on-error"),
                "its end is unknown: {ended:?}"
            );
            assert_named(&skipping.expect(1), name, line, "is longer than 1 MiB");
        } else {
            assert_eq!(last_json(&skipping.expect(0))["skipped"], 1);
        }
        files.assert_rows(&maximum(kept), name).await;
    }
}

async fn a_file_that_breaks_off_keeps_what_was_read(db: TestDb) {
    let files = Files::beside(db);
    let uses = hooked(54, 20_000);
    let zipped = gzip(csv(&uses));
    files.write("a.csv.gz", &zipped[..zipped.len() / 2]);
    let ended = files.backfill("a.csv.gz", &[]).expect(1);
    assert!(ended.err.contains("a.csv.gz: cannot be read"), "{ended:?}");
    let cursor: usize = files
        .job("cursor")
        .await
        .parse()
        .expect("a place in the file");
    assert!(cursor > 1_000 && cursor < 20_000, "{cursor}");
    files
        .assert_rows(&maximum(&uses[..cursor]), "what was read")
        .await;
    // Whole again, it is another file.
    files.ends_as("a.csv.gz", zipped, &uses).await;
}

async fn a_missing_column_is_named(db: TestDb) {
    let files = Files::beside(db);
    for (header, column) in [
        ("workspace,published_run", "last_used_at"),
        ("run,uid,published_run,last_used_at", "workspace"),
        ("workspace,publishedrun,last_used_at", "published_run"),
        ("Workspace,published_run,last_used_at", "workspace"),
        ("", "workspace"),
    ] {
        files.write("a.csv", format!("{header}\na,b,c\n"));
        for args in [&[][..], &["--on-error", "skip"], &["--dry-run"]] {
            let ended = files.backfill("a.csv", args).expect(1);
            let said = format!("a.csv: there is no column `{column}`");
            assert!(ended.err.contains(&said), "{ended:?}");
            // Nothing was read.
            assert!(!ended.err.contains("the same command"), "{ended:?}");
        }
    }
    files.assert_rows(&Rows::new(), "from nothing").await;
}

async fn a_column_that_is_there_twice_is_named(db: TestDb) {
    let files = Files::beside(db);
    for (header, column) in [
        (
            "workspace,workspace,published_run,last_used_at",
            "workspace",
        ),
        ("uid,workspace,published_run,last_used_at, uid ", "uid"),
    ] {
        files.write("a.csv", format!("\n{header}\na,b,c,{T}\n"));
        for args in [&[][..], &["--on-error", "skip"], &["--dry-run"]] {
            let ended = files.backfill("a.csv", args).expect(1);
            let problem = format!("the column `{column}` is there twice");
            assert_named(&ended, "a.csv", 2, &problem);
            assert!(!ended.err.contains("--on-error"), "{ended:?}");
        }
    }
    files.assert_rows(&Rows::new(), "from nothing").await;
    // Others are nobody's.
    let header = "note,workspace,note,published_run,last_used_at";
    let line = format!("{header}\nn,w,n,p,{T}\n");
    let usage = Use::new("w", "p", 0);
    files
        .ends_as("a.csv", line, std::slice::from_ref(&usage))
        .await;
    let line =
        format!(r#"{{"n":1,"n":2,"workspace":"w","published_run":"p","last_used_at":"{T}"}}"#);
    files.ends_as("a.ndjson", line, &[usage]).await;
}

async fn a_file_that_cannot_be_read_is_named(db: TestDb) {
    let files = Files::beside(db);
    std::fs::create_dir(files.path("dir")).expect("a directory");
    for name in ["missing.csv", "dir", "dir/missing"] {
        let ended = files.backfill(name, &[]).expect(1);
        assert!(
            ended
                .one_line()
                .starts_with(&format!("{name}: cannot be read: ")),
            "{ended:?}"
        );
    }
    files.write("empty.csv", "");
    assert!(
        files
            .backfill("empty.csv", &[])
            .expect(1)
            .err
            .contains("there is no column")
    );
}
