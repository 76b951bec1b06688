//! How a file begins: whether it is packed, and how uses stand in it.

use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use super::MAX_LINE_BYTES;

/// What a gzipped file begins with.
const GZIP: &[u8] = &[0x1f, 0x8b];
/// Some programs begin UTF-8 files with it.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// How uses stand in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Csv,
    JsonLines,
}

impl Format {
    /// What the name says, which holds however broken the first line is.
    fn of_name(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_string_lossy().to_ascii_lowercase();
        let name = name.strip_suffix(".gz").unwrap_or(&name);
        match Path::new(name).extension()?.to_str()? {
            "csv" => Some(Self::Csv),
            "ndjson" | "jsonl" => Some(Self::JsonLines),
            _ => None,
        }
    }

    /// What the content looks like, where no name tells.
    fn of_content(start: &[u8]) -> Self {
        match start.iter().find(|byte| !byte.is_ascii_whitespace()) {
            Some(b'{') => Self::JsonLines,
            _ => Self::Csv,
        }
    }
}

/// The text of the file at `path`, and how uses stand in it.
///
/// # Errors
/// Where the input cannot be read or unpacked.
pub(super) fn unpacked(
    input: Box<dyn Read>,
    path: &Path,
) -> io::Result<(Format, Box<dyn BufRead>)> {
    let input = Box::new(BufReader::new(input));
    let (start, mut input) = peek(input, |start| start.len() >= GZIP.len())?;
    if start.starts_with(GZIP) {
        input = Box::new(BufReader::new(MultiGzDecoder::new(input)));
    }
    let (start, mut input) = peek(input, |start| start.len() >= BYTE_ORDER_MARK.len())?;
    if start.starts_with(BYTE_ORDER_MARK) {
        input.consume(BYTE_ORDER_MARK.len());
    }
    if let Some(format) = Format::of_name(path) {
        return Ok((format, input));
    }
    let is_enough = |start: &[u8]| {
        let blank = start.iter().all(u8::is_ascii_whitespace);
        !blank || start.len() as u64 > MAX_LINE_BYTES
    };
    let (start, input) = peek(input, is_enough)?;
    Ok((Format::of_content(&start), input))
}

/// How the input begins, read until it is enough or the input ends: what comes through a pipe comes in
/// pieces of any size. The input still begins with it.
fn peek(
    mut input: Box<dyn BufRead>,
    is_enough: impl Fn(&[u8]) -> bool,
) -> io::Result<(Vec<u8>, Box<dyn BufRead>)> {
    let mut start = Vec::new();
    while !is_enough(&start) {
        let more = input.fill_buf()?;
        if more.is_empty() {
            break;
        }
        start.extend_from_slice(more);
        let bytes = more.len();
        input.consume(bytes);
    }
    let input = Cursor::new(start.clone()).chain(input);
    Ok((start, Box::new(input)))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    /// Input that comes byte by byte.
    struct Trickle(Cursor<Vec<u8>>);

    impl Read for Trickle {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let one = buffer.len().min(1);
            self.0.read(&mut buffer[..one])
        }
    }

    fn packed(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_start_is_seen_whole_in_whatever_pieces_it_comes() {
        let mark = BYTE_ORDER_MARK;
        for (text, format) in [
            ("workspace,uid\n", Format::Csv),
            (" \r\n\t{\"run\":1}\n", Format::JsonLines),
            ("{", Format::JsonLines),
            (" ", Format::Csv),
            ("", Format::Csv),
        ] {
            let plain = text.as_bytes().to_vec();
            let marked = [mark, text.as_bytes()].concat();
            for content in [packed(&plain), packed(&marked), plain, marked] {
                let trickle = Trickle(Cursor::new(content.clone()));
                let pieces: [Box<dyn Read>; 2] =
                    [Box::new(trickle), Box::new(Cursor::new(content))];
                for input in pieces {
                    let (found, mut input) = unpacked(input, Path::new("-")).unwrap();
                    let mut rest = String::new();
                    input.read_to_string(&mut rest).unwrap();
                    assert_eq!((found, rest.as_str()), (format, text));
                }
            }
        }
    }
}
