//! NDJSON: an object a line.

use std::fmt;
use std::io::{self, BufRead, Read};

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
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
            let fields: Result<Fields, _> = match is_whole {
                true => serde_json::from_slice(&text).map_err(said),
                false => Err("is longer than 1 MiB".into()),
            };
            let more = match &fields {
                Ok(fields) => json_use(fields, |raw| self.take(|| line, raw))?,
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

fn said(error: serde_json::Error) -> String {
    match error.is_data() {
        true => "is not an object".into(),
        false => format!("is not JSON: {error}"),
    }
}

/// The fields of a line that are of a use, and which of them is there twice: as a map, the line would have
/// the last one of them.
#[derive(Default)]
struct Fields {
    values: [Option<Value>; COLUMNS.len()],
    twice: Option<&'static str>,
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Self::default())
    }
}

impl<'de> Visitor<'de> for Fields {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self, A::Error> {
        while let Some((name, value)) = map.next_entry::<String, Value>()? {
            if let Some(at) = COLUMNS.iter().position(|column| *column == name)
                && self.values[at].replace(value).is_some()
            {
                self.twice = Some(COLUMNS[at]);
            }
        }
        Ok(self)
    }
}

fn json_use<T>(fields: &Fields, take: impl FnOnce(Line<'_>) -> T) -> T {
    if let Some(name) = fields.twice {
        return take(Err(format!("has `{name}` twice")));
    }
    let mut texts = [const { None }; COLUMNS.len()];
    for (at, name) in COLUMNS.into_iter().enumerate() {
        texts[at] = match &fields.values[at] {
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
