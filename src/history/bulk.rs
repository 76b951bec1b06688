//! Reading many runs of a PostgreSQL history: COPY in its binary format, which costs both sides about
//! half of what rows of a query do.

use std::time::Duration;

use futures_util::TryStreamExt;
use sqlx::pool::PoolConnection;
use sqlx::{AssertSqlSafe, PgPool, Postgres};
use uuid::Uuid;
use uuid::fmt::Hyphenated;

use super::conflict::{self, Patience};
use super::id_type::{IdType, Types};
use super::look_up::TIMEOUT;
use super::mapping::From;
use super::session::{Taker, settings};
use super::{History, HistoryError};
use crate::model::RawUse;
use crate::store::{PG_BEGIN, time_from_postgres};

/// The binary format's signature, flags and length of its extension.
const HEADER_BYTES: usize = 19;
/// Fields of a row: run, workspace, uid, published run, time.
const FIELDS: usize = 5;

/// A connection that is dropped, not given back, where it was not read to its end: what is left of a
/// COPY would be taken for the next answer.
struct Lent(Option<PoolConnection<Postgres>>);

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(conn) = self.0.take() {
            drop(conn.detach());
        }
    }
}

/// Hands every run of a window, or of all the history, to `take`. What COPY sends says nothing of its types:
/// they are asked for in the same transaction.
pub(super) async fn read(
    history: &History,
    pool: &PgPool,
    window: Option<(&From, &str)>,
    timeout: Duration,
    take: &mut impl Taker,
) -> Result<(), HistoryError> {
    let patience = Patience::of(TIMEOUT);
    let mut any = false;
    loop {
        match read_once(history, pool, window, timeout, take, &mut any).await {
            Err(error) if patience.tries_again(&error) && (!any || take.begins_again()) => {
                any = false;
                conflict::pause().await;
            }
            read => return read,
        }
    }
}

async fn read_once(
    history: &History,
    pool: &PgPool,
    window: Option<(&From, &str)>,
    timeout: Duration,
    take: &mut impl Taker,
    any: &mut bool,
) -> Result<(), HistoryError> {
    let lent = pool.acquire().await.map_err(HistoryError::Database)?;
    let mut lent = Lent(Some(lent));
    let Some(conn) = lent.0.as_deref_mut() else {
        return Err(HistoryError::BrokenOff);
    };
    let begin = AssertSqlSafe(format!("{PG_BEGIN} read only; {}", settings(timeout)));
    sqlx::raw_sql(begin)
        .execute(&mut *conn)
        .await
        .map_err(HistoryError::Database)?;
    let mapping = history.mapping_in(conn).await?;
    let text = mapping.bulk(window);
    // Planning locks the partitions, too. From here on it has its tables, and waits with what a function of the
    // mapping waits for.
    let locks = AssertSqlSafe(format!("explain {text}; set local lock_timeout = 0"));
    sqlx::raw_sql(locks)
        .execute(&mut *conn)
        .await
        .map_err(HistoryError::Database)?;
    let copy = format!("copy ({text}) to stdout (format binary)");
    let mut chunks = conn
        .copy_out_raw(&copy)
        .await
        .map_err(HistoryError::Database)?;
    let (mut texts, mut carried, mut in_header) = (Texts::new(mapping.types), Vec::new(), true);
    while let Some(chunk) = chunks.try_next().await.map_err(HistoryError::Database)? {
        // The server sends a row a chunk; the protocol promises nothing of that.
        let bytes: &[u8] = if carried.is_empty() {
            &chunk
        } else {
            carried.extend_from_slice(&chunk);
            &carried
        };
        let mut rest = bytes;
        if in_header {
            let Some(header) = header(rest) else {
                carried = bytes.to_vec();
                continue;
            };
            (rest, in_header) = (header, false);
        }
        while let Some((fields, behind)) = tuple(rest) {
            (rest, *any) = (behind, true);
            if take.take(texts.raw(fields).map_err(HistoryError::Database)?) {
                take.hand_over().await;
            }
        }
        carried = rest.to_vec();
    }
    drop(chunks);
    sqlx::raw_sql("commit")
        .execute(&mut *conn)
        .await
        .map_err(HistoryError::Database)?;
    drop(lent.0.take());
    Ok(())
}

