//! Opaque ids: what is accepted as the name of a workspace, user, published run or run.

use std::fmt;

/// The longest id in bytes. Three of them and a time stay far below the 2,704 bytes that a
/// PostgreSQL B-tree key may have.
pub const MAX_ID_BYTES: usize = 128;

/// Why a text is not an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The empty text.
    #[error("is empty; an id has 1 to {MAX_ID_BYTES} bytes")]
    Empty,
    /// More than [`MAX_ID_BYTES`] bytes.
    #[error("has {0} bytes; an id has at most {MAX_ID_BYTES}")]
    TooLong(usize),
    /// A control character; NUL in particular, which PostgreSQL text cannot hold.
    #[error("contains the control character U+{0:04X}; an id has none")]
    Control(u32),
    /// `.` or `..`, which clients and proxies rewrite in paths.
    #[error("is `.` or `..`, which cannot stand in a URL path; choose another id")]
    Dots,
}

/// Checks that `text` is an id: 1–128 bytes, no control characters, not `.` or `..`.
///
/// This is the only such check, for every way in: HTTP, history and files.
///
/// # Errors
/// The first rule that `text` breaks.
pub fn check(text: &str) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.len() > MAX_ID_BYTES {
        return Err(IdError::TooLong(text.len()));
    }
    // Most ids are printable ASCII, which is told by its bytes.
    if !text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
        && let Some(control) = text.chars().find(|c| c.is_control())
    {
        return Err(IdError::Control(control as u32));
    }
    if text == "." || text == ".." {
        return Err(IdError::Dots);
    }
    Ok(())
}

/// A checked id. Ordered by its bytes, as `COLLATE "C"` and SQLite's `BINARY` order text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(Box<str>);

impl Id {
    /// Checks `text` and keeps it.
    ///
    /// # Errors
    /// The first rule that `text` breaks; see [`check`].
    pub fn new(text: impl Into<Box<str>>) -> Result<Self, IdError> {
        let text = text.into();
        check(&text)?;
        Ok(Self(text))
    }

    /// The text of the id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::ops::Deref for Id {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
