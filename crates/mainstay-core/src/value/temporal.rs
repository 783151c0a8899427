//! Instants, days and times of day, counted in microseconds and days.
//!
//! PostgreSQL counts microseconds; SQLite stores text. The types here hold the count and know one
//! text form each, which sorts as time does. The calendar arithmetic is jiff's. The range is the
//! years 1 to 9999, in which the text form has a fixed width on both databases.

use jiff::civil;
use std::fmt;
use std::str::FromStr;

const EPOCH: civil::Date = civil::date(1970, 1, 1);
const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;
/// 0001-01-01T00:00:00Z.
const MICROS_MIN: i64 = -62_135_596_800 * MICROS_PER_SECOND;
/// 9999-12-31T23:59:59.999999Z.
const MICROS_MAX: i64 = 253_402_300_800 * MICROS_PER_SECOND - 1;

/// The text is no date or time of the wanted form, or lies outside the years 1 to 9999.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemporalError(&'static str);

impl fmt::Display for TemporalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a {} within the years 1 to 9999", self.0)
    }
}

impl std::error::Error for TemporalError {}

/// An instant in UTC, to the microsecond.
///
/// Text form (and what SQLite stores): `2026-01-31 13:45:00.000000+00:00`. RFC 3339 with `T` and
/// any offset is read as well, and so is a text without an offset, which is taken as UTC because
/// that is what SQLite's `CURRENT_TIMESTAMP` means.
///
/// ```
/// use mainstay_core::Timestamp;
/// let at: Timestamp = "2026-01-31T14:45:00+01:00".parse()?;
/// assert_eq!(at.to_string(), "2026-01-31 13:45:00.000000+00:00");
/// assert_eq!(at.rfc3339(), "2026-01-31T13:45:00.000000Z");
/// # Ok::<(), mainstay_core::value::TemporalError>(())
/// ```
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// A date and a time of day without a zone. Text form: `2026-01-31 13:45:00.000000`.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DateTime(i64);

/// A calendar day, counted from 1970-01-01. Text form: `2026-01-31`.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date(i32);

/// A time of day, in microseconds since midnight. Text form: `13:45:00.000000`.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimeOfDay(i64);

impl Timestamp {
    /// From microseconds since 1970-01-01T00:00:00Z.
    ///
    /// # Errors
    ///
    /// Outside the years 1 to 9999.
    pub fn from_unix_micros(micros: i64) -> Result<Self, TemporalError> {
        in_range(micros).map(Self).ok_or(TemporalError("timestamp"))
    }

    /// Microseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn unix_micros(self) -> i64 {
        self.0
    }

    /// The current time.
    #[must_use]
    pub fn now() -> Self {
        let now = jiff::Timestamp::now().as_microsecond();
        Self(now.clamp(MICROS_MIN, MICROS_MAX))
    }

    /// RFC 3339: `2026-01-31T13:45:00.000000Z`.
    #[must_use]
    pub fn rfc3339(self) -> String {
        format!("{}Z", civil_text(self.0, 'T'))
    }
}

impl DateTime {
    /// From microseconds since 1970-01-01T00:00:00 on the same clock.
    ///
    /// # Errors
    ///
    /// Outside the years 1 to 9999.
    pub fn from_micros(micros: i64) -> Result<Self, TemporalError> {
        in_range(micros)
            .map(Self)
            .ok_or(TemporalError("timestamp without zone"))
    }

    /// Microseconds since 1970-01-01T00:00:00 on the same clock.
    #[must_use]
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// ISO 8601: `2026-01-31T13:45:00.000000`.
    #[must_use]
    pub fn iso8601(self) -> String {
        civil_text(self.0, 'T')
    }
}

impl Date {
    /// From days since 1970-01-01.
    ///
    /// # Errors
    ///
    /// Outside the years 1 to 9999.
    pub fn from_unix_days(days: i32) -> Result<Self, TemporalError> {
        in_range(i64::from(days).saturating_mul(MICROS_PER_DAY))
            .map(|_| Self(days))
            .ok_or(TemporalError("date"))
    }

