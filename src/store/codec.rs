//! [`Time`] on the wire: `timestamptz` in PostgreSQL, microseconds in SQLite.
//!
//! Someone else's SQL may have written a time into a table of ours that is none: it is read as the end of
//! the range that is next to it, so that lists are read all the same, and verify can name the row.

use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo, PgValueRef};
use sqlx::sqlite::{SqliteArgumentsBuffer, SqliteTypeInfo, SqliteValueRef};
use sqlx::{Decode, Encode, Postgres, Sqlite, Type};

use crate::model::Time;
use crate::model::time::TimeError;

/// PostgreSQL's own numbers of the types, which never change. By their names each connection would ask
/// for them, in a statement of the driver's own.
const TIMESTAMPTZ: Oid = Oid(1184);
const TIMESTAMPTZ_ARRAY: Oid = Oid(1185);
/// 2000-01-01, from which PostgreSQL counts, in microseconds since 1970.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

/// A time of a history, of a `timestamptz`'s binary form; what is no time is told.
pub(crate) fn time_from_postgres(micros: i64) -> Result<Time, TimeError> {
    match micros {
        i64::MIN | i64::MAX => Err(TimeError::Infinite),
        // The year 294276 overflows; it is far, not infinite.
        _ => match micros.checked_add(POSTGRES_EPOCH) {
            Some(micros) => Time::from_micros(micros),
            None => Err(TimeError::OutOfRange),
        },
    }
}

impl Type<Postgres> for Time {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(TIMESTAMPTZ)
    }
}

impl PgHasArrayType for Time {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(TIMESTAMPTZ_ARRAY)
    }
}

impl Encode<'_, Postgres> for Time {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let micros = match *self {
            Self::AFTER_ALL => i64::MAX,
            time => time.micros() - POSTGRES_EPOCH,
        };
        Encode::<Postgres>::encode(micros, buffer)
    }
}

impl Decode<'_, Postgres> for Time {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        let micros: i64 = Decode::<Postgres>::decode(value)?;
        Ok(Time::clamped(micros.saturating_add(POSTGRES_EPOCH)))
    }
}

impl Type<Sqlite> for Time {
    fn type_info() -> SqliteTypeInfo {
        <i64 as Type<Sqlite>>::type_info()
    }
}

impl Encode<'_, Sqlite> for Time {
    fn encode_by_ref(&self, buffer: &mut SqliteArgumentsBuffer) -> Result<IsNull, BoxDynError> {
        Encode::<Sqlite>::encode(self.micros(), buffer)
    }
}

impl Decode<'_, Sqlite> for Time {
    fn decode(value: SqliteValueRef<'_>) -> Result<Self, BoxDynError> {
        Ok(Time::clamped(Decode::<Sqlite>::decode(value)?))
    }
}
