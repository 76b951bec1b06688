//! NDJSON: an object a line, with the columns as fields.

use std::io::{BufRead, Read};

use serde_json::Value;

use super::{COLUMNS, FileError, Line, MAX_LINE_BYTES, OPTIONAL, Taking, time};
use crate::model::RawUse;

impl Taking<'_> {
    pub(super) fn take_json(&mut self, mut input: Box<dyn BufRead>) -> Result<(), FileError> {
        let io = |error| FileError::Io(self.file.path.clone(), error);
        let (mut line, mut text) = (0, Vec::new());
        loop {
            text.clear();
            let bytes = (&mut input)
                .take(MAX_LINE_BYTES)
                .read_until(b'\n', &mut text)
                .map_err(io)?;
            line += 1;
            if bytes == 0 {
                return Ok(());
            }
            if bytes as u64 == MAX_LINE_BYTES && text.last() != Some(&b'\n') {
                let problem = format!("is longer than {MAX_LINE_BYTES} bytes");
                return Err(FileError::Line {
                    path: self.file.path.clone(),
                    line,
                    problem,
                });
            }
            if text.trim_ascii().is_empty() {
                continue;
            }
            let value: Result<Value, _> = serde_json::from_slice(&text);
            let more = match &value {
                Ok(value) => json_use(value, |raw| self.take(line, raw))?,
                Err(error) => self.take(line, Err(format!("is not JSON: {error}")))?,
            };
            if !more {
                return Ok(());
            }
        }
    }
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
