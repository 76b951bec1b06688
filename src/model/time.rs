//! One time type for every path: microseconds since 1970.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::ser::Error;
use serde::{Serialize, Serializer};
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

const MICROS_PER_SECOND: i64 = 1_000_000;
/// As a time is written, digit by digit.
const NO_TIME: &[u8; 27] = b"0000-00-00T00:00:00.000000Z";

/// A moment: microseconds since 1970-01-01T00:00:00Z, in the years 1970–9999.
///
/// An integer, so that it sorts alike in Rust, PostgreSQL (`timestamptz`) and SQLite (`integer`),
/// and so that no text or far year can make a decoder panic.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(i64);

/// Why something is not a [`Time`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    /// PostgreSQL's `infinity` or `-infinity`.
    #[error("is infinite")]
    Infinite,
    /// Outside of the years 1970–9999.
    #[error("is not in the years 1970 to 9999")]
    OutOfRange,
    /// Not a time at all.
    #[error("is not an RFC 3339 time, such as 2026-11-20T10:00:00Z")]
    Malformed,
}

impl Time {
    /// 1970-01-01T00:00:00Z.
    pub const MIN: Self = Self(0);
    /// 9999-12-31T23:59:59.999999Z.
    pub const MAX: Self = Self(253_402_300_799 * MICROS_PER_SECOND + 999_999);

    /// Behind everything that a table can hold, `infinity` too: where a list, newest first, starts.
    pub(crate) const AFTER_ALL: Self = Self(i64::MAX);

    /// From microseconds since 1970.
    ///
    /// # Errors
    /// [`TimeError::Infinite`] for the two ends of `i64`, [`TimeError::OutOfRange`] otherwise.
    pub fn from_micros(micros: i64) -> Result<Self, TimeError> {
        match micros {
            i64::MIN | i64::MAX => Err(TimeError::Infinite),
            _ if !(Self::MIN.0..=Self::MAX.0).contains(&micros) => Err(TimeError::OutOfRange),
            _ => Ok(Self(micros)),
        }
    }

    /// From microseconds since 1970, or the end of the range that is next to them.
    pub(crate) fn clamped(micros: i64) -> Self {
        Self(micros.clamp(Self::MIN.0, Self::MAX.0))
    }

    /// Microseconds since 1970.
    pub fn micros(self) -> i64 {
        self.0
    }

    /// The clock, clamped to the range of the type.
    pub fn now() -> Self {
        let since = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Self::clamped(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }

    /// This moment and `later`, at most [`Time::MAX`].
    pub fn saturating_add(self, later: Duration) -> Self {
        let micros = i64::try_from(later.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(micros).min(Self::MAX.0))
    }

    /// Reads an RFC 3339 time with any offset; digits beyond microseconds are cut off.
    ///
    /// # Errors
    /// [`TimeError::Malformed`] or [`TimeError::OutOfRange`].
    pub fn parse_rfc3339(text: &str) -> Result<Self, TimeError> {
        let moment = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| TimeError::Malformed)?;
        Self::from_moment(moment)
    }

    /// Reads a time as databases and their exports write it: RFC 3339, or SQL's
    /// `2026-11-20 10:00:00[.123456]`, with an offset or in UTC, or `infinity`.
    ///
    /// # Errors
    /// As [`Time::parse_rfc3339`], and [`TimeError::Infinite`].
    pub fn parse_sql(text: &str) -> Result<Self, TimeError> {
        const DATE_TIME: &[time::format_description::BorrowedFormatItem<'_>] = format_description!(
            "[year]-[month]-[day] [hour]:[minute]:[second][optional [.[subsecond]]]"
        );
        const WITH_OFFSET: &[time::format_description::BorrowedFormatItem<'_>] = format_description!(
            "[year]-[month]-[day] [hour]:[minute]:[second][optional [.[subsecond]]]\
             [offset_hour sign:mandatory][optional [:[offset_minute]]]"
        );
        if matches!(text, "infinity" | "-infinity") {
            return Err(TimeError::Infinite);
        }
        if let Ok(moment) = OffsetDateTime::parse(text, &Rfc3339) {
            return Self::from_moment(moment);
        }
        if let Ok(moment) = PrimitiveDateTime::parse(text, DATE_TIME) {
            return Self::from_moment(moment.assume_utc());
        }
        let moment = OffsetDateTime::parse(text, WITH_OFFSET).map_err(|_| TimeError::Malformed)?;
        Self::from_moment(moment)
    }

    fn from_moment(moment: OffsetDateTime) -> Result<Self, TimeError> {
        let micros = moment.unix_timestamp_nanos().div_euclid(1_000);
        Self::from_micros(i64::try_from(micros).map_err(|_| TimeError::OutOfRange)?)
    }
}