    /// Days since 1970-01-01.
    #[must_use]
    pub const fn unix_days(self) -> i32 {
        self.0
    }
}

impl TimeOfDay {
    /// From microseconds since midnight.
    ///
    /// # Errors
    ///
    /// Below zero or a day and more.
    pub fn from_micros(micros: i64) -> Result<Self, TemporalError> {
        if (0..MICROS_PER_DAY).contains(&micros) {
            Ok(Self(micros))
        } else {
            Err(TemporalError("time of day"))
        }
    }

    /// Microseconds since midnight.
    #[must_use]
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Hour, minute, second; each below 60, so they fit.
    #[expect(clippy::cast_possible_truncation, reason = "below 24 and 60")]
    const fn hms(self) -> (i8, i8, i8) {
        let seconds = self.0 / MICROS_PER_SECOND;
        (
            (seconds / 3_600) as i8,
            (seconds / 60 % 60) as i8,
            (seconds % 60) as i8,
        )
    }
}

fn in_range(micros: i64) -> Option<i64> {
    (MICROS_MIN..=MICROS_MAX)
        .contains(&micros)
        .then_some(micros)
}

fn civil_text(micros: i64, separator: char) -> String {
    let at = civil_of(micros);
    format!(
        "{:04}-{:02}-{:02}{separator}{:02}:{:02}:{:02}.{:06}",
        at.year(),
        at.month(),
        at.day(),
        at.hour(),
        at.minute(),
        at.second(),
        at.subsec_nanosecond() / 1_000,
    )
}

/// The range of the types lies inside jiff's calendar, so this cannot fail for a value that was
/// constructed.
fn civil_of(micros: i64) -> civil::DateTime {
    let days = micros.div_euclid(MICROS_PER_DAY);
    let day = EPOCH.saturating_add(jiff::Span::new().days(days));
    let time = TimeOfDay(micros.rem_euclid(MICROS_PER_DAY));
    let (hour, minute, second) = time.hms();
    let nanos = i32::try_from(time.0 % MICROS_PER_SECOND * 1_000).unwrap_or(0);
    civil::Time::new(hour, minute, second, nanos)
        .map_or_else(|_| day.at(0, 0, 0, 0), |time| day.to_datetime(time))
}

fn micros_of(at: civil::DateTime) -> Option<i64> {
    let days = EPOCH.until(at.date()).ok()?.get_days();
    in_range(i64::from(days) * MICROS_PER_DAY + time_of(at.time()))
}

/// A date and a time with an offset, `Z` or nothing. jiff's own instant ends some hours before the
/// year 9999 does, so the offset is subtracted here.
fn parse_instant(text: &str) -> Option<i64> {
    let pieces = jiff::fmt::temporal::Pieces::parse(text).ok()?;
    let offset = pieces
        .to_numeric_offset()
        .map_or(0, jiff::tz::Offset::seconds);
    let days = EPOCH.until(pieces.date()).ok()?.get_days();
    let local = i64::from(days) * MICROS_PER_DAY + time_of(pieces.time()?);
    in_range(local - i64::from(offset) * MICROS_PER_SECOND)
}

fn time_of(time: civil::Time) -> i64 {
    let seconds =
        i64::from(time.hour()) * 3_600 + i64::from(time.minute()) * 60 + i64::from(time.second());
    seconds * MICROS_PER_SECOND + i64::from(time.subsec_nanosecond()) / 1_000
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+00:00", civil_text(self.0, ' '))
    }
}

impl fmt::Display for DateTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&civil_text(self.0, ' '))
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let day = civil_of(i64::from(self.0) * MICROS_PER_DAY);
        write!(f, "{:04}-{:02}-{:02}", day.year(), day.month(), day.day())
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (hour, minute, second) = self.hms();
        write!(
            f,
            "{hour:02}:{minute:02}:{second:02}.{:06}",
            self.0 % MICROS_PER_SECOND
        )
    }
}

