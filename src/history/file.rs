//! Histories in files: CSV or NDJSON, plain or gzipped, or standard input.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use csv::ByteRecord;
use flate2::bufread::MultiGzDecoder;
use serde_json::Value;

use super::HistoryError;
use super::stretch::{Sender, Stretch, Stretches};
use crate::model::time::TimeError;
use crate::model::{RawUse, Time};

/// The longest line: far more than five ids and a time; a quote that is never closed would
/// otherwise take in the rest of the file.
const MAX_LINE_BYTES: u64 = 1024 * 1024;
/// A stretch is sent when it has this many runs,
const STRETCH_RUNS: u64 = 50_000;
/// or when its fold has this many bytes.
const STRETCH_BYTES: usize = 8 * 1024 * 1024;

/// The columns of a use, by name; the first two may be missing.
const COLUMNS: [&str; 5] = ["run", "uid", "workspace", "published_run", "last_used_at"];
const OPTIONAL: usize = 2;

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be opened or read.
    #[error("{}: cannot be read", .0.display())]
    Io(PathBuf, #[source] io::Error),
    /// A column is missing from the header.
    #[error(
        "{}: there is no column `{column}`; the first line names the columns: workspace, \
         published_run, last_used_at and, where there are some, uid and run",
        path.display()
    )]
    Column {
        /// Which file.
        path: PathBuf,
        /// Which column.
        column: &'static str,
    },
    /// A line is broken.
    #[error("{}: line {line}: {problem}; mend it, or pass over such lines with --on-error skip", path.display())]
    Line {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: u64,
        /// What is wrong with it.
        problem: String,
    },
}

/// What a broken line does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// It is counted and passed over.
    Skip,
    /// It ends the reading.
    Stop,
}

/// A file, or standard input.
#[derive(Debug, Clone)]
pub struct FileSource {
    path: PathBuf,
    on_error: OnError,
}

impl FileSource {
    /// The file at `path`; `-` is standard input.
    pub fn new(path: PathBuf, on_error: OnError) -> Self {
        Self { path, on_error }
    }

    /// What tells this file from every other, and from itself once it changed. Standard input is
    /// never the same twice.
    ///
    /// # Errors
    /// [`FileError::Io`] where there is no such file.
    pub fn identity(&self) -> Result<String, FileError> {
        if self.is_stdin() {
            return Ok(format!("stdin {}", uuid::Uuid::now_v7()));
        }
        let describe = || -> io::Result<String> {
            let path = self.path.canonicalize()?;
            let meta = std::fs::metadata(&path)?;
            let modified = meta.modified()?.duration_since(std::time::UNIX_EPOCH);
            let modified = modified.unwrap_or_default().as_nanos();
            Ok(format!("file {} {} {modified}", path.display(), meta.len()))
        };
        describe().map_err(|error| FileError::Io(self.path.clone(), error))
    }

    fn is_stdin(&self) -> bool {
        self.path == Path::new("-")
    }

    /// Sends the file's uses, beginning behind the cursor of an earlier reading.
    pub fn read(self, cursor: Option<&str>) -> Stretches {
        let (sender, stretches) = Stretches::channel();
        let skip = cursor.and_then(|cursor| cursor.parse().ok()).unwrap_or(0);
        tokio::task::spawn_blocking(move || {
            let end = self
                .send(&sender, skip)
                .map(|()| None)
                .map_err(HistoryError::from);
            // Nobody may be waiting any more; then nobody needs to know.
            let _ = sender.blocking_send(end);
        });
        stretches
    }

    fn send(&self, sender: &Sender, skip: u64) -> Result<(), FileError> {
        let io = |error| FileError::Io(self.path.clone(), error);
        let taken = Arc::new(AtomicU64::new(0));
        let (input, bytes): (Box<dyn Read>, _) = match self.is_stdin() {
            true => (Box::new(io::stdin()), None),
            false => {
                let file = File::open(&self.path).map_err(io)?;
                let bytes = file.metadata().map_err(io)?.len();
                (
                    Box::new(Counted {
                        input: file,
                        taken: Arc::clone(&taken),
                    }),
                    Some(bytes),
                )
            }
        };
        let mut input: Box<dyn BufRead> = Box::new(BufReader::new(input));
        if input.fill_buf().map_err(io)?.starts_with(&[0x1f, 0x8b]) {
            input = Box::new(BufReader::new(MultiGzDecoder::new(input)));
        }
        let first = input
            .fill_buf()
            .map_err(io)?
            .iter()
            .find(|byte| !byte.is_ascii_whitespace());
        let is_json = first == Some(&b'{');
        let stretch = Stretch::default();
        let mut taking = Taking {
            file: self,
            sender,
            skip,
            read: 0,
            bytes,
            taken,
            stretch,
        };
        match is_json {
            true => taking.take_json(input)?,
            false => taking.take_csv(input)?,
        }
        taking.hand_over();
        Ok(())
    }
}

/// Reading under way.
struct Taking<'a> {
    file: &'a FileSource,
    sender: &'a Sender,
    /// Records that an earlier reading took.
    skip: u64,
    /// Records read so far, skipped and broken ones included.
    read: u64,
    /// Bytes of the file, where it is one, and those taken so far.
    bytes: Option<u64>,
    taken: Arc<AtomicU64>,
    stretch: Stretch,
}

/// What a line holds, or why it is broken.
type Line<'a> = Result<RawUse<'a>, String>;

