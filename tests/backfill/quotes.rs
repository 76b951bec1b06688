//! Quotes of CSV that take in lines which were meant as others.

use serde_json::json;

use super::broken_lines::T;
use super::hook::hooked;
use crate::support::history::file::{HEADER, csv, csv_line};
use crate::support::history::setup::last_json;
use crate::support::history::{Files, maximum};
use crate::support::{TestDb, Use, both};

both!(
    lines_that_a_stray_quote_takes_in_are_named_and_never_passed_over,
    a_stray_quote_in_another_column_is_named_too,
    a_header_that_takes_in_lines_is_named,
    a_value_of_another_column_may_take_in_lines,
    a_quote_that_takes_in_no_other_line_breaks_its_own,
);

const LINES: usize = 1_000;
/// The first line with a stray quote, from 0 behind the header, and another one.
const FIRST: usize = 499;
const SECOND: usize = 599;

/// The uses as CSV, with a quote before the value of this column of this line, or behind it.
fn with_quotes(uses: &[Use], quotes: &[(usize, usize, bool)]) -> String {
    let mut lines: Vec<String> = uses.iter().map(csv_line).collect();
    for (line, column, behind) in quotes {
        let mut values: Vec<_> = lines[*line]
            .trim_end()
            .split(',')
            .map(String::from)
            .collect();
        let at = if *behind { values[*column].len() } else { 0 };
        values[*column].insert(at, '"');
        lines[*line] = values.join(",") + "\n";
    }
    HEADER.to_owned() + &lines.concat()
}

async fn lines_that_a_stray_quote_takes_in_are_named_and_never_passed_over(db: TestDb) {
    let files = Files::beside(db);
    let uses = hooked(57, LINES);
    let to_the_end = LINES - FIRST;
    let to_the_other = SECOND - FIRST + 1;
    let cases = [
        (with_quotes(&uses, &[(FIRST, 0, false)]), to_the_end),
        (with_quotes(&uses, &[(FIRST, 1, false)]), to_the_end),
        (with_quotes(&uses, &[(FIRST, 4, false)]), to_the_end),
        // As many values as there are columns.
        (
            with_quotes(&uses, &[(FIRST, 1, false), (SECOND, 1, false)]),
            to_the_other,
        ),
        (
            with_quotes(&uses, &[(FIRST, 1, false), (SECOND, 1, true)]),
            to_the_other,
        ),
        (
            with_quotes(&uses, &[(FIRST, 4, false), (SECOND, 4, true)]),
            to_the_other,
        ),
        // More, and fewer.
        (
            with_quotes(&uses, &[(FIRST, 3, false), (SECOND, 1, true)]),
            to_the_other,
        ),
        (
            with_quotes(&uses, &[(FIRST, 1, false), (SECOND, 3, true)]),
            to_the_other,
        ),
    ];
    for (content, lines) in cases {
        for content in [content.replace('\n', "\r\n"), content] {
            files
                .db
                .execute("delete from {recents}recent_workflow")
                .await;
            files.write("a.csv", &content);
            for args in [&[][..], &["--on-error", "skip"]] {
                let ended = files.backfill("a.csv", args).expect(1);
                let place = format!("line {}: a single record takes in {lines} lines", FIRST + 2);
                assert!(ended.err.contains(&place), "not `{place}`: {ended:?}");
                assert!(ended.err.contains("is a quote not closed?"), "{ended:?}");
                let before = maximum(&uses[..FIRST]);
                files.assert_rows(&before, "before the quote").await;
            }
        }
    }
    files.ends_as("a.csv", csv(&uses), &uses).await;
}

