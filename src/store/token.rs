//! Session tokens: a write, named so that a read on any replica can tell whether it sees it.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use super::{Position, Store};
use crate::cache::Write;

/// Bytes of a token: a check, the database and its timeline, the write.
const BYTES: usize = CHECK_BYTES + 8 + 4 + 3 * 8;
/// Bytes of the check that stands before the rest. It catches mistakes; it is no signature, since a
/// made-up token costs only a look at the database.
const CHECK_BYTES: usize = 4;

/// What a session has seen: everything that was acknowledged before its last write was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// Which database; 0 where it could not be asked, which no database is.
    pub database: u64,
    /// Which history of it.
    pub timeline: u32,
    /// The write.
    pub write: Write,
}

/// The text is not a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a session token; send `Recents-Session-Token` of an answer as it came")]
pub struct BadToken;

/// How long the answer to a write waits for the database to tell a position.
const TOKEN_WITHIN: Duration = Duration::from_secs(1);

impl Store {
    /// A token for a write of this process that was just committed. Where the database cannot be asked
    /// any more, one that is answered from the database in any case.
    pub async fn token(&self) -> Token {
        let changes = self.changes();
        // First, so that it stands for no later write than the position does.
        let sequence = changes.sequence();
        // Only replicas are held against positions, and asking for one is a tenth of what a flush costs.
        // Where this process knows of none, the token is answered from the primary.
        if let (Self::Postgres(..), false, Some(place)) =
            (self, changes.tracks_replicas(), changes.place())
        {
            return Token::new(Some(place), changes.origin, sequence);
        }
        let position = tokio::time::timeout(TOKEN_WITHIN, self.position()).await;
        let position = position.ok().and_then(Result::ok);
        Token::new(position, changes.origin, sequence)
    }
}

impl Token {
    /// Of a write of this process, and the database's position behind it; `None` where the database did
    /// not tell it.
    pub fn new(position: Option<Position>, origin: u64, sequence: u64) -> Self {
        Self {
            database: position.map_or(0, |position| position.database),
            timeline: position.map_or(0, |position| position.timeline),
            write: Write {
                position: position.map_or(u64::MAX, |position| position.at),
                origin,
                sequence,
            },
        }
    }

    /// Its text.
    pub fn encode(&self) -> String {
        let write = &self.write;
        let mut rest = Vec::with_capacity(BYTES);
        rest.extend_from_slice(&self.database.to_be_bytes());
        rest.extend_from_slice(&self.timeline.to_be_bytes());
        for number in [write.position, write.origin, write.sequence] {
            rest.extend_from_slice(&number.to_be_bytes());
        }
        let mut bytes = check(&rest).to_vec();
        bytes.append(&mut rest);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads what [`Token::encode`] wrote.
    ///
    /// # Errors
    /// [`BadToken`] for any other text.
    pub fn decode(text: &str) -> Result<Self, BadToken> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| BadToken)?;
        let (found, rest) = bytes.split_first_chunk::<CHECK_BYTES>().ok_or(BadToken)?;
        let (database, rest) = rest.split_first_chunk::<8>().ok_or(BadToken)?;
        let (timeline, rest) = rest.split_first_chunk::<4>().ok_or(BadToken)?;
        let (numbers, rest) = rest.as_chunks::<8>();
        let ([position, origin, sequence], true) = (numbers, rest.is_empty()) else {
            return Err(BadToken);
        };
        let token = Self {
            database: u64::from_be_bytes(*database),
            timeline: u32::from_be_bytes(*timeline),
            write: Write {
                position: u64::from_be_bytes(*position),
                origin: u64::from_be_bytes(*origin),
                sequence: u64::from_be_bytes(*sequence),
            },
        };
        match *found == check(&bytes[CHECK_BYTES..]) {
            true => Ok(token),
            false => Err(BadToken),
        }
    }
}

fn check(rest: &[u8]) -> [u8; CHECK_BYTES] {
    let hash: [u8; 32] = Sha256::digest(rest).into();
    let mut check = [0; CHECK_BYTES];
    check.copy_from_slice(&hash[..CHECK_BYTES]);
    check
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_back_as_it_was_and_no_other_text_is_one() {
        let position = Position {
            database: u64::MAX,
            timeline: 7,
            at: 1 << 60,
        };
        let token = Token::new(Some(position), 42, 3);
        let text = token.encode();
        assert_eq!(Token::decode(&text), Ok(token));
        assert_eq!(
            URL_SAFE_NO_PAD.decode(&text).map(|bytes| bytes.len()),
            Ok(BYTES)
        );
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(Token::decode(&changed), Err(BadToken), "{changed}");
            assert_eq!(Token::decode(&text[..at]), Err(BadToken));
        }
        assert_eq!(Token::decode(&(text + "A")), Err(BadToken));
    }
}