impl Time {
    /// RFC 3339 in UTC with six decimals, written over `text`. The calendar is the library's; its formatting takes
    /// three times as long, which of a list that is read is a fiftieth.
    fn write_rfc3339(self, text: &mut [u8; NO_TIME.len()]) -> Option<&str> {
        *text = *NO_TIME;
        let seconds = self.0.div_euclid(MICROS_PER_SECOND);
        let moment = OffsetDateTime::from_unix_timestamp(seconds).ok()?;
        let (year, month, day) = moment.to_calendar_date();
        let (hour, minute, second) = moment.to_hms();
        let parts = [
            (3, i64::from(year)),
            (6, i64::from(u8::from(month))),
            (9, i64::from(day)),
            (12, i64::from(hour)),
            (15, i64::from(minute)),
            (18, i64::from(second)),
            (25, self.0.rem_euclid(MICROS_PER_SECOND)),
        ];
        for (last, mut rest) in parts {
            let mut at = last;
            while rest > 0 {
                *text.get_mut(at)? += (rest % 10) as u8;
                rest /= 10;
                at = at.wrapping_sub(1);
            }
        }
        std::str::from_utf8(text).ok()
    }
}

impl fmt::Display for Time {
    /// RFC 3339 in UTC with six decimals: `2026-11-20T10:00:00.123456Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Every value of the type is a year of four digits, so that nothing can fail.
        f.write_str(self.write_rfc3339(&mut NO_TIME.clone()).ok_or(fmt::Error)?)
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = *NO_TIME;
        let text = self.write_rfc3339(&mut text);
        serializer.serialize_str(text.ok_or_else(|| S::Error::custom(TimeError::OutOfRange))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_offset_and_precision_reads_to_the_same_microsecond() {
        let expected = "2026-11-20T10:00:00.123456Z";
        for text in [
            "2026-11-20T10:00:00.123456Z",
            "2026-11-20T12:00:00.123456+02:00",
            "2026-11-20T10:00:00.123456789Z",
            "2026-11-20T04:30:00.123456-05:30",
            "2026-11-20t10:00:00.123456z",
        ] {
            assert_eq!(
                Time::parse_rfc3339(text).map(|t| t.to_string()),
                Ok(expected.into()),
                "{text}"
            );
            assert_eq!(
                Time::parse_sql(text).map(|t| t.to_string()),
                Ok(expected.into()),
                "{text}"
            );
        }
        for text in [
            "2026-11-20 10:00:00.123456",
            "2026-11-20 12:00:00.123456+02",
            "2026-11-20 12:00:00.123456+02:00",
        ] {
            assert_eq!(
                Time::parse_sql(text).map(|t| t.to_string()),
                Ok(expected.into()),
                "{text}"
            );
        }
        assert_eq!(
            Time::parse_rfc3339("2026-11-20 10:00:00.123456"),
            Err(TimeError::Malformed)
        );
        assert_eq!(
            Time::parse_sql("2026-11-20 10:00:00").map(Time::micros),
            Ok(1_795_168_800_000_000)
        );
    }

    #[test]
    fn the_ends_of_the_range_print_and_what_lies_beyond_is_refused() {
        assert_eq!(Time::MIN.to_string(), "1970-01-01T00:00:00.000000Z");
        assert_eq!(Time::MAX.to_string(), "9999-12-31T23:59:59.999999Z");
        for micros in [
            1,
            951_782_400_000_000,
            1_709_164_799_999_999,
            253_370_764_800_000_010,
        ] {
            let time = Time(micros);
            assert_eq!(Time::parse_rfc3339(&time.to_string()), Ok(time));
            assert_eq!(
                serde_json::to_value(time).ok(),
                Some(time.to_string().into())
            );
        }
        assert_eq!(
            Time::parse_rfc3339("9999-12-31T23:59:59.9999999Z"),
            Ok(Time::MAX)
        );
        assert_eq!(
            Time::parse_rfc3339("1969-12-31T23:59:59.999999Z"),
            Err(TimeError::OutOfRange)
        );
        assert_eq!(
            Time::parse_rfc3339("9999-12-31T23:59:59-01:00"),
            Err(TimeError::OutOfRange)
        );
        assert_eq!(Time::from_micros(i64::MAX), Err(TimeError::Infinite));
        assert_eq!(Time::from_micros(i64::MIN), Err(TimeError::Infinite));
        assert_eq!(Time::from_micros(-1), Err(TimeError::OutOfRange));
        assert_eq!(Time::parse_sql("-infinity"), Err(TimeError::Infinite));
        for text in [
            "",
            "now",
            "2026-11-20",
            "2026-13-01T00:00:00Z",
            "1700000000",
            "2026-11-20T10:00:00",
        ] {
            assert_eq!(
                Time::parse_rfc3339(text),
                Err(TimeError::Malformed),
                "{text}"
            );
        }
    }
}