/// What stands behind the header; `None` where it is not whole yet.
fn header(bytes: &[u8]) -> Option<&[u8]> {
    let (extension, rest) = bytes.get(HEADER_BYTES - 4..)?.split_first_chunk::<4>()?;
    rest.get(usize::try_from(u32::from_be_bytes(*extension)).ok()?..)
}

type Fields<'a> = [Option<&'a [u8]>; FIELDS];

/// The next row and what stands behind it; `None` where it is not whole yet, and at the trailer.
fn tuple(bytes: &[u8]) -> Option<(Fields<'_>, &[u8])> {
    let (count, mut rest) = bytes.split_first_chunk::<2>()?;
    if usize::try_from(i16::from_be_bytes(*count)) != Ok(FIELDS) {
        return None;
    }
    let mut fields = [None; FIELDS];
    for field in &mut fields {
        let (length, behind) = rest.split_first_chunk::<4>()?;
        rest = behind;
        // A negative length is NULL.
        if let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) {
            let (value, behind) = rest.split_at_checked(length)?;
            (*field, rest) = (Some(value), behind);
        }
    }
    Some((fields, rest))
}

/// Makes texts of ids, without allocating.
struct Texts {
    types: [IdType; 4],
    buffers: [[u8; Hyphenated::LENGTH]; 4],
}

impl Texts {
    fn new(types: Types) -> Self {
        let types = [types.run, types.workspace, types.uid, types.published_run];
        Self {
            types,
            buffers: [[0; Hyphenated::LENGTH]; 4],
        }
    }

    fn raw<'a>(&'a mut self, fields: Fields<'a>) -> Result<RawUse<'a>, sqlx::Error> {
        let [run, workspace, uid, published_run] = &mut self.buffers;
        let [run_type, workspace_type, uid_type, published_run_type] = self.types;
        let time = fields[4].map(|bytes| bytes.try_into().map(i64::from_be_bytes));
        let time = time.transpose().map_err(|_| unexpected())?;
        Ok(RawUse {
            run: text(run_type, fields[0], run)?,
            workspace: text(workspace_type, fields[1], workspace)?,
            uid: text(uid_type, fields[2], uid)?,
            published_run: text(published_run_type, fields[3], published_run)?,
            last_used_at: time.map(time_from_postgres),
        })
    }
}

fn unexpected() -> sqlx::Error {
    sqlx::Error::Protocol("COPY sent a value of another size than its type has".into())
}

fn text<'a>(
    kind: IdType,
    field: Option<&'a [u8]>,
    buffer: &'a mut [u8; Hyphenated::LENGTH],
) -> Result<Option<&'a str>, sqlx::Error> {
    let Some(bytes) = field else { return Ok(None) };
    let number = match kind {
        IdType::Int2 => bytes.try_into().map(i16::from_be_bytes).map(i64::from),
        IdType::Int4 => bytes.try_into().map(i32::from_be_bytes).map(i64::from),
        IdType::Int8 => bytes.try_into().map(i64::from_be_bytes),
        IdType::Uuid => {
            let uuid = Uuid::from_slice(bytes).map_err(|_| unexpected())?;
            return Ok(Some(uuid.hyphenated().encode_lower(buffer)));
        }
        IdType::Text | IdType::Other => {
            let text =
                std::str::from_utf8(bytes).map_err(|error| sqlx::Error::Decode(error.into()))?;
            return Ok(Some(text));
        }
    };
    let number = number.map_err(|_| unexpected())?;
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(number).as_bytes();
    let (start, _) = buffer.split_at_mut(digits.len());
    start.copy_from_slice(digits);
    // Digits are ASCII.
    Ok(std::str::from_utf8(start).ok())
}
