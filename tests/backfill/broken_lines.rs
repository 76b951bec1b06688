//! Broken lines of files, and what is said of them.

use crate::support::Use;
use crate::support::history::file::{HEADER, csv_line, ndjson};

/// A time that is one.
pub(super) const T: &str = "2023-11-14T22:13:20Z";

/// Broken lines of CSV with what is said of them.
fn broken_csv() -> Vec<Broken> {
    vec![
        (b"r,w,u,p\n".into(), "has 4 fields, the header has 5"),
        (
            format!("r,w,u,p,{T},\n").into(),
            "has 6 fields, the header has 5",
        ),
        (
            [b"r,w\xff,u,p,", T.as_bytes(), b"\n"].concat(),
            "workspace is not UTF-8",
        ),
        (
            [b"r,w,\xc3,p,", T.as_bytes(), b"\n"].concat(),
            "uid is not UTF-8",
        ),
        (
            b"r,w,u,p,yesterday\n".into(),
            "last_used_at is not an RFC 3339 time",
        ),
        (
            b"r,w,u,p,2023-02-30T00:00:00Z\n".into(),
            "last_used_at is not an RFC 3339 time",
        ),
        (
            b"r,w,u,p,1700000000\n".into(),
            "last_used_at is not an RFC 3339 time",
        ),
    ]
}

/// Broken lines of NDJSON with what is said of them.
fn broken_json() -> Vec<Broken> {
    let line = |workspace: &str, time: &str| {
        format!(r#"{{"workspace":{workspace},"published_run":"p","last_used_at":{time}}}"#) + "\n"
    };
    let time = format!("\"{T}\"");
    vec![
        (b"{\"workspace\":\"w\",\n".into(), "is not JSON"),
        (b"workspace\n".into(), "is not JSON"),
        (line("\"\\ud800\"", &time).into(), "is not JSON"),
        (
            [b"{\"workspace\":\"", &b"\xff"[..], b"\"}\n"].concat(),
            "is not JSON",
        ),
        (b"[1,2]\n".into(), "is not an object"),
        (b"{}\n".into(), "has no `workspace`"),
        (
            line("\"w\",\"workspace\":\"v\"", &time).into(),
            "has `workspace` twice",
        ),
        (
            line("\"w\",\"uid\":null,\"u\\u0069d\":\"u\"", &time).into(),
            "has `uid` twice",
        ),
        (
            line("1.5", &time).into(),
            "`workspace` is neither text nor a whole number",
        ),
        (
            line("true", &time).into(),
            "`workspace` is neither text nor a whole number",
        ),
        (
            line("{}", &time).into(),
            "`workspace` is neither text nor a whole number",
        ),
        (
            line("\"w\"", "1700000000").into(),
            "`last_used_at` is neither text",
        ),
        (
            line("\"w\"", "\"yesterday\"").into(),
            "last_used_at is not an RFC 3339 time",
        ),
    ]
}

/// A broken line, and what is said of it.
type Broken = (Vec<u8>, &'static str);

/// A kind of file.
pub(super) struct Kind {
    pub(super) name: &'static str,
    /// What stands before its lines.
    pub(super) header: &'static str,
    pub(super) lines: fn(&[Use]) -> String,
    pub(super) broken: Vec<Broken>,
}

pub(super) fn kinds() -> [Kind; 2] {
    [
        Kind {
            name: "a.csv",
            header: HEADER,
            lines: |uses| uses.iter().map(csv_line).collect(),
            broken: broken_csv(),
        },
        Kind {
            name: "a.ndjson",
            header: "",
            lines: ndjson,
            broken: broken_json(),
        },
    ]
}
