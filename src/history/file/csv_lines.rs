//! CSV: columns by the names in the first line.

use std::collections::VecDeque;
use std::io::{self, BufRead, Read};

use csv::{ByteRecord, Reader};

use super::{COLUMNS, FileError, Line, MAX_LINE_BYTES, OPTIONAL, Taking, time};
use crate::model::RawUse;

/// Where each of [`COLUMNS`] stands.
type Columns = [Option<usize>; COLUMNS.len()];

impl Taking<'_> {
    pub(super) fn take_csv(&mut self, input: Box<dyn BufRead>) -> Result<(), FileError> {
        let mut reader = csv::ReaderBuilder::new().from_reader(Source::new(input));
        let header = match reader.byte_headers() {
            Ok(header) => header.clone(),
            Err(error) => return Err(self.unreadable(&error, reader.get_ref())),
        };
        self.check_lines(&reader, &header, &Columns::default(), true)?;
        let columns = self.columns(&header, line_of(&reader))?;
        let mut record = ByteRecord::new();
        loop {
            let start = reader.position().byte();
            reader.get_mut().begin(start);
            let is_whole = match reader.read_byte_record(&mut record) {
                Ok(false) => return Ok(()),
                Ok(true) => Ok(()),
                Err(error) if error.is_io_error() => {
                    return Err(self.unreadable(&error, reader.get_ref()));
                }
                Err(error) => Err(said(&error)),
            };
            self.check_lines(&reader, &record, &columns, is_whole.is_ok())?;
            let raw = is_whole.and_then(|()| csv_use(&record, &columns));
            if !self.take(|| line_of(&reader), raw)? {
                return Ok(());
            }
        }
    }

    fn columns(&self, header: &ByteRecord, line: u64) -> Result<Columns, FileError> {
        let mut columns = [None; COLUMNS.len()];
        for (at, column) in COLUMNS.into_iter().enumerate() {
            let is_it = |field: &[u8]| field.trim_ascii() == column.as_bytes();
            let path = || self.file.path.clone();
            let mut named = (0..header.len()).filter(|at| header.get(*at).is_some_and(is_it));
            columns[at] = named.next();
            if columns[at].is_none() && at >= OPTIONAL {
                let path = path();
                return Err(FileError::Column { path, column });
            }
            if named.next().is_some() {
                let path = path();
                return Err(FileError::Twice { path, line, column });
            }
        }
        Ok(columns)
    }

    /// Refuses a record that takes in lines which were meant as records of their own: all of them would
    /// count as one, and go unseen where such a one is passed over.
    fn check_lines<R: Read>(
        &self,
        reader: &Reader<Source<R>>,
        record: &ByteRecord,
        columns: &Columns,
        is_whole: bool,
    ) -> Result<(), FileError> {
        // Only what is quoted has a line end, and nearly none has.
        if !record.as_slice().contains(&b'\n') {
            return Ok(());
        }
        let source = reader.get_ref();
        let raw = source.record_to(reader.position().byte());
        let lines = 1 + line_ends(raw.iter());
        let mut ours = columns.iter().flatten().filter_map(|at| record.get(*at));
        let is_broken = !is_whole || !quotes_close(&raw) || ours.any(|it| has_line(it, record));
        match lines > 1 && is_broken {
            true => Err(FileError::Swallowed {
                path: self.file.path.clone(),
                line: source.line(),
                lines,
            }),
            false => Ok(()),
        }
    }

    fn unreadable<R>(&self, error: &csv::Error, source: &Source<R>) -> FileError {
        let (path, line) = (self.file.path.clone(), source.line());
        match error.kind() {
            _ if source.is_endless => FileError::Endless { path, line },
            csv::ErrorKind::Io(error) => {
                FileError::Io(path, io::Error::new(error.kind(), error.to_string()))
            }
            _ => FileError::Line {
                path,
                line,
                problem: said(error),
            },
        }
    }
}

