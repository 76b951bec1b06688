//! CSV: columns by name, in any order.

use std::io::{self, BufRead, Read};

use csv::ByteRecord;

use super::{COLUMNS, FileError, Line, MAX_LINE_BYTES, OPTIONAL, Taking, time};
use crate::model::RawUse;

impl Taking<'_> {
    pub(super) fn take_csv(&mut self, input: Box<dyn BufRead>) -> Result<(), FileError> {
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
