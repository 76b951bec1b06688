//! Answers as text, compared with files: what clients see changes only on purpose.

use std::fmt::Write;

use serde_json::Value;

use super::client::Answer;

/// Headers that say nothing about the answer.
const OMITTED: [&str; 2] = ["date", "content-length"];
/// Headers whose value is another one each time.
const VARYING: [&str; 4] = [
    "x-request-id",
    "etag",
    "recents-session-token",
    "server-timing",
];
/// Fields of a document that are another one each time, or in each version.
const VARYING_FIELDS: [&str; 4] = ["request_id", "started_at", "finished_at", "version"];

impl Answer {
    /// Status, headers and body, with `…` for what is another one each time.
    pub(crate) fn shown(&self) -> String {
        let mut shown = format!("{}\n", self.status);
        let mut headers: Vec<_> = self.headers.iter().collect();
        headers.sort_by_key(|(name, _)| name.as_str());
        for (name, value) in headers {
            let value = match name.as_str() {
                name if OMITTED.contains(&name) => continue,
                name if VARYING.contains(&name) => "…".into(),
                _ => without_uuids(value.to_str().expect("a header in ASCII")),
            };
            writeln!(shown, "{name}: {value}").expect("written");
        }
        let kind = self.header("content-type").unwrap_or_default();
        if self.body.is_empty() {
        } else if kind.ends_with("json") && !kind.contains("ndjson") {
            let mut body = self.json();
            cut(&mut body);
            let text = serde_json::to_string_pretty(&body).expect("JSON");
            let text = without_uuids(&without_now(&text));
            writeln!(shown, "\n{text}").expect("written");
        } else {
            write!(shown, "\n{}", self.text()).expect("written");
        }
        shown
    }
}

fn cut(value: &mut Value) {
    match value {
        Value::Object(fields) => fields.iter_mut().for_each(|(name, value)| {
            if VARYING_FIELDS.contains(&name.as_str()) {
                *value = "…".into();
            }
            cut(value);
        }),
        Value::Array(values) => values.iter_mut().for_each(cut),
        _ => {}
    }
}

/// Jobs have a new id each time.
fn without_uuids(text: &str) -> String {
    let is_uuid =
        |part: &str| part.len() == 36 && part.split('-').map(str::len).eq([8, 4, 4, 4, 12]);
    let parts = text.split_inclusive(|c: char| !c.is_ascii_hexdigit() && c != '-');
    let cut = parts.map(|part| {
        let id = part.trim_end_matches(|c: char| !c.is_ascii_hexdigit() && c != '-');
        match is_uuid(id) {
            true => format!("…{}", &part[id.len()..]),
            false => part.to_owned(),
        }
    });
    cut.collect()
}

/// Several answers under their headings.
pub(crate) fn sections<'a>(answers: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let sections = answers
        .into_iter()
        .map(|(heading, shown)| format!("## {heading}\n\n{shown}"));
    sections.collect::<Vec<_>>().join("\n")
}

/// The invalid places that a problem document names, one a line.
pub(crate) fn places(answer: &Answer) -> String {
    let document = answer.json();
    let errors = document["errors"].as_array().cloned().unwrap_or_default();
    let mut places = format!("{} {}\n", answer.status.as_u16(), answer.problem());
    for error in errors {
        let place = match (&error["pointer"], &error["parameter"]) {
            (Value::String(pointer), Value::Null) => pointer.clone(),
            (Value::Null, Value::String(parameter)) => format!("parameter {parameter}"),
            _ => panic!("neither a pointer nor a parameter: {error}"),
        };
        let text = |name: &str| error[name].as_str().expect("text").to_owned();
        let detail = without_now(&text("detail"));
        writeln!(places, "  {place}: {}: {detail}", text("code")).expect("written");
    }
    places
}

/// The server's clock is another one each time.
fn without_now(text: &str) -> String {
    const BEFORE: &str = "the server's clock, ";
    let mut parts = text.split(BEFORE);
    let mut cut = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let after = &part["2026-11-20T10:00:00.123456Z".len()..];
        cut = format!("{cut}{BEFORE}…{after}");
    }
    cut
}

/// Compares with `tests/http/snapshots/<name>.snap`; `INSTA_UPDATE=always` writes it instead.
pub(crate) fn assert_snapshot(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../http/snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}
