//! NDJSON: an object a line.

use std::io::{self, BufRead, Read};

use serde_json::Value;

use super::{COLUMNS, FileError, Line, MAX_LINE_BYTES, OPTIONAL, Taking, time};
use crate::model::RawUse;

impl Taking<'_> {
    pub(super) fn take_json(&mut self, mut input: Box<dyn BufRead>) -> Result<(), FileError> {
        let (mut line, mut text) = (0, Vec::new());
        loop {
            let path = &self.file.path;
            let read = next_line(&mut input, &mut text);
            let is_whole = read.map_err(|error| FileError::Io(path.clone(), error))?;
            line += 1;
            if text.is_empty() {
                return Ok(());
            }
            if text.trim_ascii().is_empty() {
                continue;
            }
            let value = match is_whole {
                true => {
                    serde_json::from_slice(&text).map_err(|error| format!("is not JSON: {error}"))
                }
                false => Err("is longer than 1 MiB".into()),
            };
            let more = match &value {
                Ok(value) => json_use(value, |raw| self.take(|| line, raw))?,
                Err(problem) => self.take(|| line, Err(problem.clone()))?,
            };
            if !more {
                return Ok(());
            }
        }
    }
}

/// Reads a line, and passes over what it has more than [`MAX_LINE_BYTES`]: `false` where that was
/// something.
fn next_line(input: &mut impl BufRead, text: &mut Vec<u8>) -> io::Result<bool> {
    text.clear();
    let bytes = input.take(MAX_LINE_BYTES).read_until(b'\n', text)?;
    if (bytes as u64) < MAX_LINE_BYTES || text.ends_with(b"\n") {
        return Ok(true);
    }
    input.skip_until(b'\n')?;
    Ok(false)
}

fn json_use<T>(value: &Value, take: impl FnOnce(Line<'_>) -> T) -> T {
    let Value::Object(object) = value else {
        return take(Err("is not an object".into()));
    };
    let mut texts = [const { None }; COLUMNS.len()];
    for (at, name) in COLUMNS.into_iter().enumerate() {
        texts[at] = match object.get(name) {
            None if at >= OPTIONAL => return take(Err(format!("has no `{name}`"))),
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text.clone()),
            Some(Value::Number(number)) if at < COLUMNS.len() - 1 && !number.is_f64() => {
                Some(number.to_string())
            }
            Some(_) => return take(Err(format!("`{name}` is neither text nor a whole number"))),
        };
    }
    let text = |at: usize| texts[at].as_deref().filter(|text| !text.is_empty());
    let time = match time(text(4)) {
        Ok(time) => time,
        Err(problem) => return take(Err(problem)),
    };
    take(Ok(RawUse {
        run: text(0),
        uid: text(1),
        workspace: text(2),
        published_run: text(3),
        last_used_at: time,
    }))
}
