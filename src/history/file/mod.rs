//! Histories in files: CSV or NDJSON, plain or gzipped, or standard input.

mod csv_lines;
mod json_lines;
mod start;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::HistoryError;
use super::stretch::{Sender, Stretch, Stretches};
use crate::model::time::TimeError;
use crate::model::{RawUse, Time};
use start::Format;

/// The longest line: far more than five ids and a time; a quote that is never closed would
/// otherwise take in the rest of the file.
const MAX_LINE_BYTES: u64 = 1024 * 1024;
/// A stretch has this many runs.
const STRETCH_RUNS: u64 = 50_000;

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
    /// A column is there twice in the header.
    #[error("{}: line {line}: the column `{column}` is there twice: which one is meant?", path.display())]
    Twice {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: u64,
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
    /// A line of CSV goes on and on.
    #[error(
        "{}: line {line}: is longer than 1 MiB, more than a use can be; is a quote not closed?",
        path.display()
    )]
    Endless {
        /// Which file.
        path: PathBuf,
        /// In which line it begins, from 1.
        line: u64,
    },
    /// A record of CSV takes in lines that were meant as others. None of them is passed over.
    #[error(
        "{}: line {line}: a single record takes in {lines} lines; is a quote not closed? Mend it: so many \
         lines are not passed over",
        path.display()
    )]
    Swallowed {
        /// Which file.
        path: PathBuf,
        /// In which line it begins, from 1.
        line: u64,
        /// How many lines it takes in.
        lines: u64,
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
        let (sender, stretches) = Stretches::cuttable();
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
                let input = File::open(&self.path).map_err(io)?;
                let bytes = input.metadata().map_err(io)?.len();
                let taken = Arc::clone(&taken);
                (Box::new(Counted { input, taken }), Some(bytes))
            }
        };
        let (format, input) = start::unpacked(input, &self.path).map_err(io)?;
        let mut taking = Taking {
            file: self,
            sender,
            skip,
            read: 0,
            bytes,
            taken,
            stretch: Stretch::default(),
        };
        let taken = match format {
            Format::JsonLines => taking.take_json(input),
            Format::Csv => taking.take_csv(input),
        };
        // What stands before a broken line, or before the file broke off, is kept.
        taking.hand_over();
        taken
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
    fn take(&mut self, line: impl Fn() -> u64, raw: Line<'_>) -> Result<bool, FileError> {
        if self.sender.is_cut() {
            return Ok(false);
        }
        self.read += 1;
        if self.read <= self.skip {
            return Ok(true);
        }
        self.stretch.tally.scanned += 1;
        match raw {
            Ok(raw) => self.stretch.take(raw, Time::now(), &self.sender.gathered),
            Err(_) if self.file.on_error == OnError::Skip => self.stretch.tally.unmapped += 1,
            Err(problem) => {
                self.read -= 1;
                self.stretch.tally.scanned -= 1;
                return Err(FileError::Line {
                    path: self.file.path.clone(),
                    line: line(),
                    problem,
                });
            }
        }
        if self.stretch.tally.scanned >= STRETCH_RUNS {
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
}

/// A time that cannot be read makes the line a broken one; one out of range makes it no use.
fn time(text: Option<&str>) -> Result<Option<Result<Time, TimeError>>, String> {
    match text.map(Time::parse_sql) {
        Some(Err(error @ TimeError::Malformed)) => Err(format!("last_used_at {error}")),
        time => Ok(time),
    }
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