impl FromStr for Timestamp {
    type Err = TemporalError;

    fn from_str(text: &str) -> Result<Self, TemporalError> {
        parse_instant(text)
            .map(Self)
            .ok_or(TemporalError("timestamp"))
    }
}

impl FromStr for DateTime {
    type Err = TemporalError;

    fn from_str(text: &str) -> Result<Self, TemporalError> {
        text.parse::<civil::DateTime>()
            .ok()
            .and_then(micros_of)
            .map(Self)
            .ok_or(TemporalError("timestamp without zone"))
    }
}

impl FromStr for Date {
    type Err = TemporalError;

    fn from_str(text: &str) -> Result<Self, TemporalError> {
        let day = text
            .parse::<civil::Date>()
            .ok()
            .and_then(|day| micros_of(day.to_datetime(civil::Time::midnight())));
        day.and_then(|micros| i32::try_from(micros.div_euclid(MICROS_PER_DAY)).ok())
            .map(Self)
            .ok_or(TemporalError("date"))
    }
}

impl FromStr for TimeOfDay {
    type Err = TemporalError;

    fn from_str(text: &str) -> Result<Self, TemporalError> {
        let time = text
            .parse::<civil::Time>()
            .map_err(|_| TemporalError("time of day"))?;
        Self::from_micros(time_of(time))
    }
}

/// Each type travels through serde as its ISO text, and reads what it writes.
macro_rules! serde_as_text {
    ($type:ty, $write:expr) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let write: fn(&$type) -> String = $write;
                serializer.serialize_str(&write(self))
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?
                    .parse()
                    .map_err(serde::de::Error::custom)
            }
        }
    };
}

serde_as_text!(Timestamp, |at| at.rfc3339());
serde_as_text!(DateTime, |at| at.iso8601());
serde_as_text!(Date, ToString::to_string);
serde_as_text!(TimeOfDay, ToString::to_string);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form_reads_back_over_the_whole_range() {
        for micros in [MICROS_MIN, -1, 0, 1, 1_700_000_000_123_456, MICROS_MAX] {
            let at = Timestamp::from_unix_micros(micros).unwrap();
            assert_eq!(at.to_string().parse::<Timestamp>().unwrap(), at);
            assert_eq!(at.rfc3339().parse::<Timestamp>().unwrap(), at);
            let local = DateTime::from_micros(micros).unwrap();
            assert_eq!(local.to_string().parse::<DateTime>().unwrap(), local);
        }
        for days in [-719_162, -1, 0, 20_000, 2_932_896] {
            let day = Date::from_unix_days(days).unwrap();
            assert_eq!(day.to_string().parse::<Date>().unwrap(), day);
        }
        for micros in [0, 1, MICROS_PER_DAY - 1] {
            let time = TimeOfDay::from_micros(micros).unwrap();
            assert_eq!(time.to_string().parse::<TimeOfDay>().unwrap(), time);
        }
    }

    #[test]
    fn the_text_form_sorts_as_time_does() {
        let early = Timestamp::from_unix_micros(-5).unwrap();
        let late = Timestamp::from_unix_micros(5).unwrap();
        assert!(early.to_string() < late.to_string());
    }

    #[test]
    fn sqlite_current_timestamp_is_utc() {
        let at: Timestamp = "2026-01-31 13:45:00".parse().unwrap();
        assert_eq!(at.rfc3339(), "2026-01-31T13:45:00.000000Z");
    }

    #[test]
    fn what_lies_outside_the_range_is_refused() {
        assert!(Timestamp::from_unix_micros(MICROS_MIN - 1).is_err());
        assert!(Timestamp::from_unix_micros(MICROS_MAX + 1).is_err());
        assert!(Date::from_unix_days(i32::MAX).is_err());
        assert!(TimeOfDay::from_micros(MICROS_PER_DAY).is_err());
        assert!("-000044-03-15".parse::<Date>().is_err());
        assert!("yesterday".parse::<Timestamp>().is_err());
    }
}
