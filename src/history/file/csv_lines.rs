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
        let columns = self.columns(&header)?;
        let mut record = ByteRecord::new();
        loop {
            let start = reader.position().byte();
            reader.get_mut().begin(start);
            let more = match reader.read_byte_record(&mut record) {
                Ok(false) => return Ok(()),
                Ok(true) => self.take(|| line_of(&reader), csv_use(&record, &columns))?,
                Err(error) if error.is_io_error() => {
                    return Err(self.unreadable(&error, reader.get_ref()));
                }
                Err(error) => self.take(|| line_of(&reader), Err(said(&error)))?,
            };
            if !more {
                return Ok(());
            }
        }
    }

    fn columns(&self, header: &ByteRecord) -> Result<Columns, FileError> {
        let mut columns = [None; COLUMNS.len()];
        for (at, column) in COLUMNS.into_iter().enumerate() {
            let is_it = |field: &[u8]| field.trim_ascii() == column.as_bytes();
            columns[at] = header.iter().position(is_it);
            if columns[at].is_none() && at >= OPTIONAL {
                let path = self.file.path.clone();
                return Err(FileError::Column { path, column });
            }
        }
        Ok(columns)
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