async fn a_stray_quote_in_another_column_is_named_too(db: TestDb) {
    let files = Files::beside(db);
    let uses = hooked(61, LINES);
    let line_with = |at: usize, comment: &str| {
        let line = csv_line(&uses[at]);
        line.replace('\n', &format!(",{comment}\n"))
    };
    let with = |comments: [&str; 2], run: &str| {
        let header = HEADER.replace('\n', ",comment\n");
        let lines = (0..LINES).map(|at| match at {
            FIRST => line_with(at, comments[0]),
            SECOND => line_with(at, comments[1]).replacen(',', run, 1),
            _ => line_with(at, "of it"),
        });
        header + &lines.collect::<String>()
    };
    let to_the_other = SECOND - FIRST + 1;
    for (content, lines) in [
        (with(["\"all", "of it"], ","), LINES - FIRST),
        (with(["\"all", "\"of it"], ","), to_the_other),
        // It ends a value, but not the last one of its line.
        (with(["\"all", "of it"], "\","), to_the_other),
    ] {
        files
            .db
            .execute("delete from {recents}recent_workflow")
            .await;
        files.write("a.csv", &content);
        let ended = files.backfill("a.csv", &["--on-error", "skip"]).expect(1);
        let place = format!("line {}: a single record takes in {lines} lines", FIRST + 2);
        assert!(ended.err.contains(&place), "not `{place}`: {ended:?}");
        let before = maximum(&uses[..FIRST]);
        files.assert_rows(&before, "before the quote").await;
    }
}

async fn a_header_that_takes_in_lines_is_named(db: TestDb) {
    let files = Files::beside(db);
    let header = HEADER.replace('\n', ",\"comment\n");
    let lines: String = hooked(58, 10).iter().map(csv_line).collect();
    files.write("a.csv", header + &lines);
    for args in [&[][..], &["--on-error", "skip"]] {
        let ended = files.backfill("a.csv", args).expect(1);
        let place = "line 1: a single record takes in 11 lines";
        assert!(ended.err.contains(place), "{ended:?}");
    }
}

async fn a_value_of_another_column_may_take_in_lines(db: TestDb) {
    let files = Files::beside(db);
    let uses = hooked(59, 30);
    let comments = [
        "plain",
        "5\" of it",
        "\"two\nlines\"",
        "\"\n, a quote: \"\"\n\n\"",
        "\"a,b,c,d,e,f\n1,2,3,4,5,6\"",
    ];
    let commented = |line: String, at: usize| {
        let comment = comments[at % comments.len()];
        line.replace('\n', &format!(",{comment}\n"))
    };
    let header = HEADER.replace('\n', ",comment\n");
    let lines = uses.iter().map(csv_line).enumerate();
    let content: String = lines.map(|(at, line)| commented(line, at)).collect();
    for line_end in ["\n", "\r\n"] {
        let content = format!("{header}{content}").replace('\n', line_end);
        let summary = files.ends_as("a.csv", content, &uses).await;
        let counts = [&summary["scanned"], &summary["skipped"]];
        assert_eq!(counts, [&json!(30), &json!(0)]);
    }
    // Broken for another reason, such a one is passed over alone.
    let broken = commented("r,w,u,p,yesterday\n".into(), 4);
    files.write("b.csv", format!("{header}{broken}{content}"));
    let ended = files.backfill("b.csv", &[]).expect(1);
    assert!(
        ended.err.contains("line 2: last_used_at is not"),
        "{ended:?}"
    );
    let summary = last_json(&files.backfill("b.csv", &["--on-error", "skip"]).expect(0));
    let counts = [&summary["scanned"], &summary["skipped"]];
    assert_eq!(counts, [&json!(31), &json!(1)]);
}

async fn a_quote_that_takes_in_no_other_line_breaks_its_own(db: TestDb) {
    let files = Files::beside(db);
    let uses = hooked(60, 30);
    for last in [format!("r,\"w,u,p,{T}\n"), format!("r,w,u,p,\"{T}\n\r\n\n")] {
        files.write("a.csv", csv(&uses) + &last);
        let ended = files.backfill("a.csv", &[]).expect(1);
        assert!(ended.err.contains("--on-error skip"), "{ended:?}");
        let summary = last_json(&files.backfill("a.csv", &["--on-error", "skip"]).expect(0));
        assert_eq!(summary["skipped"], 1);
    }
}