fn line_of<R: Read>(reader: &Reader<Source<R>>) -> u64 {
    reader.get_ref().line()
}

/// Whether every quote that opens a value closes it, with nothing behind it.
fn quotes_close(record: &[u8]) -> bool {
    let (mut begins, mut quoted) = (true, false);
    let mut bytes = record.iter().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' if quoted => match bytes.peek() {
                // Two are one that is meant.
                Some(b'"') => drop(bytes.next()),
                Some(b',' | b'\r' | b'\n') | None => quoted = false,
                Some(_) => return false,
            },
            b'"' => quoted = begins,
            _ => {}
        }
        begins = !quoted && *byte == b',';
    }
    !quoted
}

/// Whether a value has a line end, and as many commas as a record: it is the end of one line and the
/// beginning of another. Neither an id nor a time has either.
fn has_line(value: &[u8], record: &ByteRecord) -> bool {
    let commas = value.iter().filter(|byte| **byte == b',').count();
    value.contains(&b'\n') && commas + 1 >= record.len()
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

fn csv_use<'a>(record: &'a ByteRecord, columns: &Columns) -> Line<'a> {
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

/// What the CSV reader reads from: it ends a record that takes in more than [`MAX_LINE_BYTES`], and
/// knows in which line a record begins. The reader itself counts from the end of the record before,
/// so that a blank line or the second half of a `\r\n` makes it name a line too early.
struct Source<R> {
    input: R,
    /// What was read and is not behind the record yet.
    chunks: VecDeque<Vec<u8>>,
    /// Where the first chunk begins, in bytes and in lines.
    begins: u64,
    lines_before: u64,
    /// Where the input was read to.
    read_to: u64,
    /// Where the record begins, or the end of the one before.
    record: u64,
    is_endless: bool,
}

impl<R> Source<R> {
    fn new(input: R) -> Self {
        Self {
            input,
            chunks: VecDeque::new(),
            begins: 0,
            lines_before: 0,
            read_to: 0,
            record: 0,
            is_endless: false,
        }
    }

    /// The next record begins here.
    fn begin(&mut self, record: u64) {
        self.record = record;
        while let Some(chunk) = self.chunks.front()
            && self.begins + chunk.len() as u64 <= record
        {
            self.begins += chunk.len() as u64;
            self.lines_before += line_ends(chunk.iter());
            self.chunks.pop_front();
        }
    }

    /// The record, which ends there, without line ends before and behind it.
    fn record_to(&self, end: u64) -> Vec<u8> {
        let at = |place: u64| usize::try_from(place - self.begins).unwrap_or(usize::MAX);
        let bytes = self.chunks.iter().flatten().copied();
        let is_line_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
        let bytes = bytes.take(at(end)).skip(at(self.record));
        let mut record: Vec<u8> = bytes.skip_while(is_line_end).collect();
        while record.pop_if(|byte| is_line_end(byte)).is_some() {}
        record
    }

    /// The line in which the record begins, from 1.
    fn line(&self) -> u64 {
        let before = usize::try_from(self.record - self.begins).unwrap_or(usize::MAX);
        let bytes = || self.chunks.iter().flatten();
        let blank = bytes()
            .skip(before)
            .take_while(|byte| matches!(byte, b'\r' | b'\n'));
        1 + self.lines_before + line_ends(bytes().take(before)) + line_ends(blank)
    }
}

fn line_ends<'a>(bytes: impl Iterator<Item = &'a u8>) -> u64 {
    bytes.filter(|byte| **byte == b'\n').count() as u64
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.read_to - self.record > MAX_LINE_BYTES {
            self.is_endless = true;
            return Err(io::ErrorKind::InvalidData.into());
        }
        let bytes = self.input.read(buffer)?;
        self.chunks.push_back(buffer[..bytes].to_vec());
        self.read_to += bytes as u64;
        Ok(bytes)
    }
}
