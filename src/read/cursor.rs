//! Cursors: where a page of a list ended, as an opaque text.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use crate::model::{Id, Scope, Time};

/// Bytes of the check that stands before the position.
const CHECK_BYTES: usize = 8;
/// Bytes of the time.
const TIME_BYTES: usize = 8;

/// The position behind an item of one list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// The time of the last item before it.
    pub last_used_at: Time,
    /// The published run of that item.
    pub published_run: Id,
}

/// The text is not a cursor of this list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a cursor of this list; use `next_cursor` of its last page as it came")]
pub struct BadCursor;

impl Cursor {
    /// The text of a position in the list of `scope`.
    pub fn encode(scope: &Scope, last_used_at: Time, published_run: &str) -> String {
        let mut position = last_used_at.micros().to_be_bytes().to_vec();
        position.extend_from_slice(published_run.as_bytes());
        let mut bytes = check(scope, &position).to_vec();
        bytes.extend_from_slice(&position);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a text that [`Cursor::encode`] wrote for the same list.
    ///
    /// # Errors
    /// [`BadCursor`] for any other text.
    pub fn decode(scope: &Scope, text: &str) -> Result<Self, BadCursor> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| BadCursor)?;
        let (found, position) = bytes.split_at_checked(CHECK_BYTES).ok_or(BadCursor)?;
        if found != check(scope, position) {
            return Err(BadCursor);
        }
        let (micros, published_run) = position
            .split_first_chunk::<TIME_BYTES>()
            .ok_or(BadCursor)?;
        let published_run = std::str::from_utf8(published_run).map_err(|_| BadCursor)?;
        Ok(Self {
            last_used_at: Time::from_micros(i64::from_be_bytes(*micros)).map_err(|_| BadCursor)?,
            published_run: Id::new(published_run).map_err(|_| BadCursor)?,
        })
    }
}

/// Ties a position to its list. It catches mistakes; it is no signature, since a made-up cursor
/// shows nothing that a `limit` would not.
fn check(scope: &Scope, position: &[u8]) -> [u8; CHECK_BYTES] {
    let mut hash = Sha256::new();
    for part in [scope.workspace.as_bytes(), scope.uid_column().as_bytes()] {
        hash.update(part);
        hash.update([0]);
    }
    hash.update(position);
    let hash: [u8; 32] = hash.finalize().into();
    let mut check = [0; CHECK_BYTES];
    check.copy_from_slice(&hash[..CHECK_BYTES]);
    check
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(workspace: &str, uid: Option<&str>) -> Scope {
        Scope {
            workspace: Id::new(workspace).unwrap(),
            uid: uid.map(|u| Id::new(u).unwrap()),
        }
    }

    #[test]
    fn a_cursor_is_refused_by_every_list_but_its_own_and_after_any_change() {
        let own = scope("5", Some("u1"));
        let text = Cursor::encode(&own, Time::MAX, "88");
        let cursor = Cursor::decode(&own, &text).unwrap();
        assert_eq!(
            (cursor.last_used_at, cursor.published_run.as_str()),
            (Time::MAX, "88")
        );
        for other in [
            scope("5", None),
            scope("5", Some("u2")),
            scope("6", Some("u1")),
            scope("5u1", None),
        ] {
            assert_eq!(Cursor::decode(&other, &text), Err(BadCursor));
        }
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(
                Cursor::decode(&own, std::str::from_utf8(&changed).unwrap()),
                Err(BadCursor)
            );
            assert_eq!(Cursor::decode(&own, &text[..at]), Err(BadCursor));
        }
    }
}