impl Taking<'_> {
    /// Takes a record; `false` where nobody waits for more.
    fn take(&mut self, line: u64, raw: Line<'_>) -> Result<bool, FileError> {
        self.read += 1;
        if self.read <= self.skip {
            return Ok(true);
        }
        self.stretch.tally.scanned += 1;
        match raw {
            Ok(raw) => self.stretch.take(raw, Time::now()),
            Err(_) if self.file.on_error == OnError::Skip => self.stretch.tally.unmapped += 1,
            Err(problem) => {
                // What stands before the broken line is kept.
                self.read -= 1;
                self.stretch.tally.scanned -= 1;
                self.hand_over();
                return Err(FileError::Line {
                    path: self.file.path.clone(),
                    line,
                    problem,
                });
            }
        }
        let full = self.stretch.fold.bytes() > STRETCH_BYTES;
        if full || self.stretch.tally.scanned >= STRETCH_RUNS {
            return Ok(self.hand_over());
        }
        Ok(true)
    }

    fn hand_over(&mut self) -> bool {
        // As many records in the rest of the file as in what was taken of it.
        let taken = self.taken.load(Ordering::Relaxed).max(1);
        let total = |bytes: u64| (self.read as f64 * bytes as f64 / taken as f64) as u64;
        self.stretch.total = self.bytes.map(total);
        self.stretch.cursor = (!self.file.is_stdin()).then(|| self.read.max(self.skip).to_string());
        let stretch = std::mem::take(&mut self.stretch);
        self.sender.blocking_send(Ok(Some(stretch))).is_ok()
    }

    fn take_csv(&mut self, input: Box<dyn BufRead>) -> Result<(), FileError> {
        let mut reader = csv::ReaderBuilder::new().from_reader(Bounded {
            input,
            since_line: 0,
        });
        let header = reader
            .byte_headers()
            .map_err(|error| self.broken_csv(&error))?
            .clone();
        let mut columns = [None; COLUMNS.len()];
        for (at, name) in COLUMNS.into_iter().enumerate() {
            let trimmed = |field: &[u8]| {
                field
                    .trim_ascii()
                    .strip_prefix(b"\xef\xbb\xbf")
                    .map(<[u8]>::to_vec)
            };
            let is_it = |field: &[u8]| {
                trimmed(field).as_deref().unwrap_or(field.trim_ascii()) == name.as_bytes()
            };
            columns[at] = header.iter().position(is_it);
            if columns[at].is_none() && at >= OPTIONAL {
                return Err(FileError::Column {
                    path: self.file.path.clone(),
                    column: name,
                });
            }
        }
        let mut record = ByteRecord::new();
        loop {
            reader.get_mut().since_line = 0;
            let more = match reader.read_byte_record(&mut record) {
                Ok(false) => return Ok(()),
                Ok(true) => {
                    let line = record.position().map_or(0, csv::Position::line);
                    self.take(line, csv_use(&record, &columns))?
                }
                Err(error) if is_io(&error) => return Err(self.broken_csv(&error)),
                Err(error) => {
                    let line = error.position().map_or(0, csv::Position::line);
                    self.take(line, Err(said(&error)))?
                }
            };
            if !more {
                return Ok(());
            }
        }
    }

    fn broken_csv(&self, error: &csv::Error) -> FileError {
        let path = self.file.path.clone();
        match error.kind() {
            csv::ErrorKind::Io(error) => {
                FileError::Io(path, io::Error::new(error.kind(), error.to_string()))
            }
            _ => FileError::Line {
                path,
                line: error.position().map_or(1, csv::Position::line),
                problem: said(error),
            },
        }
    }

    fn take_json(&mut self, mut input: Box<dyn BufRead>) -> Result<(), FileError> {
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

fn is_io(error: &csv::Error) -> bool {
    matches!(error.kind(), csv::ErrorKind::Io(_))
}

fn said(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => {
            format!("has {len} fields, the header has {expected_len}")
        }
        _ => error.to_string(),
    }
}

fn csv_use<'a>(record: &'a ByteRecord, columns: &[Option<usize>; COLUMNS.len()]) -> Line<'a> {
    let field = |at: usize| -> Result<Option<&'a str>, String> {
        let Some(bytes) = columns[at].and_then(|column| record.get(column)) else {
            return Ok(None);
        };
        let text =
            std::str::from_utf8(bytes).map_err(|_| format!("{} is not UTF-8", COLUMNS[at]))?;
        Ok(Some(text).filter(|text| !text.is_empty()))
    };
    Ok(RawUse {
        run: field(0)?,
        uid: field(1)?,
        workspace: field(2)?,
        published_run: field(3)?,
        last_used_at: time(field(4)?)?,
    })
}

/// A time that cannot be read makes the line a broken one; one out of range makes it no use.
fn time(text: Option<&str>) -> Result<Option<Result<Time, TimeError>>, String> {
    match text.map(Time::parse_sql) {
        Some(Err(error @ TimeError::Malformed)) => Err(format!("last_used_at {error}")),
        time => Ok(time),
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

/// Counts the bytes that were taken.
struct Counted {
    input: File,
    taken: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.input.read(buffer)?;
        self.taken.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(bytes)
    }
}

/// Fails where one line takes in more than [`MAX_LINE_BYTES`].
struct Bounded<R> {
    input: R,
    since_line: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.input.read(buffer)?;
        self.since_line += bytes as u64;
        if self.since_line > MAX_LINE_BYTES {
            let problem = "a line is longer than 1 MiB; is a quote not closed?";
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        }
        Ok(bytes)
    }
}
